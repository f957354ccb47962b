"""SqliteLog: stamps messages in one thread, and appends them to the window when they are stored."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from unmissed.core.errors import UnmissedError
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention
from unmissed.core.window import Earlier, Window
from unmissed.logs.base import Publication, WindowListener
from unmissed.logs.feed import Feed
from unmissed.logs.one_process import refuse_second_worker, refuse_several_workers
from unmissed.logs.sqlite.archive_tables import ANY_LOST, EVERYONE_LOST, OTHERS_LOST
from unmissed.logs.sqlite.file import Retained, SqliteFile
from unmissed.logs.sqlite.number_holes import Hole
from unmissed.logs.writer import Write, Writer

T = TypeVar("T")


class SqliteLog:
    """A log in the SQLite file at ``path``, for one process.

    Publishes that arrive during a write are committed together. With ``durable``, a publish is answered when it is on
    the disk, and survives a loss of power. Otherwise it is answered when the operating system has it: it survives the
    end of the process, and after a loss of power, all clients get a gap. ``first_number`` replaces the time on the
    wall clock as the first number of the first epoch. ``clock`` returns monotonic seconds, ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        path: str,
        *,
        durable: bool = True,
        retention: Retention | None = None,
        first_number: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._retention = retention or Retention()
        self._clock = clock
        self._file = SqliteFile(
            path,
            durable=durable,
            retention=self._retention,
            first_number=first_number,
            clock=clock,
            wall_clock=wall_clock,
        )

    @property
    def unavailable(self) -> str | None:
        """Why the last write failed, or None. It is retried until it succeeds."""
        return self._writer.unavailable

    @property
    def channel(self) -> None:
        """A log of one process has no other nodes."""

    async def open(self) -> Window:
        """Continue the epoch in the file. Raises ConfigurationError if it cannot be used, or is in use."""
        refuse_several_workers(sys.argv, os.environ)
        await refuse_second_worker()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="unmissed-sqlite")
        opening = asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)
        try:
            retained = await asyncio.shield(opening)
        except BaseException:
            # A thread cannot be cancelled: it may still open the file, which the next start needs.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await self._in_thread(self._file.close)
            self._thread.shutdown(wait=False)
            raise
        window = Window(self._retention, epoch=retained.epoch, first_number=retained.first_number)
        self._feed = Feed(window, clock=self._clock)
        self._fill(retained)
        self._writer = Writer(self._write)
        self._writer.start()
        return self._feed.window

    def subscribe(self, listener: WindowListener) -> None:
        """Call this listener about each publish from now on."""
        self._feed.subscribe(listener)

    async def close(self) -> None:
        """Write what waits, and release the file. The next ``open`` continues the epoch."""
        try:
            await self._writer.close()
        finally:
            # Even if closing the writer was cancelled: the next ``open`` needs the file. A shutdown lets this job run.
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
            self._thread.shutdown(wait=False)
        await closing

    def expire(self) -> None:
        """Evict the messages that are at least ``max_age`` seconds old."""
        self._feed.window.expire(self._clock())

    async def catch_up(self, number: int) -> None:
        """Return: the window has everything."""

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Wait until the drafts are committed and appended to the window."""
        return await self._writer.submit(drafts, key=idempotency_key)

    def _fill(self, retained: Retained) -> None:
        """Append what the file holds, and leave out the holes in its numbers."""
        window, lost = self._feed.window, {**retained.lost}
        # Also what is damaged in the archive.
        holes = [*retained.holes, *(each for each in retained.archived if isinstance(each, Hole))]
        before = [hole.through for hole in holes if hole.lost and hole.through <= retained.trimmed]
        earlier = Earlier(
            retained.trimmed,
            [each for each in retained.archived if isinstance(each, Message)],
            everyone=lost.pop(EVERYONE_LOST, 0),
            others=lost.pop(OTHERS_LOST, 0),
            unknown=max(lost.pop(ANY_LOST, 0), *before, 0),
            lost=lost,
            partial=retained.partial,
        )
        window.restore(earlier)
        for hole in retained.holes:
            if hole.through <= retained.trimmed and not hole.lost:
                window.leave_out(hole.after, hole.through)
        for each in retained.tail:
            if isinstance(each, Message):
                window.replay(each)
            elif each.lost:
                window.skip(each.through)
            else:
                window.leave_out(each.after, each.through)

    async def _write(self, writes: Sequence[Write]) -> Sequence[Publication | UnmissedError]:
        results = await self._in_thread(self._file.write, writes)
        for result in results:
            if isinstance(result, Publication) and not result.repeated:
                # Again, although the manager waits before each publish: many may be committed together, each of which
                # found room in the window as it was before.
                await self._feed.wait_for_readers(result.messages)
                self._feed.extend(result.messages)
        return results

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
