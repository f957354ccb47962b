"""Schedules flushes: immediately while flushes are cheap, after a pause of up to 5 ms while they are not."""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger("unmissed")

MAX_PAUSE = 0.005
"""Longest pause between two flushes in seconds, however expensive they are."""


class Flush(Protocol):
    """The work to schedule."""

    def flush(self) -> None:
        """Do all of it."""
        ...

    def flush_slice(self) -> bool:
        """Do a part of it, and return whether it is done."""
        ...


class Throttle:
    """Flushes when requested, in slices: one in each iteration of the event loop, so that other tasks run in between.

    The pause after a flush is as long as its last slice took, up to 5 ms. Messages published during a flush or a pause
    are sent together.
    """

    def __init__(self, work: Flush, *, loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._loop = loop
        self._requested = False
        self._next: asyncio.Handle | None = None
        """The next slice, or the end of the pause."""

    def request(self) -> None:
        """Flush now, or once after the pause."""
        if self._next is None:
            self._flush_slice()
        else:
            self._requested = True

    def flush_now(self) -> None:
        """Flush completely, without waiting for the pause to end."""
        # A slice that is due, or a flush that was requested, is part of this one.
        self.stop()
        started = self._loop.time()
        self._work.flush()
        self._next = self._loop.call_soon(self._begin_pause, started)

    def stop(self) -> None:
        """Cancel the next slice, the pause and any requested flush."""
        self._requested = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _flush_slice(self) -> None:
        started = self._loop.time()
        try:
            done = self._work.flush_slice()
        except Exception:
            # Without a next step, no request would ever flush again.
            logger.exception("a flush failed")
            done = True
        if done:
            self._next = self._loop.call_soon(self._begin_pause, started)
        else:
            self._next = self._loop.call_soon(self._flush_slice)

    def _begin_pause(self, started: float) -> None:
        # An event loop may do the actual writes after the callback that flushed: in the next one, they are included.
        seconds = min(self._loop.time() - started, MAX_PAUSE)
        self._next = self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        # Before the request, which flushes only if nothing is scheduled.
        self._next = None
        if self._requested:
            self._requested = False
            self.request()
