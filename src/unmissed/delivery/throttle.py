"""Schedules flushes: immediately while flushes are cheap, after a pause of up to 5 ms while they are not."""

import asyncio
from collections.abc import Callable

MAX_PAUSE = 0.005
"""Longest pause between two flushes in seconds, however expensive they are."""


class Throttle:
    """Runs ``flush`` when requested. During the pause after a flush it collects requests into one flush.

    The pause is as long as the flush took, up to 5 ms, so that other tasks get about half of the event loop's time, and
    messages published during the pause are sent together.
    """

    def __init__(self, flush: Callable[[], None], *, loop: asyncio.AbstractEventLoop) -> None:
        self._flush = flush
        self._loop = loop
        self._requested = False
        self._pause: asyncio.Handle | None = None

    def request(self) -> None:
        """Flush now, or once after the pause."""
        if self._pause is None:
            self.flush_now()
        else:
            self._requested = True

    def flush_now(self) -> None:
        """Flush without waiting for the pause to end."""
        self.stop()
        started = self._loop.time()
        self._flush()
        # An event loop may do the actual writes after this callback. Measuring in the next one includes their cost.
        self._pause = self._loop.call_soon(self._begin_pause, started)

    def stop(self) -> None:
        """Cancel the pause and any requested flush."""
        self._requested = False
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _begin_pause(self, started: float) -> None:
        seconds = min(self._loop.time() - started, MAX_PAUSE)
        self._pause = self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        if self._requested:
            self.flush_now()
