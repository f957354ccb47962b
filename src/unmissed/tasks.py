"""Work on one event loop: ending tasks, running jobs in order, and doing long work in slices and in turns."""

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

_ATTEMPT_SECONDS = 0.1
_SLICE_SECONDS = 0.005
_TURN_SECONDS = 0.001

_Item = TypeVar("_Item")

Job = Callable[[], Awaitable[None]]
Start = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine in a task of its own."""


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended. ``asyncio.wait_for`` can swallow a cancellation before Python 3.12."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_ATTEMPT_SECONDS)


def is_being_cancelled() -> bool:
    """Return whether a CancelledError is for the current task, and not from something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextlib.contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Cancel the current task at SIGTERM, as ``asyncio.run`` does at Ctrl+C. Only in the main thread."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  # the caller is one
    # Not the handler of SIGINT: a shell starts a background job with SIGINT ignored, and SIGTERM must end it.
    # ``call_soon_threadsafe`` also wakes an event loop that waits for sockets, and ``call_soon`` does not.
    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class SerialJobs:
    """Runs jobs in their order, in a task that exists while there are any. Jobs do not raise."""

    __slots__ = ("_idle", "_start", "_waiting")

    def __init__(self, start: Start) -> None:
        self._start = start
        self._waiting: deque[Job] = deque()
        self._idle: asyncio.Event | None = None
        """Set when the last job has ended; None while there are no jobs."""

    @property
    def busy(self) -> bool:
        """Whether there are any jobs."""
        return self._idle is not None

    def add(self, job: Job) -> None:
        """Run a job after those that were added before."""
        self._waiting.append(job)
        if self._idle is None:
            self._idle = asyncio.Event()
            self._start(self._run(self._idle))

    async def wait(self) -> None:
        """Wait until no jobs are left."""
        if self._idle is not None:
            await self._idle.wait()

    def clear(self) -> None:
        """Forget the jobs that have not begun."""
        self._waiting.clear()

    async def _run(self, idle: asyncio.Event) -> None:
        try:
            while self._waiting:
                await self._waiting.popleft()()
        finally:
            self._idle = None
            idle.set()


class Pace:
    """Lets other tasks run every 5 ms of the work of one task."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._pause_at = self._time() + _SLICE_SECONDS

    async def keep(self) -> None:
        """Call this after each piece of the work."""
        if self._time() >= self._pause_at:
            await asyncio.sleep(0)
            # After the pause, so that the time of other tasks does not count as work of this one.
            self._pause_at = self._time() + _SLICE_SECONDS


class Turns(Generic[_Item]):
    """Calls ``serve`` with the items that are waiting, one after another, about 1 ms in each turn of the event loop."""

    def __init__(self, serve: Callable[[_Item], object]) -> None:
        self._serve = serve
        # A dict, since it keeps the order and holds an item once, however often it is added before its turn.
        self._waiting: dict[_Item, None] = {}
        self._next: asyncio.Handle | None = None

    def add(self, item: _Item) -> None:
        """Serve an item after those that are waiting."""
        self._waiting[item] = None
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _TURN_SECONDS
        # ``serve`` may add the item again: at the end, so that all are served alike.
        while self._waiting:
            item = next(iter(self._waiting))
            del self._waiting[item]
            self._serve(item)
            if loop.time() >= end:
                break
        # Not before: while ``_next`` is set, items that ``serve`` adds do not schedule a second run.
        self._next = loop.call_soon(self._run) if self._waiting else None
