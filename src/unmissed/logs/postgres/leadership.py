"""The node that leads: it looks for what transactions have published, and keeps the tables small."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from unmissed.core.errors import LogUnavailable
from unmissed.logs.postgres.database import Database
from unmissed.logs.postgres.schema import quoted
from unmissed.logs.postgres.sequencer import Sequencer
from unmissed.logs.postgres.upkeep import Upkeep

logger = logging.getLogger("unmissed")

_LEASE_MS = 800
"""How long a leader that has stopped delays the messages of transactions. Everything else goes on."""

_RENEW_SECONDS = 0.25
_UPKEEP_SECONDS = 0.5
_RECEIPTS_SECONDS = 5.0
_MOST_RECEIPTS = 2_000
_PAUSE_SECONDS = 0.25
"""The pause after a failure."""


class Leadership:
    """The part of one node in leading, as a task.

    ``number`` gives numbers to what transactions have published. The leader calls it when something waits, and every
    node when it is woken.
    """

    def __init__(
        self, database: Database, sequencer: Sequencer, upkeep: Upkeep, *, number: Callable[[], Awaitable[None]]
    ) -> None:
        self._database = database
        self._sequencer = sequencer
        self._upkeep = upkeep
        self._number = number
        self._schema = quoted(database.address.schema)
        self._name = secrets.token_urlsafe(9)
        self._woken = asyncio.Event()
        self._leads = False
        self._lease_at = self._upkeep_at = self._receipts_at = 0.0
        """When the lease is asked for, and the tables are trimmed, the next time."""

    def wake(self) -> None:
        """Give numbers at once: a transaction has committed."""
        self._woken.set()

    async def run(self) -> None:
        """Take part until it is cancelled."""
        while True:
            try:
                await self._turn()
            except LogUnavailable as error:
                # Reading and writing report it.
                logger.debug("looking for messages of transactions failed: %s", error.reason)
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                logger.exception("looking for messages of transactions failed")
                await asyncio.sleep(_PAUSE_SECONDS)

    async def resign(self) -> None:
        """End the lease, so that another node leads at once."""
        if self._leads:
            with contextlib.suppress(LogUnavailable):
                async with self._database.connection("note") as connection:
                    await connection.execute(f"SELECT {self._schema}.resign($1)", self._name)

    async def _turn(self) -> None:
        woken = self._woken.is_set()
        self._woken.clear()
        if time.monotonic() >= self._lease_at:
            await self._ask_for_lease()
        if woken or (self._leads and await self._sequencer.is_waiting()):
            await self._number()
        if self._leads:
            await self._trim()
        await self._pause()

    async def _ask_for_lease(self) -> None:
        async with self._database.connection("note") as connection:
            wait_ms = await connection.fetchval(f"SELECT {self._schema}.lead($1, $2)", self._name, _LEASE_MS)
        self._leads = wait_ms == 0
        self._lease_at = time.monotonic() + (wait_ms / 1000 or _RENEW_SECONDS)

    async def _trim(self) -> None:
        now = time.monotonic()
        if now >= self._upkeep_at:
            async with self._database.connection("note") as connection:
                has_more = await self._upkeep.step(connection, self._sequencer.log_ms)
            self._upkeep_at = now if has_more else now + _UPKEEP_SECONDS
        if now >= self._receipts_at:
            async with self._database.connection("note") as connection:
                has_more = await connection.fetchval(f"SELECT {self._schema}.forget_receipts($1)", _MOST_RECEIPTS)
            self._receipts_at = now if has_more else now + _RECEIPTS_SECONDS

    async def _pause(self) -> None:
        """Wait until this node is woken, or for the next look."""
        pause = self._database.address.poll_seconds if self._leads else max(0.0, self._lease_at - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()
