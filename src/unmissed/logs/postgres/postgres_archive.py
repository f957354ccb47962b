"""What a log in PostgreSQL retains below its tail, as a node reads it that starts."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from unmissed.core.encoding import decode_json
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_ms
from unmissed.logs.engine import Archive
from unmissed.logs.feed import Record
from unmissed.logs.postgres.archive_places import ANY_LOST, EVERYONE_LOST, OTHERS_LOST, rules_text
from unmissed.logs.postgres.database import DatabaseConnection
from unmissed.logs.postgres.schema import quoted

logger = logging.getLogger("unmissed")

_PIECE = 200
"""Messages that are read and decoded in one step."""


async def read_archive(connection: DatabaseConnection, schema: str, retention: Retention, *, before: int) -> Archive:
    """Return what is retained below the number ``before``, and what may be lost there, from one snapshot.

    This includes messages that are still in the tail: a node that cannot read one of them continues above it.
    """
    name = quoted(schema)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        gap = await connection.fetchval(f"SELECT {name}.gap_above_archive($1)", before)
        rules = await connection.fetchval(f"SELECT rules FROM {name}.upkeep")
        lost: dict[str, int] = dict(await connection.fetch(f"SELECT who, number FROM {name}.lost"))
        everyone, others, unknown = (lost.pop(who, 0) for who in (EVERYONE_LOST, OTHERS_LOST, ANY_LOST))
        if rules not in (None, rules_text(retention)):
            # These keys are others by our rules.
            unknown = max(unknown, others)
        unknown = max(unknown, gap)
        records: list[Record] = []
        partial: set[int] = set()
        async for row in _rows(connection, name, before):
            number = row["number"]
            try:
                times = decode_ms(row["unix_ms"]), decode_ms(row["log_ms"])
                records.append(Record(number, *times, decode_draft(row["draft"])))
            except ValueError as error:
                # The engine has logged what cannot be read in the tail.
                if row["is_archived"]:
                    logger.warning("message %d is damaged, and counts as lost for every client: %s", number, error)
                unknown = max(unknown, number)
            if row["partial"]:
                partial.add(number)
    below = before - 1
    return Archive(
        tuple(records),
        {decode_json(who): min(number, below) for who, number in lost.items()},
        everyone=min(everyone, below),
        others=min(others, below),
        unknown=min(unknown, below),
        partial=frozenset(partial),
    )


async def _rows(connection: DatabaseConnection, name: str, before: int) -> AsyncIterator[Any]:
    """Yield what is archived of this epoch below a number, in ascending order and in pieces."""
    query = (
        f"SELECT * FROM ("
        f"SELECT number, unix_ms, log_ms, draft, partial, true AS is_archived FROM {name}.archive "
        f"UNION ALL SELECT number, unix_ms, log_ms, draft, false, false FROM {name}.messages"
        f") AS retained WHERE number > $1 AND number < $2 ORDER BY number LIMIT {_PIECE}"
    )
    after = await connection.fetchval(f"SELECT first_number - 1 FROM {name}.life")
    while rows := await connection.fetch(query, after, before):
        for row in rows:
            yield row
        after = rows[-1]["number"]
        await asyncio.sleep(0)
