"""The default log: one process stamps messages and keeps them in memory. A restart starts a new epoch."""

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence

from unmissed.core.messages import Draft, rfc3339
from unmissed.core.receipts import Receipt, Receipts, fingerprint_of
from unmissed.core.retention import Retention
from unmissed.core.window import Window
from unmissed.logs.base import Publication, WindowListener
from unmissed.logs.feed import Feed, stamped
from unmissed.logs.one_process import refuse_second_worker, refuse_several_workers


class MemoryLog:
    """A log in the memory of this process.

    An epoch's first number is the wall-clock time in microseconds since 1970, plus one; ``first_number`` replaces it
    in the first epoch. ``clock`` (monotonic seconds) is used for ages, ``wall_clock`` (Unix seconds) for
    timestamps and first numbers.
    """

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        first_number: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._retention = retention or Retention()
        self._first_number = first_number
        self._clock = clock
        self._wall_clock = wall_clock
        self._last_used = -1

    @property
    def unavailable(self) -> None:
        """Memory is always available."""

    @property
    def channel(self) -> None:
        """A log of one process has no other nodes."""

    async def open(self) -> Window:
        """Start an epoch with an empty window. Raises ConfigurationError if the server runs several workers."""
        refuse_several_workers(sys.argv, os.environ)
        await refuse_second_worker()
        self._window = Window(self._retention, epoch=secrets.token_urlsafe(9), first_number=self._start() + 1)
        self._receipts = Receipts(
            max_age=self._retention.max_age, max_keys=self._retention.max_keys, epoch=self._window.epoch
        )
        self._feed = Feed(self._window, clock=self._clock)
        return self._window

    def subscribe(self, listener: WindowListener) -> None:
        """Call this listener about each publish from now on."""
        self._feed.subscribe(listener)

    async def close(self) -> None:
        """End this epoch. The next one uses higher numbers."""
        self._last_used = self._window.latest

    def expire(self) -> None:
        """Evict messages and remove idempotency keys that are at least ``max_age`` seconds old."""
        now = self._clock()
        self._window.expire(now)
        self._receipts.expire(now)

    async def catch_up(self, number: int) -> None:
        """Return: the window has everything."""

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and append the drafts. From the stamp on it never yields, so a block is never interleaved."""
        now = self._clock()
        fingerprint = fingerprint_of(drafts) if idempotency_key else b""
        if idempotency_key and (known := self._receipts.find(idempotency_key, fingerprint=fingerprint, now=now)):
            return Publication(known, stamped(drafts, known, appended_at=now), repeated=True)
        receipt = Receipt(self._window.latest + 1, len(drafts), self._window.epoch, rfc3339(self._wall_clock()))
        messages = stamped(drafts, receipt, appended_at=now)
        # Before the append, which calls the listener: if that raised, a repetition must still publish nothing.
        if idempotency_key:
            self._receipts.keep(idempotency_key, receipt, fingerprint=fingerprint, now=now)
        self._feed.extend(messages)
        return Publication(receipt, messages)

    def _start(self) -> int:
        """Return the position before the first number of a new epoch, above every number used so far."""
        start = int(self._wall_clock() * 1e6) if self._first_number is None else self._first_number - 1
        # One number is left out. Otherwise, the last position of the epoch before would be the start of this one, and
        # count as complete instead of a reset.
        return max(start, self._last_used + 1)
