"""Group commit: publishes that arrive during a write are written together by the next write."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from unmissed.core.errors import LogUnavailable, NotRunning, UnmissedError
from unmissed.core.messages import Draft
from unmissed.core.receipts import Receipt, fingerprint_of
from unmissed.retrying import Availability
from unmissed.tasks import end

_Result = TypeVar("_Result")

logger = logging.getLogger("unmissed")

_CLOSE_SECONDS = 1.0

MAX_WRITES = 1_000
"""The most publishes that are written together."""

MAX_WAITING_BYTES = 33_554_432
"""The most bytes of messages that wait to be written. More are refused."""


@dataclass(eq=False, slots=True)
class Write:
    """One publish that waits to be written. Other drafts have another ``fingerprint``."""

    drafts: Sequence[Draft]
    key: str | None
    """The idempotency key of the publisher."""
    fingerprint: bytes
    done: asyncio.Future[Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """Identifies this publish, however often it is tried."""

    @property
    def size(self) -> int:
        """Bytes that the messages take in the log."""
        return sum(draft.size_in_log for draft in self.drafts)


@dataclass(frozen=True, slots=True)
class Stored:
    """The receipt of a publish. ``new`` is false if an earlier publish with the same key has stored the messages."""

    receipt: Receipt
    new: bool


class Writer(Generic[_Result]):
    """Passes what is published to ``write``, in order, one call at a time.

    ``write`` returns a result or an exception for each of the first writes, or for all. If it raises LogUnavailable, it
    gets the same writes again, except those that were cancelled, and must recognise writes that it has stored already.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Write]], Awaitable[Sequence[_Result | UnmissedError]]],
        *,
        max_writes: int = MAX_WRITES,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._write = write
        self._max_writes = max_writes
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: dict[Write, int] = {}
        """The waiting writes in their order, with the bytes of each."""
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._availability = Availability("written")

    @property
    def unavailable(self) -> str | None:
        """Why the last write failed, or None."""
        return self._availability.reason

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write the waiting publishes within a second, and refuse the rest."""
        self._closing = True
        self._wake.set()
        try:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
        finally:
            await end(self._task)
            for write in self._waiting:
                _resolve(write, NotRunning())

    async def submit(self, drafts: Sequence[Draft], *, key: str | None) -> _Result:
        """Wait until the drafts are written. Raises what ``write`` returns, and LogUnavailable if too much waits."""
        write = Write(drafts, key, fingerprint_of(drafts) if key else b"", asyncio.get_running_loop().create_future())
        size = write.size
        if self._waiting_bytes + size > self._max_waiting_bytes:
            raise LogUnavailable(self.unavailable or "too many messages are waiting to be written")
        self._waiting[write] = size
        self._waiting_bytes += size
        self._wake.set()
        try:
            result: _Result = await write.done
            return result
        finally:
            # A publish that is cancelled is not written, unless ``write`` has it already.
            self._forget(write)

    async def _run(self) -> None:
        """Write what is submitted. After a failure, retry even if nothing waits, to see when it works again."""
        while True:
            # Before ``_closing`` is looked at: what waits is written first, as long as ``close`` waits for this task.
            if self._waiting or self.unavailable is not None:
                await self._write_together([*islice(self._waiting, self._max_writes)])
            elif self._closing:
                return
            else:
                # Nothing is awaited since the check above, so no publish is missed.
                self._wake.clear()
                await self._wake.wait()

    async def _write_together(self, writes: Sequence[Write]) -> None:
        try:
            results: Sequence[_Result | Exception] = await self._write(writes)
        except LogUnavailable as error:
            # The writes keep their places and ids: what was stored before the failure is recognised, and stored once.
            await asyncio.sleep(self._availability.failed(error.reason))
            return
        except Exception as error:
            logger.exception("writing to the log failed")
            results = [error] * len(writes)
        self._availability.succeeded()
        # ``write`` may have taken only the first of them: the next call writes the rest.
        for write, result in zip(writes, results, strict=False):
            self._forget(write)
            _resolve(write, result)

    def _forget(self, write: Write) -> None:
        self._waiting_bytes -= self._waiting.pop(write, 0)


def _resolve(write: Write, result: object) -> None:
    """Give the publisher its result, unless it was cancelled."""
    if write.done.done():
        return
    if isinstance(result, Exception):
        write.done.set_exception(result)
    else:
        write.done.set_result(result)
