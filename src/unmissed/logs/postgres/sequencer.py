"""The calls of the SQL that gives numbers, with what this node has read of the log."""

import asyncio
import math
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from unmissed.core.errors import ConfigurationError, IdempotencyConflict, TooManyRequests, UnmissedError
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt, owner_of
from unmissed.core.retention import Retention
from unmissed.logs.codec import encode_draft
from unmissed.logs.engine import Seen, State
from unmissed.logs.postgres.database import Database
from unmissed.logs.postgres.schema import create_schema, quoted
from unmissed.logs.writer import Stored, Write

SETTLE_MS = 1_500
"""How long nothing is stored after a restart of the server or a failover, so that all nodes can connect first."""

_RETRY_MS = 60_000
"""How long a retry of a publish without an idempotency key is recognised."""

_FINGERPRINT_BYTES = 12
_LEAST_ROWS = 100
_ACCEPTED, _NO_ROOM = 1, 2
NOTHING_SEEN = Seen("", 0, 0)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the sequencer. ``wait_ms`` are the milliseconds until it stores messages.

    ``rows_left`` says that transactions have published more than one pass takes: then, no write was stored.
    """

    wait_ms: int
    state: State
    rows_left: bool
    results: Sequence[Stored | UnmissedError]


class Sequencer:
    """Gives numbers, in the schema at the address of ``database``. ``clock`` returns monotonic seconds.

    See ``PostgresEngine`` for the other arguments.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: Retention,
        first_number: int | None,
        clock: Callable[[], float] = time.monotonic,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        self._database = database
        self._retention = retention
        self._first_number = first_number
        self._clock = clock
        self._settle_ms = settle_ms
        self._schema = quoted(database.address.schema)
        self._most_rows = max(_LEAST_ROWS, retention.max_messages // 2)
        self._log_ahead_ms: float | None = None
        """The milliseconds of the log's clock minus those of ``clock``, or None before the first answer."""
        self._server = ""
        """The copy of the data that this node has read."""

    async def create(self, *, max_message_bytes: int) -> None:
        """Create the schema unless it exists. Raises ConfigurationError if it cannot be used."""
        name = self._database.address.schema
        async with self._database.connection("number") as connection:
            try:
                await create_schema(connection, name, "log")
            except asyncpg.InsufficientPrivilegeError as error:
                raise ConfigurationError(
                    f"UNMISSED_LOG_URL: {error}: let an owner run the SQL that 'unmissed schema' prints, or "
                    "GRANT CREATE ON DATABASE to this role"
                ) from None
            await connection.execute(
                f"UPDATE {self._schema}.limits SET max_message_bytes = $1 WHERE max_message_bytes <> $1",
                max_message_bytes,
            )

    async def look(self, seen: Seen) -> Pass:
        """Return the state of the log. If it may have lost messages, that is settled first, as far as possible."""
        query = f"SELECT * FROM {self._schema}.look($1, $2, $3, $4, $5)"
        async with self._database.connection("read") as connection:
            row = await connection.fetchrow(query, *self._facts(seen))
        if row["in_doubt"]:
            return await self.number([], seen)
        return self._pass(row, rows_left=False, results=[])

    async def await_rows(self, *, seconds: float) -> bool:
        """Return whether transactions have published what has no number yet, or do so within this time."""
        address = self._database.address
        if address.notify:
            # The server waits: then, nothing is sent to and fro.
            query = f"SELECT {self._schema}.await_rows($1, $2)"
            return bool(await self._looked(query, round(address.poll_seconds * 1000), round(seconds * 1000)))
        # Behind a pooler, waiting would keep a connection from others.
        ends_at = time.monotonic() + seconds
        while not await self._looked(f"SELECT {self._schema}.is_waiting()"):
            if time.monotonic() >= ends_at:
                return False
            await asyncio.sleep(address.poll_seconds)
        return True

    async def _looked(self, query: str, *arguments: int) -> Any:
        async with self._database.connection("look") as connection:
            return await connection.fetchval(query, *arguments)

    async def number(self, writes: Sequence[Write], seen: Seen) -> Pass:
        """Give numbers to what transactions have published, and then to these publishes, whose keys all differ."""
        query = f"SELECT * FROM {self._schema}.work({', '.join(f'${place}' for place in range(1, 19))})"
        max_age_ms = math.ceil(self._retention.max_age * 1000)
        async with self._database.connection("number") as connection:
            row = await connection.fetchrow(
                query,
                *self._facts(seen),
                *(secrets.token_urlsafe(9), self._first_number or 0, self._settle_ms, self._most_rows),
                *(max_age_ms + max_age_ms // 8, _RETRY_MS, self._retention.max_keys, self._database.address.channel),
                [write.key or f":{write.id}" for write in writes],
                [owner_of(write.key) if write.key else "" for write in writes],
                [_fingerprint(write) for write in writes],
                [len(write.drafts) for write in writes],
                [encode_draft(draft) for write in writes for draft in write.drafts],
            )
        results: list[Stored | UnmissedError] = []
        if row["outcomes"] is not None:
            columns = ("outcomes", "firsts", "stored_counts", "times", "epochs", "stored_fingerprints")
            stored = zip(writes, *(row[column] for column in columns), strict=True)
            results = [_result(write, answer, room_ms=row["room_ms"]) for write, *answer in stored]
        return self._pass(row, rows_left=row["rows_left"], results=results)

    @property
    def log_ms(self) -> int:
        """The time on the clock of the log, or -1 if this node has just started."""
        return -1 if self._log_ahead_ms is None else int(self._clock() * 1000 + self._log_ahead_ms)

    def _facts(self, seen: Seen) -> tuple[str, int, int, str, int]:
        """Return what the SQL is told about this node."""
        return seen.epoch, seen.latest, seen.unix_ms, self._server, self.log_ms

    def _pass(self, row: Any, *, rows_left: bool, results: Sequence[Stored | UnmissedError]) -> Pass:
        # Only forward: each answer is late by its time on the network, and would set the clock back by that.
        ahead_ms = row["log_ms"] - self._clock() * 1000
        if self._log_ahead_ms is None or ahead_ms > self._log_ahead_ms:
            self._log_ahead_ms = ahead_ms
        self._server = row["server"]
        state = State(row["epoch"], row["first_number"], row["oldest"], row["latest"], float(row["log_ms"]))
        return Pass(row["wait_ms"], state, rows_left, results)


def _fingerprint(write: Write) -> str:
    """Return a short digest of the drafts: receipts are kept longer than messages."""
    return urlsafe_b64encode(write.fingerprint[:_FINGERPRINT_BYTES]).decode()


def _result(write: Write, answer: Sequence[Any], *, room_ms: int | None) -> Stored | UnmissedError:
    outcome, first, count, unix_ms, epoch, fingerprint = answer
    if outcome == _NO_ROOM:
        return TooManyRequests("too many idempotency keys are in use", retry_after=(room_ms or 0) / 1000)
    if fingerprint != _fingerprint(write):
        return IdempotencyConflict()
    # Without a key, only an earlier attempt of the same publish can have stored it.
    return Stored(Receipt(first, count, epoch, rfc3339(unix_ms / 1000)), new=outcome == _ACCEPTED or write.key is None)
