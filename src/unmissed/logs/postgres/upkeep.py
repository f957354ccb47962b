"""The upkeep of a log: messages that rules and keys keep longer are filed, and the rest is trimmed."""

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from unmissed.core.audience import Audience
from unmissed.core.encoding import encode_json
from unmissed.core.messages import Draft, Value
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_keys
from unmissed.logs.postgres.database import DatabaseConnection
from unmissed.logs.postgres.schema import quoted

logger = logging.getLogger("unmissed")

EVERYONE_LOST, OTHERS_LOST, ANY_LOST = "", "*", "?"
"""The rows of ``lost`` that are no keys of an audience, which begin with ``#`` or ``@``."""

_LEAST_KEPT = 1_000
_WINDOWS = 2
"""The tail has so many windows: other nodes read it, while this one trims it."""

_STEP = 1_000
"""The most messages that one step files, and that it trims."""

_COLUMNS = ("number", "unix_ms", "log_ms", "until_ms", "pattern", "bucket", "identity", "counted", "size", "draft")
"""Those of the archive, without the one that is set later."""

_MAX_MARKS = 10_000
_SIZE_FACTOR = 2
"""The archive, and the tail, may take this much of ``max_bytes``: windows evict earlier, and in the same order."""


@dataclass(frozen=True, slots=True)
class _Filed:
    """A row of the archive."""

    number: int
    unix_ms: int
    log_ms: int
    until_ms: int
    pattern: str
    bucket: str
    identity: bytes | None
    counted: bool
    size: int
    draft: bytes
    replaces: bool
    """Whether it ends what was stored of its key."""


class Upkeep:
    """Keeps the tables of a schema small. Any node may do a step, one at a time.

    The windows of the nodes apply the rules. The archive keeps at least the same, and somewhat more.
    """

    def __init__(self, schema: str, retention: Retention) -> None:
        self._schema = quoted(schema)
        self._retention = retention
        self._rules = rules_text(retention)
        self._tail_count = max(_WINDOWS * retention.max_messages, _LEAST_KEPT)

    async def step(self, connection: DatabaseConnection, log_ms: int) -> bool:
        """File and trim a bounded number of messages, in one transaction. Return whether there is more to do."""
        async with connection.transaction(isolation="read_committed"):
            found = await connection.fetchrow(f"SELECT * FROM {self._schema}.begin_upkeep()")
            if found is None or found["latest"] is None:
                return False
            step = _Step(connection, self._schema, self._retention, log_ms, bytes=found["bytes"])
            filed_through, has_more = await step.file(self._filed_through(step, found))
            has_more = await step.expire() or has_more
            has_more = await step.shrink() or has_more
            has_more = await step.trim(filed_through, keep=self._tail_count) or has_more
            await step.finish(epoch=found["epoch"], filed_through=filed_through, rules=self._rules)
        return has_more

    def _filed_through(self, step: "_Step", found: Mapping[str, Any]) -> int:
        """Return the number through which messages are filed."""
        if found["epoch"] != found["filed_epoch"]:
            # Nothing is trimmed before it is filed, unless somebody has emptied the tables.
            if found["oldest"] > found["first_number"]:
                step.lose(ANY_LOST, found["oldest"] - 1)
            return int(found["oldest"]) - 1
        filed_through = int(found["filed_through"])
        if found["rules"] != self._rules:
            # Earlier messages were kept by other rules.
            step.lose(ANY_LOST, filed_through)
        return filed_through


