"""Schedules flushes: immediately while flushes are cheap, after a pause of up to 5 ms while they are not."""

import asyncio
from collections.abc import Callable
from typing import Protocol

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

    The pause after a flush is as long as it took, up to 5 ms. Messages published during the pause are sent together.
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
            self._flush_slice(self._loop.time())
        else:
            self._requested = True

    def flush_now(self) -> None:
        """Flush completely, without waiting for the pause to end."""
        self.stop()
        started = self._loop.time()
        self._work.flush()
        self._after(started, self._begin_pause)

    def stop(self) -> None:
        """Cancel the next slice, the pause and any requested flush."""
        self._requested = False
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _flush_slice(self, started: float) -> None:
        done = self._work.flush_slice()
        self._after(started, self._begin_pause if done else self._flush_slice)

    def _after(self, started: float, step: Callable[[float], None]) -> None:
        # An event loop may do the actual writes after this callback. Measuring in the next one includes their cost.
        self._next = self._loop.call_soon(step, started)

    def _begin_pause(self, started: float) -> None:
        seconds = min(self._loop.time() - started, MAX_PAUSE)
        self._next = self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._next = None
        if self._requested:
            self._requested = False
            self.request()
