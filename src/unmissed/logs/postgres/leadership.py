"""The node that leads: it looks for what transactions have published, and keeps the tables small."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from unmissed.core.errors import LogUnavailable
from unmissed.logs.postgres.database import Database
from unmissed.logs.postgres.lease import RENEW_SECONDS, Lease
from unmissed.logs.postgres.schema import quoted
from unmissed.logs.postgres.sequencer import Sequencer
from unmissed.logs.postgres.upkeep import Upkeep
from unmissed.retrying import Availability
from unmissed.tasks import end

logger = logging.getLogger("unmissed")

_UPKEEP_SECONDS = 0.5
_RECEIPTS_SECONDS = 5.0
_MOST_RECEIPTS = 2_000


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
        self._lease = Lease(database, purpose="note")
        self._woken = asyncio.get_running_loop().create_future()
        self._looking: asyncio.Task[bool] | None = None
        self._receipts_at = 0.0
        """When receipts are forgotten the next time."""

    def wake(self) -> None:
        """Give numbers at once: a transaction has committed."""
        if not self._woken.done():
            self._woken.set_result(None)

    async def run(self) -> None:
        """Take part until it is cancelled."""
        # Beside the rest: after a large transaction, there is much to trim, which must not delay the next ones.
        trimming = asyncio.create_task(_repeat(self._trim, Availability("trimmed")))
        try:
            await _repeat(self._turn, Availability("fed from transactions"))
        finally:
            await end(trimming)
            if self._looking is not None:
                await end(self._looking)
                # Its error, if it had one, is reported by reading and writing.
                await asyncio.gather(self._looking, return_exceptions=True)

    async def resign(self) -> None:
        """Let another node lead at once."""
        await self._lease.resign()

    async def _turn(self) -> None:
        await self._lease.ask()
        if await self._is_needed():
            await self._number()

    async def _is_needed(self) -> bool:
        """Wait until something is to be numbered; return false when it is time for the next turn."""
        if self._looking is None and self._lease.is_held:
            self._looking = asyncio.create_task(self._sequencer.await_rows(seconds=RENEW_SECONDS))
        waited_for = [self._woken] if self._looking is None else [self._woken, self._looking]
        await asyncio.wait(waited_for, timeout=self._lease.pause, return_when=asyncio.FIRST_COMPLETED)
        is_woken = self._woken.done()
        if is_woken:
            self._woken = asyncio.get_running_loop().create_future()
        # A look that goes on is not cancelled, which would cost a connection: the next turn waits for it.
        if self._looking is None or not self._looking.done():
            return is_woken
        looking, self._looking = self._looking, None
        return looking.result() or is_woken

    async def _trim(self) -> None:
        """Trim the tables if this node leads, a part at a time, and wait until it is time again."""
        now, has_more = time.monotonic(), False
        if self._lease.is_held:
            async with self._database.connection("trim") as connection:
                has_more = await self._upkeep.step(connection, self._sequencer.log_ms)
                if now >= self._receipts_at:
                    forget = f"SELECT {self._schema}.forget_receipts($1)"
                    if not await connection.fetchval(forget, _MOST_RECEIPTS):
                        self._receipts_at = now + _RECEIPTS_SECONDS
        if not has_more:
            await asyncio.sleep(_UPKEEP_SECONDS)


async def _repeat(work: Callable[[], Awaitable[None]], availability: Availability) -> None:
    """Do this again and again, with pauses after failures."""
    while True:
        try:
            await work()
        except LogUnavailable as error:
            await asyncio.sleep(availability.failed(error.reason))
        except Exception as error:
            logger.exception("the log cannot be led")
            await asyncio.sleep(availability.failed(repr(error)))
        else:
            availability.succeeded()
