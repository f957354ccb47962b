"""The relay: it moves what transactions have published in an outbox to a log that is elsewhere."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from unmissed.core.errors import (
    ConfigurationError,
    Draining,
    IdempotencyConflict,
    LogUnavailable,
    NotRunning,
    TooManyRequests,
    UnmissedError,
)
from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft
from unmissed.logs.postgres.database import Database, SchemaMissing
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.lease import RENEW_SECONDS, Lease
from unmissed.logs.postgres.schema import create_schema, quoted
from unmissed.retrying import Availability
from unmissed.tasks import end

logger = logging.getLogger("unmissed")

_MOST_MESSAGES = 100

StoreBatch = Callable[[Sequence[Draft], str], Awaitable[object]]
"""Publishes drafts as one block, once for each idempotency key."""


class Relay:
    """Moves messages from the outbox at this address, while it holds the lease. ``max_messages`` is that of the log."""

    def __init__(
        self, address: DatabaseAddress, *, publish: StoreBatch, max_messages: int, max_message_bytes: int
    ) -> None:
        self._address = address
        self._publish = publish
        self._most = min(_MOST_MESSAGES, max_messages)
        self._max_message_bytes = max_message_bytes
        self._schema = quoted(address.schema)
        self._database = Database(address)
        self._availability = Availability("fed from the outbox")
        self._lease = Lease(self._database, purpose="number")
        self._woken = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Why the outbox cannot be read, or None."""
        return self._availability.reason

    async def start(self) -> None:
        """Create the schema, and begin. Raises ConfigurationError if the outbox can never be used."""
        self._database.open()
        try:
            with contextlib.suppress(LogUnavailable):  # The task tries again, and reports it.
                await self._create()
        except ConfigurationError:
            await self._database.close()
            raise
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and let another node go on."""
        await end(self._running)
        await self._lease.resign()
        await self._database.close()

    def wake(self) -> None:
        """Look at once for what a transaction has published."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except SchemaMissing:
                with contextlib.suppress(LogUnavailable, ConfigurationError):
                    await self._create()
                await asyncio.sleep(RENEW_SECONDS)
            except (LogUnavailable, ConfigurationError) as error:
                await asyncio.sleep(self._availability.failed(str(error)))
            except Exception as error:
                logger.exception("moving messages from the outbox failed")
                await asyncio.sleep(self._availability.failed(f"an unexpected error: {error!r}"))
            else:
                self._availability.succeeded()

    async def _create(self) -> None:
        async with self._database.connection("number") as connection:
            await create_schema(connection, self._address.schema, "outbox")
            await connection.execute(
                f"UPDATE {self._schema}.limits SET max_message_bytes = $1 WHERE max_message_bytes <> $1",
                self._max_message_bytes,
            )

    async def _turn(self) -> None:
        """Move one batch, or wait until there may be one."""
        woken = self._woken.is_set()
        self._woken.clear()
        await self._lease.ask()
        if (self._lease.is_held or woken) and await self._move():
            self._woken.set()  # There may be more.
            return
        pause = self._address.poll_seconds if self._lease.is_held else self._lease.pause
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()

    async def _move(self) -> bool:
        """Publish a batch, and remove it. Return whether there was one."""
        async with self._database.connection("number") as connection:
            rows = await connection.fetch(
                f"SELECT batch, draft, i.name FROM {self._schema}.take_batch($1), {self._schema}.identity AS i",
                self._most,
            )
        if not rows:
            return False
        batch = rows[0]["batch"]
        try:
            drafts = [decode_draft(row["draft"]) for row in rows]
            await self._publish(drafts, f"outbox:{rows[0]['name']}-{batch}")
        except (Draining, NotRunning, LogUnavailable, TooManyRequests) as error:
            # The batch stays. Another node may move it.
            raise LogUnavailable(str(error)) from None
        except (UnmissedError, ValueError) as error:
            await self._refused(batch, len(rows), error)
        else:
            await self._call("remove_batch", batch)
        return True

    async def _refused(self, batch: int, count: int, error: Exception) -> None:
        """Try the messages of a batch one by one, and remove one that the log refuses for ever."""
        if count > 1 and not isinstance(error, IdempotencyConflict):
            await self._call("split_batch", batch)
            return
        logger.error("a message of the outbox cannot be published, and is removed: %s", error)
        await self._call("remove_batch", batch)

    async def _call(self, function: str, *arguments: Any) -> Any:
        places = ", ".join(f"${place}" for place in range(1, len(arguments) + 1))
        async with self._database.connection("number") as connection:
            return await connection.fetchval(f"SELECT {self._schema}.{function}({places})", *arguments)
