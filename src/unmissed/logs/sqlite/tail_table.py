"""The tail in the file of a log: its newest messages, whose numbers follow each other but for known holes."""

import logging
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from unmissed.core.messages import Message
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_message
from unmissed.logs.sqlite.number_holes import Hole

logger = logging.getLogger("unmissed")

TAIL_SCHEMA = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    log_ms INTEGER NOT NULL,
    -- Whether the message was also stored in the archive, which notes its loss then.
    archived INTEGER NOT NULL,
    message BLOB NOT NULL
);
"""

_STEP = 250
"""The tail is trimmed when it has so many messages too many. Removing several at once costs less."""

StoredRow = tuple[int, int, int, bytes]
"""A number, the time of the stamp and that on the clock of the log, both in milliseconds, and an encoded message."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was removed from the tail: messages up to ``through``, or none for 0, and which are not in the archive.

    Unless ``is_finished``, there may be more to remove.
    """

    through: int
    unarchived: list[StoredRow]
    is_finished: bool


class Tail:
    """The table of the newest messages. Its methods are called in the transaction of the messages that they concern."""

    def __init__(self, connection: sqlite3.Connection, retention: Retention) -> None:
        self._connection = connection
        self._retention = retention
        self.count()

    def count(self) -> None:
        """Count what is stored, at the start and after a failed transaction."""
        self._count: int
        self._size: int
        self.unarchived: int
        """How many messages are not in the archive."""
        [self._count, self._size, self.unarchived] = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(message)), 0), coalesce(sum(NOT archived), 0) FROM messages"
        ).fetchone()

    def add(self, rows: Sequence[tuple[int, int, int, bool, bytes]]) -> None:
        """Store messages: the number, both times, whether it is archived, and the encoded message of each."""
        self._connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
        self._count += len(rows)
        self._size += sum(len(row[-1]) for row in rows)
        self.unarchived += sum(not row[3] for row in rows)

    @property
    def is_overfull(self) -> bool:
        """Whether it is time to remove messages."""
        has_many = self._count >= self._retention.max_messages + _STEP
        return has_many or self._size > self._retention.max_bytes * 5 // 4

    def trim(self, oldest_ms: int, *, most: int) -> "Trimmed":
        """Remove the oldest messages, at most ``most`` of those that are too many, or not newer than ``oldest_ms``."""
        rows = self._connection.execute(
            "SELECT number, CAST(unix_ms AS INTEGER), CAST(log_ms AS INTEGER), CAST(message AS BLOB), archived "
            "FROM messages ORDER BY number LIMIT ?",
            (most,),
        )
        through, count = 0, 0
        removed: list[StoredRow] = []
        for number, unix_ms, log_ms, stored, archived in rows:
            fits = self._count <= self._retention.max_messages and self._size <= self._retention.max_bytes
            if fits and log_ms > oldest_ms:
                break
            through, count = number, count + 1
            self._count -= 1
            self._size -= len(stored)
            if not archived:
                self.unarchived -= 1
                removed.append((number, unix_ms, log_ms, stored))
        self._connection.execute("DELETE FROM messages WHERE number <= ?", (through,))
        return Trimmed(through, removed, is_finished=count < most)

    def rows(self) -> sqlite3.Cursor:
        """Return what is stored, and whether each message is archived, in ascending order."""
        # Columns of SQLite hold values of any type: another program may have stored a text or a float in a row.
        return self._connection.execute(
            "SELECT number, CAST(unix_ms AS INTEGER), CAST(log_ms AS INTEGER), CAST(message AS BLOB), archived "
            "FROM messages ORDER BY number"
        )

    def set_archived(self, number: int) -> None:
        """Note that a message has been stored in the archive, too."""
        self.unarchived -= 1
        self._connection.execute("UPDATE messages SET archived = 1 WHERE number = ?", (number,))


def decoded(rows: Iterable[StoredRow], *, now: float, log_ms: int) -> Iterator[Message | Hole]:
    """Yield the messages of these rows, or a hole of one number for a damaged one.

    ``now`` is the present time in monotonic seconds, and ``log_ms`` that on the clock of the log.
    """
    for number, unix_ms, stored_ms, stored in rows:
        try:
            age = max(0, log_ms - stored_ms) / 1000
            yield decode_message(stored, number=number, unix_ms=unix_ms, appended_at=now - age)
        except (ValueError, OverflowError) as error:
            logger.warning("message %d is damaged, and skipped: %s", number, error)
            yield Hole(number - 1, number, lost=True)


def continuous(
    found: Iterable[Message | Hole], known: Sequence[Hole], *, after: int, through: int
) -> Iterator[Message | Hole]:
    """Yield what was found above ``after``, with the known holes at their places, and holes for missing messages."""
    holes = deque(hole for hole in known if hole.through > after)
    latest = after
    for each in found:
        first, last = (each.after + 1, each.through) if isinstance(each, Hole) else (each.sequence_number,) * 2
        while holes and holes[0].after < first:
            yield from _up_to(holes[0].after, latest)
            latest = holes[0].through
            yield holes.popleft()
        yield from _up_to(first - 1, latest)
        latest = last
        yield each
    for hole in holes:
        yield from _up_to(hole.after, latest)
        latest = hole.through
        yield hole
    yield from _up_to(through, latest)


def _up_to(number: int, latest: int) -> Iterator[Hole]:
    if number > latest:
        logger.warning("messages %d to %d are missing, and count as lost for every client", latest + 1, number)
        yield Hole(latest, number, lost=True)
