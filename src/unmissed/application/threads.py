"""Threads for blocking functions of the application, shared fairly among users."""

import asyncio
import contextvars
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from unmissed.core.receipts import has_room


@dataclass(frozen=True, slots=True)
class _Call:
    """A function that waits for a thread."""

    function: Callable[[], Any]
    context: contextvars.Context
    done: asyncio.Future[Any]


class FairThreads:
    """At most ``count`` threads. Each user has a share of them, and users who wait get threads in turn.

    A user with threads gets one more only while more threads are free than it has. An eighth of all threads is reserved
    for users that have none (see ``has_room``).
    """

    def __init__(self, count: int, *, name: str) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._running = Counter[str]()
        self._waiting = OrderedDict[str, deque[_Call]]()
        """By user. The user who got a thread most recently is at the end."""

    async def run(self, user_id: str, function: Callable[[], Any]) -> Any:
        """Call a function in a thread, when it is this user's turn, and return its result."""
        # Unlike ``asyncio.to_thread``, ``run_in_executor`` does not pass on the context variables of the caller.
        call = _Call(function, contextvars.copy_context(), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(user_id, deque()).append(call)
        self._start_waiting()
        return await call.done

    def close(self) -> None:
        """Start nothing more. What is running in a thread cannot be stopped."""
        # When a running function ends, the next one would start, and a pool raises after its shutdown.
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_waiting(self) -> None:
        while (user_id := self._next_user()) is not None:
            calls = self._waiting[user_id]
            call = calls.popleft()
            if not calls:
                del self._waiting[user_id]
            else:
                self._waiting.move_to_end(user_id)
            if not call.done.done():
                self._start(user_id, call)

    def _next_user(self) -> str | None:
        """Return the user whose turn it is, or None. At most as many users are skipped as there are threads."""
        used = self._running.total()
        if used == self._count:
            return None
        return next(
            (each for each in self._waiting if has_room(mine=self._running[each], used=used, total=self._count)), None
        )

    def _start(self, user_id: str, call: _Call) -> None:
        self._running[user_id] += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, call.context.run, _outcome, call.function)
        running.add_done_callback(lambda _: self._ended(user_id, call, running))

    def _ended(self, user_id: str, call: _Call, running: asyncio.Future[tuple[Any, Exception | None]]) -> None:
        self._running[user_id] -= 1
        if not self._running[user_id]:
            del self._running[user_id]
        # Before the result: whatever its caller does with it, the thread is free for the next call.
        self._start_waiting()
        if call.done.done() or running.cancelled():
            return
        result, error = running.result()
        if error is None:
            call.done.set_result(result)
        else:
            call.done.set_exception(error)


def _outcome(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Return the result of a function, or what it has raised."""
    try:
        return function(), None
    except StopIteration as error:  # A future cannot have it as its exception.
        return None, RuntimeError(f"it raised {error!r}")
    except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
        return None, error
    except BaseException as error:  # noqa: BLE001  # such as SystemExit, which would end the event loop
        return None, RuntimeError(f"it raised {error!r}")
