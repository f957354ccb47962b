"""Reading what a log retains below its tail."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_ms
from unmissed.logs.engine import Archive
from unmissed.logs.feed import Record
from unmissed.logs.postgres.database import DatabaseConnection
from unmissed.logs.postgres.schema import quoted
from unmissed.logs.postgres.upkeep import ANY_LOST, EVERYONE_LOST, OTHERS_LOST, rules_text

logger = logging.getLogger("unmissed")

_READ_COUNT = 200
"""Messages that are read and decoded in one step."""


async def read_archive(connection: DatabaseConnection, schema: str, retention: Retention, *, before: int) -> Archive:
    """Return what is retained below a number, in one snapshot: nodes may publish and trim at the same time."""
    name = quoted(schema)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        state = await connection.fetchrow(
            f"SELECT u.epoch = l.epoch AS is_filed, u.rules FROM {name}.upkeep AS u, {name}.life AS l"
        )
        if state is None or not state["is_filed"]:
            return Archive(unknown=before - 1)
        marks = {
            row["who"]: min(row["number"], before - 1)
            for row in await connection.fetch(f"SELECT who, number FROM {name}.lost")
        }
        records: dict[int, Record] = {}
        partial: set[int] = set()
        unknown = before - 1 if state["rules"] != rules_text(retention) else marks.pop(ANY_LOST, 0)
        # Also what the tail still has: a node that asks may be unable to read a part of it.
        cursor = connection.cursor(
            f"SELECT number, unix_ms, log_ms, draft, partial FROM {name}.archive WHERE number < $1 UNION ALL "
            f"SELECT number, unix_ms, log_ms, draft, false FROM {name}.messages AS m WHERE number < $1 "
            f"AND NOT EXISTS (SELECT FROM {name}.archive AS a WHERE a.number = m.number) ORDER BY number",
            before,
            prefetch=_READ_COUNT,
        )
        async for row in cursor:
            record = _record(row)
            if record is None:
                unknown = max(unknown, row["number"])
                continue
            records[record.number] = record
            if row["partial"]:
                partial.add(record.number)
            if len(records) % _READ_COUNT == 0:
                await asyncio.sleep(0)
    marks.pop(ANY_LOST, None)
    return Archive(
        [*records.values()],
        everyone=marks.pop(EVERYONE_LOST, 0),
        others=marks.pop(OTHERS_LOST, 0),
        lost=marks,
        unknown=unknown,
        partial=frozenset(partial),
    )


def _record(row: Mapping[str, Any]) -> Record | None:
    try:
        return Record(row["number"], decode_ms(row["unix_ms"]), decode_ms(row["log_ms"]), decode_draft(row["draft"]))
    except ValueError:
        logger.warning("message %d cannot be read: it counts as lost for every client", row["number"])
        return None
