"""When the next flush runs: at once while flushes are cheap, a little later while they are not."""

import asyncio
from collections.abc import Callable

MAX_PAUSE = 0.005
"""Seconds between two flushes at most, however expensive they are."""


class FlushSchedule:
    """Runs ``flush`` when it is requested, unless it has just run; then soon, once for all requests until then.

    After a flush there is a pause as long as the flush took, so that delivery leaves about half of the event loop to
    everything else, and what is published meanwhile goes out together.
    """

    def __init__(self, flush: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        self._flush = flush
        self._loop = loop
        self._wanted = False
        self._next: asyncio.Handle | None = None

    def request(self) -> None:
        """Flush now, or after the pause."""
        if self._next is None:
            self.run()
        else:
            self._wanted = True

    def run(self) -> None:
        """Flush now, instead of the flush that was requested, if any."""
        self.cancel()
        started = self._loop.time()
        self._flush()
        # An event loop may send what was written only after this callback: the next one knows what that cost, too.
        self._next = self._loop.call_soon(self._pause, started)

    def cancel(self) -> None:
        """Forget the flush that was requested."""
        self._wanted = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _pause(self, started: float) -> None:
        seconds = min(self._loop.time() - started, MAX_PAUSE)
        self._next = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._next = None
        if self._wanted:
            self.run()