class _Step:
    """One step, in its transaction."""

    def __init__(
        self, connection: DatabaseConnection, schema: str, retention: Retention, log_ms: int, *, bytes: int
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._retention = retention
        self._log_ms = log_ms
        self._bytes = bytes
        self._marks: dict[str, int] = {}
        self.oldest_ms = log_ms - round(retention.max_age * 1000)

    def lose(self, who: str, number: int) -> None:
        """Note that messages may be lost through a number."""
        self._marks[who] = max(number, self._marks.get(who, 0))

    async def file(self, after: int) -> tuple[int, bool]:
        """Archive what must be kept of the messages after a number. Return the last one, and whether there are more."""
        through, count = await self._connection.fetchrow(
            f"SELECT max(number), count(*) FROM (SELECT number FROM {self._schema}.messages "
            f"WHERE number > $1 ORDER BY number LIMIT {_STEP}) AS new",
            after,
        )
        if through is None:
            return after, False
        # Without rules, only messages with a key: their first line is an object.
        only = "" if self._retention.rules else "AND get_byte(draft, 0) = 123 "
        rows = await self._connection.fetch(
            f"SELECT number, unix_ms, log_ms, draft FROM {self._schema}.messages "
            f"WHERE number > $1 AND number <= $2 {only}ORDER BY number",
            after,
            through,
        )
        filed = [row for row in map(self._filed, rows) if row is not None]
        if filed:
            await self._add(filed)
        return through, count == _STEP

    def _filed(self, row: Mapping[str, Any]) -> _Filed | None:
        """Return the row of the archive for a message, or None if it is kept only as long as it is among the newest."""
        try:
            draft = decode_draft(row["draft"])
        except ValueError as error:
            logger.warning("message %d is damaged, and counts as lost for every client: %s", row["number"], error)
            self.lose(ANY_LOST, row["number"])
            return None
        if draft.value is None and self._retention.rule_of(draft.audience.first) is None:
            return None
        return self._row(row, draft)

    def _row(self, row: Mapping[str, Any], draft: Draft) -> _Filed:
        first, value = draft.audience.first, draft.value
        rule = self._retention.rule_of(first)
        max_age = self._retention.max_age if rule is None else rule.max_age
        return _Filed(
            *(row["number"], row["unix_ms"], row["log_ms"], row["log_ms"] + round(max_age * 1000)),
            *("" if rule is None else rule.pattern, "" if rule is None or first is None else first),
            None if value is None else _identity(draft.audience, value),
            value is None or not value.is_full,
            draft.size_in_log,
            row["draft"],
            replaces=value is not None and not value.append,
        )

    async def _add(self, rows: Sequence[_Filed]) -> None:
        """Store messages. A value, and a tombstone, remove what was stored of their key, which is no loss."""
        columns = [[getattr(row, name) for row in rows] for name in _COLUMNS]
        await self._connection.execute(
            f"INSERT INTO {self._schema}.archive ({', '.join(_COLUMNS)}) SELECT * FROM unnest($1::bigint[], "
            "$2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::boolean[], "
            "$9::integer[], $10::bytea[]) ON CONFLICT DO NOTHING",
            *columns,
        )
        self._bytes += sum(row.size for row in rows)
        replacing = {row.identity: row.number for row in rows if row.replaces}
        removed = await self._connection.fetchval(
            f"WITH replaced AS (DELETE FROM {self._schema}.archive AS a "
            "USING unnest($1::bytea[], $2::bigint[]) AS new (identity, number) "
            "WHERE a.identity = new.identity AND a.number < new.number RETURNING size) "
            "SELECT coalesce(sum(size), 0)::bigint FROM replaced",
            [*replacing],
            [*replacing.values()],
        )
        self._bytes -= removed
        await self._remove_excess({row.bucket for row in rows if row.counted})

    async def _remove_excess(self, buckets: Iterable[str]) -> None:
        """Remove the oldest messages of these buckets that are more than their rules keep."""
        counts = await self._connection.fetch(
            f"SELECT bucket, count(*) FROM {self._schema}.archive WHERE counted AND bucket = ANY ($1) GROUP BY bucket",
            [*buckets],
        )
        excess: dict[str, int] = {}
        for bucket, count in counts:
            rule = self._retention.rule_of(bucket or None)
            most = self._retention.max_messages if rule is None else rule.max_messages
            # Not at each message: removing several at once costs less.
            if count > most + most // 8 + 8:
                excess[bucket] = count - most
        if excess:
            await self._remove(
                f"SELECT number FROM unnest($1::text[], $2::integer[]) AS e (bucket, excess), LATERAL (SELECT number "
                f"FROM {self._schema}.archive AS a WHERE a.counted AND a.bucket = e.bucket ORDER BY number "
                "LIMIT e.excess) AS oldest",
                [*excess],
                [*excess.values()],
            )

    async def expire(self) -> bool:
        """Remove what is too old. Return whether there may be more."""
        query = f"SELECT number FROM {self._schema}.archive WHERE until_ms <= $1 ORDER BY until_ms LIMIT {_STEP}"
        return await self._remove(query, self._log_ms) == _STEP

    async def shrink(self) -> bool:
        """Remove the oldest messages of the largest rule if all take too much. Return whether they still do."""
        most = _SIZE_FACTOR * self._retention.max_bytes
        if self._bytes <= most:
            return False
        sizes = await self._connection.fetch(
            f"SELECT pattern, sum(size)::bigint FROM {self._schema}.archive GROUP BY pattern ORDER BY 2 DESC"
        )
        self._bytes = sum(size for _, size in sizes)
        if self._bytes <= most:
            return False
        await self._remove(
            "SELECT number FROM (SELECT number, sum(size) OVER (ORDER BY number) - size AS before "
            f"FROM {self._schema}.archive WHERE pattern = $1 ORDER BY number LIMIT {_STEP}) AS o WHERE before < $2",
            sizes[0][0],
            self._bytes - most,
        )
        return self._bytes > most

    async def _remove(self, numbers: str, *arguments: Any) -> int:
        """Remove the messages that a query names, which are lost with it. Return how many these are.

        A value is partial from then on if one of them is a piece of it.
        """
        rows = await self._connection.fetch(
            f"DELETE FROM {self._schema}.archive WHERE number = ANY (ARRAY({numbers})) "
            "RETURNING number, draft, size, CASE WHEN counted THEN identity END AS piece_of",
            *arguments,
        )
        for row in rows:
            self._bytes -= row["size"]
            self._lose_message(row["number"], row["draft"])
        if pieces := [row["piece_of"] for row in rows if row["piece_of"] is not None]:
            await self._connection.execute(
                f"UPDATE {self._schema}.archive SET partial = true WHERE NOT counted AND identity = ANY ($1)", pieces
            )
        return len(rows)

    async def trim(self, filed_through: int, *, keep: int) -> bool:
        """Remove what the tail has too much of, if it is filed. Return whether there is more."""
        surplus = await self._connection.fetchval(
            f"SELECT {self._schema}.surplus($1, $2, $3)", keep, self.oldest_ms, _SIZE_FACTOR * self._retention.max_bytes
        )
        if surplus is None:
            return False
        rows = await self._connection.fetch(
            f"SELECT number, unix_ms, log_ms, {self._schema}.head(draft) AS head FROM {self._schema}.messages "
            f"WHERE number <= $1 ORDER BY number LIMIT {_STEP}",
            min(surplus, filed_through),
        )
        if not rows:
            return False
        unfiled = [row for row in rows if self._is_unfiled(row["head"])]
        kept = await self._kept_in_window([row for row in unfiled if row["log_ms"] > self.oldest_ms])
        for row in unfiled:
            if row["number"] not in kept:
                self._lose_message(row["number"], row["head"] + b"\n")
        await self._connection.execute(f"DELETE FROM {self._schema}.messages WHERE number <= $1", rows[-1]["number"])
        return len(rows) == _STEP

    def _is_unfiled(self, head: bytes) -> bool:
        """Return whether no rule and no key is about a message: then, nothing of it is in the archive."""
        if head[:1] == b"{":
            return False
        if not self._retention.rules or not head:
            return True
        try:
            keys = decode_keys(head + b"\n")
        except ValueError:
            return True
        return not keys or self._retention.rule_of(keys[0]) is None

    async def _kept_in_window(self, rows: Sequence[Mapping[str, Any]]) -> frozenset[int]:
        """Archive the newest of these messages, without a rule, if others fill the tail: windows have room for them.

        Return their numbers.
        """
        if not rows:
            return frozenset()
        heads = await self._connection.fetch(
            f"SELECT {self._schema}.head(draft), count(*) FROM {self._schema}.messages WHERE number > $1 GROUP BY 1",
            rows[-1]["number"],
        )
        room = self._retention.max_messages - sum(count for head, count in heads if self._is_unfiled(head))
        if room <= 0:
            return frozenset()
        numbers = [row["number"] for row in rows[-room:]]
        found = await self._connection.fetch(
            f"SELECT number, unix_ms, log_ms, draft FROM {self._schema}.messages WHERE number = ANY ($1)", numbers
        )
        kept: list[_Filed] = []
        for row in found:
            with contextlib.suppress(ValueError):  # Damaged ones are declared lost already.
                kept.append(self._row(row, decode_draft(row["draft"])))
        if kept:
            await self._add(kept)
        return frozenset(row.number for row in kept)

    def _lose_message(self, number: int, stored: bytes) -> None:
        try:
            keys = decode_keys(stored)
        except ValueError as error:
            logger.warning("message %d is damaged, and counts as lost for every client: %s", number, error)
            keys = (ANY_LOST,)
        for key in (EVERYONE_LOST,) if keys is None else keys:
            self.lose(key, number)

    async def finish(self, *, epoch: str, filed_through: int, rules: str) -> None:
        """Store what this step has found."""
        if self._marks:
            await self._connection.execute(
                f"INSERT INTO {self._schema}.lost AS l SELECT * FROM unnest($1::text[], $2::bigint[]) "
                "ON CONFLICT (who) DO UPDATE SET number = greatest(l.number, excluded.number)",
                [*self._marks],
                [*self._marks.values()],
            )
            await self._forget_marks()
        await self._connection.execute(
            f"UPDATE {self._schema}.upkeep SET epoch = $1, filed_through = $2, rules = $3, bytes = $4 "
            "WHERE (epoch, filed_through, rules, bytes) IS DISTINCT FROM ($1, $2, $3, $4)",
            epoch,
            filed_through,
            rules,
            max(0, self._bytes),
        )

    async def _forget_marks(self) -> None:
        """Forget the lowest marks of too many keys with a rule, or without one: let them count for all."""
        count = await self._connection.fetchval(f"SELECT count(*) FROM {self._schema}.lost")
        if count <= _MAX_MARKS * 5 // 4:
            return
        marks = await self._connection.fetch(f"SELECT who, number FROM {self._schema}.lost ORDER BY number DESC")
        for has_rule, instead in ((False, OTHERS_LOST), (True, ANY_LOST)):
            lowest = [
                mark
                for mark in marks
                if mark["who"][:1] in ("#", "@") and (self._retention.rule_of(mark["who"]) is not None) is has_rule
            ][_MAX_MARKS:]
            if lowest:
                await self._connection.execute(
                    f"WITH forgotten AS (DELETE FROM {self._schema}.lost WHERE who = ANY ($1)) "
                    f"INSERT INTO {self._schema}.lost AS l VALUES ($2, $3) "
                    "ON CONFLICT (who) DO UPDATE SET number = greatest(l.number, excluded.number)",
                    [mark["who"] for mark in lowest],
                    instead,
                    lowest[0]["number"],
                )


def rules_text(retention: Retention) -> str:
    """Return the rules as one text: if others are added, earlier messages were kept by other rules."""
    return ", ".join(sorted(map(str, retention.rules)))


def _identity(audience: Audience, value: Value) -> bytes:
    """Return a digest of the audience and the key: the same key with another audience is another value."""
    keys = None if audience.keys is None else sorted(audience.keys)
    return blake2b(encode_json([keys, value.key]), digest_size=16).digest()
