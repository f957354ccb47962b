"""The results of commands by their id, so that a repeated command is answered like the first time."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from unmissed.core.errors import CommandError

MAX_RESULTS = 10_000
MAX_BYTES = 16_777_216


@dataclass(frozen=True, slots=True)
class _Run:
    """A command that is running, or has ended."""

    fingerprint: bytes
    task: asyncio.Task[bytes]


class Results:
    """The commands that are running, and the results of the last MAX_RESULTS others.

    Results have at most MAX_BYTES together, and each is kept ``max_age`` seconds. ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, max_age: float, clock: Callable[[], float]) -> None:
        self._max_age = max_age
        self._clock = clock
        self._running: dict[str, _Run] = {}
        self._ended: OrderedDict[str, tuple[float, _Run]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    async def once(self, key: str, run: Callable[[], Coroutine[Any, Any, bytes]], *, fingerprint: bytes) -> bytes:
        """Return the result for this key: of the earlier run, of one that has not ended yet, or of a new one.

        A run continues when its caller is cancelled. Raises CommandError when the key was used with another
        fingerprint.
        """
        self._forget_old()
        found = self._running.get(key) or self._ended.get(key, (0.0, None))[1]
        if found is None:
            found = self._running[key] = _Run(fingerprint, asyncio.create_task(run()))
            found.task.add_done_callback(lambda _: self._end(key))
        elif found.fingerprint != fingerprint:
            raise CommandError("this id was used for another command: use a new id")
        return await asyncio.shield(found.task)

    def cancel(self) -> None:
        """Cancel the commands that are running."""
        for run in self._running.values():
            run.task.cancel()

    def _end(self, key: str) -> None:
        run = self._running.pop(key)
        if not run.task.cancelled():
            self._ended[key] = self._clock(), run
            self._size += len(run.task.result())
            self._forget_old()

    def _forget_old(self) -> None:
        now = self._clock()
        while self._ended:
            ended_at, run = next(iter(self._ended.values()))
            if now - ended_at < self._max_age and len(self._ended) <= MAX_RESULTS and self._size <= MAX_BYTES:
                return
            self._ended.popitem(last=False)
            self._size -= len(run.task.result())
