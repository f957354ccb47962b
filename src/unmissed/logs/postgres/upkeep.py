"""The upkeep of a log in PostgreSQL: the tail is trimmed, and what is retained longer is archived with that."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from unmissed.core.retention import Retention
from unmissed.logs.postgres.archive_places import ANY_LOST, ArchivePlace, ArchivePlaces, rules_text
from unmissed.logs.postgres.database import DatabaseConnection
from unmissed.logs.postgres.schema import quoted

logger = logging.getLogger("unmissed")

_LEAST_TAIL = 1_000
_MOST_ROWS = 2_000
_MOST_BYTES = 16_777_216
"""The most that one step trims, in some ten milliseconds."""

_SLACK = 250
"""The tail is trimmed when it has so many messages too many, or an eighth more: trimming several at once costs less."""

_SWEEP_MS = 5_000
_SIZE_FACTOR = 2
"""The tail and the archive may each take this much of ``max_bytes``: windows count more bytes for each message."""

_MOST_MARKS = 10_000
_MOST_OTHERS, _MOST_RULED = 1_000, 5_000
"""How many marks of losses one step writes, for keys without a rule, and with one."""

_MOST_BUCKETS = 10_000


class Upkeep:
    """Trims the tables of one schema. What it keeps between steps only says where to look: other nodes may do the same.

    The windows of the nodes apply the rules. The archive keeps at least the same, and somewhat more.
    """

    def __init__(
        self,
        schema: str,
        retention: Retention,
        *,
        least_tail: int = _LEAST_TAIL,
        most_rows: int = _MOST_ROWS,
        most_marks: int = _MOST_MARKS,
    ) -> None:
        self._schema = quoted(schema)
        self._retention = retention
        self._keep = max(least_tail, 2 * retention.max_messages)
        self._slack = min(_SLACK, self._keep // 8)
        self._most_rows = most_rows
        self._most_marks = most_marks
        self._max_age_ms = math.ceil(retention.max_age * 1000)
        self._max_bytes = _SIZE_FACTOR * retention.max_bytes
        self._places = ArchivePlaces(retention)
        self._plain = self._plain_after = self._plain_through = 0
        """How many messages without a rule and a key the tail has between two numbers."""
        self._measured = self._bytes = 0
        """The number up to which the tail is measured, and its bytes, or more."""
        self._grown: dict[str, int] = {}
        """How many messages each bucket has more since it was last known to have no more than its limit."""
        self._limits: dict[str, int] = {}
        """The limits of buckets that may have more."""
        self._sweep_at = 0

    async def step(self, connection: DatabaseConnection, log_ms: int) -> bool:
        """Do a part of what is to be done. Return whether there is more.

        ``log_ms`` is the time on the clock of the log, or negative while that is unknown.
        """
        if log_ms < 0:
            return False
        has_more = await self._trim(connection, log_ms)
        is_due = log_ms >= self._sweep_at
        if is_due or self._limits:
            has_more |= await self._shrink(connection, log_ms)
        if is_due:
            await self._forget_marks(connection)
            self._sweep_at = log_ms + _SWEEP_MS
        return has_more

    async def _trim(self, connection: DatabaseConnection, log_ms: int) -> bool:
        """Archive or lose the first messages of the tail. Return whether there are more to trim."""
        tail = await connection.fetchrow(f"SELECT * FROM {self._schema}.tail($1, $2)", self._keep, self._measured)
        if tail["oldest"] is None:
            return False
        through = await self._surplus_through(connection, tail)
        old_ms = log_ms - self._max_age_ms
        if not through and tail["oldest_ms"] > old_ms - self._max_age_ms // 8:
            return False
        groups = await connection.fetch(
            f"SELECT * FROM {self._schema}.oldest_heads($1, $2, $3, $4, $5)",
            *(tail["latest"], through, old_ms, self._most_rows, _MOST_BYTES),
        )
        if not groups:
            return False
        found = [(each["newest"], self._places.of(each["head"], number=each["newest"])) for each in groups]
        if through:
            left = await self._plain_in_tail(connection, groups[0], latest=tail["latest"])
            left -= sum(each["count"] for each, (_, place) in zip(groups, found, strict=True) if place.is_plain)
            if left < self._retention.max_messages:
                # Messages with rules and keys fill the tail, while windows have room for others.
                found = [(number, self._places.in_window(place)) for number, place in found]
            self._plain, self._plain_after = left, groups[0]["last_of_all"]
        return await self._file(connection, groups, found)

    async def _plain_in_tail(self, connection: DatabaseConnection, all_of: Mapping[str, Any], *, latest: int) -> int:
        """Return how many messages without a rule and a key the tail has, of which only the new ones are counted."""
        first: int = all_of["first_of_all"]
        if first != self._plain_after + 1:
            # Another node has trimmed, or numbers were skipped.
            self._plain, self._plain_through = 0, first - 1
        has_rules = bool(self._retention.rules)
        heads = await connection.fetch(
            f"SELECT * FROM {self._schema}.counted_heads($1, $2, $3)", self._plain_through, latest, not has_rules
        )
        for head, count in heads:
            if self._places.of(head, number=latest).is_plain if has_rules else head != b"{":
                self._plain += count
        self._plain_through = latest
        return self._plain

    async def _surplus_through(self, connection: DatabaseConnection, tail: Mapping[str, Any]) -> int:
        """Return the number through which the tail has too many messages or bytes, or 0."""
        through: int = tail["surplus_through"]
        if through < tail["oldest"] + self._slack:
            through = 0
        self._bytes += tail["new_bytes"]
        self._measured = tail["latest"]
        if self._bytes > self._max_bytes:
            query = f"SELECT * FROM {self._schema}.measured_tail($1)"
            [large_through, self._bytes] = await connection.fetchrow(query, self._max_bytes * 3 // 4)
            if self._bytes > self._max_bytes:
                through = max(through, large_through)
        return through

    async def _file(
        self,
        connection: DatabaseConnection,
        groups: Sequence[Mapping[str, Any]],
        found: Sequence[tuple[int, ArchivePlace]],
    ) -> bool:
        """Move these groups of messages to their places. Return whether this was all that one step may do."""
        all_of = groups[0]
        lost = self._places.losses(found, most_others=_MOST_OTHERS, most_ruled=_MOST_RULED)
        if all_of["missing"] is not None:
            logger.warning("messages up to %d are missing, and count as lost for every client", all_of["missing"])
            lost[ANY_LOST] = max(all_of["missing"], lost.get(ANY_LOST, 0))
        counts = [each["count"] for each in groups]
        placed = [
            (each["head"], place.kind, place.identity, place.pattern, place.bucket)
            for each, (_, place) in zip(groups, found, strict=True)
            if place.bucket is not None or place.identity is not None
        ]
        is_done = await connection.fetchval(
            f"SELECT {self._schema}.file_tail($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            *(all_of["first_of_all"], all_of["last_of_all"], rules_text(self._retention)),
            *([*column] for column in zip(*placed, strict=True)) if placed else [[]] * 5,
            *([*lost], [*lost.values()]),
        )
        if not is_done:
            return False
        self._bytes -= all_of["bytes"]
        for count, (_, place) in zip(counts, found, strict=True):
            if place.bucket is not None and place.kind != "v":
                self._grow(place.bucket, place.max_messages, count)
        return bool(sum(counts) == self._most_rows)

    def _grow(self, bucket: str, most: int, count: int) -> None:
        """Note that a bucket has more messages. One that has not been looked at may have any number."""
        if len(self._grown) >= _MOST_BUCKETS:
            self._grown.clear()
        self._grown[bucket] = self._grown.get(bucket, most) + count
        # Not at each message: looking costs as much as the bucket is large.
        if self._grown[bucket] > most // 8 + 8:
            self._limits[bucket] = most

    async def _shrink(self, connection: DatabaseConnection, log_ms: int) -> bool:
        """Remove from the archive what is too old or too much. Return whether there is more of it."""
        rules, limits = self._retention.rules, self._limits
        has_more: bool = await connection.fetchval(
            f"SELECT {self._schema}.shrink_archive($1, $2, $3, $4, $5, $6, $7, $8)",
            *(log_ms, [rule.key_pattern for rule in rules], [math.ceil(rule.max_age * 1000) for rule in rules]),
            *(self._max_age_ms, self._max_bytes, [*limits], [*limits.values()], self._most_rows),
        )
        if not has_more:
            self._grown |= dict.fromkeys(limits, 0)
            self._limits = {}
        return has_more

    async def _forget_marks(self, connection: DatabaseConnection) -> None:
        """Let one mark count for the lowest of too many."""
        count = await connection.fetchval(f"SELECT count(*) FROM {self._schema}.lost")
        if count <= self._most_marks * 5 // 4:
            return
        marks = dict(await connection.fetch(f"SELECT who, number FROM {self._schema}.lost"))
        gone, instead = self._places.forgotten(marks, most=self._most_marks)
        await connection.execute(
            f"SELECT {self._schema}.replace_marks($1, $2, $3, $4)",
            *([*gone], [*gone.values()], [*instead], [*instead.values()]),
        )
