"""The archive in the file of a log: messages that rules and keys keep longer than the tail, and what was lost."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from unmissed.core.encoding import encode_json
from unmissed.core.messages import Message
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_keys

logger = logging.getLogger("unmissed")

ARCHIVE_SCHEMA = """
CREATE TABLE archive (
    number INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    log_ms INTEGER NOT NULL,
    -- The key of the audience that decides about the rule; empty without a rule.
    bucket TEXT NOT NULL,
    -- A digest of the audience and the key of a value, and NULL for a message without a key.
    identity BLOB,
    -- Whether the message counts for the number of messages that its rule keeps.
    counted INTEGER NOT NULL,
    size INTEGER NOT NULL,
    -- Whether a piece of this value is lost.
    partial INTEGER NOT NULL DEFAULT 0,
    message BLOB NOT NULL
);
CREATE INDEX archive_by_bucket ON archive (bucket, number) WHERE counted;
CREATE INDEX archive_by_identity ON archive (identity) WHERE identity IS NOT NULL;
-- The highest number of a lost message for each key of an audience. '' is for messages for everyone, '*' for keys that
-- are not remembered and have no rule, and '?' for any client.
CREATE TABLE lost (
    who TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
"""

EVERYONE_LOST, OTHERS_LOST, ANY_LOST = "", "*", "?"
"""The rows of ``lost`` that are no keys of an audience, which begin with ``#`` or ``@``."""

_MAX_MARKS = 10_000
_SIZE_FACTOR = 2
"""The archive may take this much of ``max_bytes``: the window evicts by bytes earlier, and by the same order."""


@dataclass(slots=True)
class _Stock:
    """What the rule of a bucket keeps, and how many messages are stored that count."""

    pattern: str
    max_messages: int
    max_age_ms: int
    rows: int = 0
    counted: int = 0


@dataclass(frozen=True, slots=True)
class _ArchivedRow:
    number: int
    bucket: str
    counted: int
    size: int


class ArchiveTables:
    """The tables of the archive. Its methods are called in the transaction of the messages that they concern.

    The window of the process applies the rules. The archive keeps at least the same, and somewhat more: it removes in
    steps, so that no publish waits long.
    """

    def __init__(self, connection: sqlite3.Connection, retention: Retention) -> None:
        self._connection = connection
        self._retention = retention
        self.count()

    def count(self) -> None:
        """Count what is stored, at the start and after a failed transaction."""
        self._buckets: dict[str, _Stock] = {}
        self._sizes: Counter[str] = Counter()
        self._overfull: set[str] = set()
        self._swept: int | None = None
        """The number up to which a sweep has come; None if none is under way."""
        rows = self._connection.execute("SELECT bucket, count(*), sum(counted), sum(size) FROM archive GROUP BY bucket")
        for name, count, counted, size in rows:
            self._grow(name, rows=count, counted=counted, size=size)

    def keeps(self, message: Message) -> bool:
        """Return whether this message belongs into the archive at once: if it has a rule or a key."""
        return message.value is not None or self._retention.rule_of(message.audience.first) is not None

    def add(self, message: Message, stored: bytes, *, unix_ms: int, log_ms: int) -> None:
        """Store a message. A value removes what was stored of its key, which is no loss."""
        identity, counted = None, 1
        if message.value is not None:
            identity, counted = _identity(message), 0 if message.value.is_full else 1
            if not message.value.append:
                self._replace(identity)
        first = message.audience.first
        name = "" if first is None or self._retention.rule_of(first) is None else first
        size = message.size_in_log
        self._connection.execute(
            "INSERT OR REPLACE INTO archive VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (message.sequence_number, unix_ms, log_ms, name, identity, counted, size, stored),
        )
        self._grow(name, rows=1, counted=counted, size=size)

    def begin_sweep(self) -> None:
        """Look for what is too old, from the oldest message on. ``trim`` does so, in steps."""
        if self._swept is None:
            self._swept = 0

    def trim(self, now_ms: int, *, most: int) -> None:
        """Remove at most about ``most`` messages, and note for whom they are lost."""
        removed: list[_ArchivedRow] = []
        while self._overfull and len(removed) < most:
            removed += self._overflow(self._overfull.pop(), most=most)
        self._remove(removed)
        if self._buckets and self._sizes.total() > _SIZE_FACTOR * self._retention.max_bytes:
            self.begin_sweep()
        if self._swept is not None:
            self._sweep(now_ms, self._swept, most=most)

    def lose(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Note that these messages, with their numbers, are no longer stored, for each key of their audience."""
        marks: dict[str, int] = {}
        for number, stored in messages:
            for key in _keys(number, stored):
                marks[key] = max(number, marks.get(key, 0))
        self._mark(marks)

    def forget_marks(self, *, most: int = _MAX_MARKS) -> None:
        """Forget the lowest marks of more than ``most`` keys with a rule, or without one: let them count for all."""
        [count] = self._connection.execute("SELECT count(*) FROM lost").fetchone()
        marks = self.marks() if count > most * 5 // 4 else {}
        for has_rule, instead in ((False, OTHERS_LOST), (True, ANY_LOST)):
            keys = [
                key for key in marks if key[:1] in ("#", "@") and has_rule is (self._retention.rule_of(key) is not None)
            ]
            lowest = sorted(keys, key=lambda key: marks[key], reverse=True)[most:]
            self._connection.executemany("DELETE FROM lost WHERE who = ?", [(key,) for key in lowest])
            if lowest:
                self._mark({instead: marks[lowest[0]]})

    def _mark(self, marks: Mapping[str, int]) -> None:
        self._connection.executemany(
            "INSERT INTO lost VALUES (?, ?) ON CONFLICT (who) DO UPDATE SET number = max(number, excluded.number)",
            marks.items(),
        )

    def marks(self) -> Mapping[str, int]:
        """Return the highest lost number by key."""
        return dict(self._connection.execute("SELECT who, number FROM lost"))

    def partial(self) -> frozenset[int]:
        """Return the numbers of the values of which a piece is lost."""
        return frozenset(number for (number,) in self._connection.execute("SELECT number FROM archive WHERE partial"))

    def rows(self, through: int) -> sqlite3.Cursor:
        """Return the number, both times and the message of what is stored up to a number, in ascending order."""
        return self._connection.execute(
            "SELECT number, CAST(unix_ms AS INTEGER), CAST(log_ms AS INTEGER), CAST(message AS BLOB) FROM archive "
            "WHERE number <= ? ORDER BY number",
            (through,),
        )

    def _bucket(self, name: str) -> _Stock:
        bucket = self._buckets.get(name)
        if bucket is None:
            rule = self._retention.rule_of(name or None)
            limits = self._retention if rule is None else rule
            pattern = "" if rule is None else rule.pattern
            bucket = self._buckets[name] = _Stock(pattern, limits.max_messages, round(limits.max_age * 1000))
        return bucket

    def _grow(self, name: str, *, rows: int, counted: int, size: int) -> None:
        bucket = self._bucket(name)
        bucket.rows += rows
        bucket.counted += counted
        self._sizes[bucket.pattern] += size
        # Not at each message: removing several at once costs less.
        if bucket.counted > bucket.max_messages + bucket.max_messages // 8 + 8:
            self._overfull.add(name)

    def _replace(self, identity: bytes) -> None:
        rows = self._connection.execute(
            "SELECT number, bucket, counted, size FROM archive WHERE identity = ?", (identity,)
        ).fetchall()
        if rows:
            self._forget([_ArchivedRow(*row) for row in rows])

    def _overflow(self, name: str, *, most: int) -> list[_ArchivedRow]:
        """Return the oldest messages of a bucket that are more than its rule keeps."""
        bucket = self._buckets[name]
        excess = bucket.counted - bucket.max_messages
        if excess > most:
            self._overfull.add(name)
        rows = self._connection.execute(
            "SELECT number, bucket, counted, size FROM archive WHERE bucket = ? AND counted ORDER BY number LIMIT ?",
            (name, min(excess, most)),
        )
        return [_ArchivedRow(*row) for row in rows]

    def _sweep(self, now_ms: int, after: int, *, most: int) -> None:
        rows = self._connection.execute(
            "SELECT log_ms, number, bucket, counted, size FROM archive WHERE number > ? ORDER BY number LIMIT ?",
            (after, most),
        ).fetchall()
        too_much = self._sizes.total() - _SIZE_FACTOR * self._retention.max_bytes
        [(largest, _)] = self._sizes.most_common(1) or [("", 0)]
        removed: list[_ArchivedRow] = []
        for log_ms, *fields in rows:
            row = _ArchivedRow(*fields)
            bucket = self._bucket(row.bucket)
            if now_ms - log_ms >= bucket.max_age_ms or (too_much > 0 and bucket.pattern == largest):
                removed.append(row)
                too_much -= row.size
        self._remove(removed)
        self._swept = rows[-1][1] if len(rows) == most else None

    def _remove(self, rows: Sequence[_ArchivedRow]) -> None:
        """Remove messages, which are lost with it. A value is partial from then on if one of them is a piece of it."""
        self._connection.executemany(
            "UPDATE archive SET partial = 1 WHERE NOT counted AND identity = "
            "(SELECT identity FROM archive WHERE number = ?)",
            [(row.number,) for row in rows if row.counted],
        )
        for row in rows:
            self.lose(
                self._connection.execute(
                    "SELECT number, CAST(message AS BLOB) FROM archive WHERE number = ?", (row.number,)
                )
            )
        self._forget(rows)

    def _forget(self, rows: Sequence[_ArchivedRow]) -> None:
        for row in rows:
            bucket = self._bucket(row.bucket)
            bucket.rows -= 1
            bucket.counted -= row.counted
            self._sizes[bucket.pattern] -= row.size
            if not bucket.rows:
                del self._buckets[row.bucket]
                self._overfull.discard(row.bucket)
        self._connection.executemany("DELETE FROM archive WHERE number = ?", [(row.number,) for row in rows])


def _identity(message: Message) -> bytes:
    """Return a digest of the audience and the key: the same key with another audience is another value."""
    keys = None if message.audience.keys is None else sorted(message.audience.keys)
    return blake2b(encode_json([keys, message.key]), digest_size=16).digest()


def _keys(number: int, stored: bytes) -> Iterable[str]:
    try:
        keys = decode_keys(stored)
    except ValueError as error:
        logger.warning("message %d is damaged, and counts as lost for every client: %s", number, error)
        return (ANY_LOST,)
    return (EVERYONE_LOST,) if keys is None else keys
