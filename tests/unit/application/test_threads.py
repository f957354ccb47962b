"""Threads that users share."""

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from support import until
from unmissed.application.threads import FairThreads


class Blocking:
    """Functions that occupy a thread until they may end. It records who began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._one = threading.Semaphore(0)

    def call(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.began.append(name)
            self._one.acquire()
            return name

        return run

    def end(self, count: int = 1) -> None:
        self._one.release(count)


@pytest.fixture
async def blocking() -> AsyncIterator[Blocking]:
    blocking = Blocking()
    yield blocking
    blocking.end(1_000)


def started(threads: FairThreads, blocking: Blocking, user_id: str, count: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(threads.run(user_id, blocking.call(user_id))) for _ in range(count)]


async def test_a_result_and_an_exception_come_back() -> None:
    threads = FairThreads(2, name="test")

    assert 3 == await threads.run("alice", lambda: 1 + 2)
    with pytest.raises(ZeroDivisionError):
        await threads.run("alice", lambda: 1 // 0)
    threads.close()


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
async def test_what_no_future_can_raise_is_an_error_as_any_other(error: type[BaseException]) -> None:
    threads = FairThreads(2, name="test")

    def end() -> None:
        raise error

    with pytest.raises(RuntimeError, match=error.__name__):
        await threads.run("alice", end)
    threads.close()


async def test_a_function_sees_the_context_of_its_caller() -> None:
    threads, variable = FairThreads(2, name="test"), contextvars.ContextVar[str]("variable")
    variable.set("here")

    assert "here" == await threads.run("alice", variable.get)
    threads.close()


async def test_a_user_cannot_occupy_all_threads(blocking: Blocking) -> None:
    threads = FairThreads(16, name="test")
    slow = started(threads, blocking, "mallory", 100)
    await until(lambda: len(blocking.began) >= 7)

    assert "bob" == await threads.run("bob", lambda: "bob")
    assert ["mallory"] * 7 == blocking.began
    blocking.end(100)
    assert ["mallory"] * 100 == await asyncio.gather(*slow)
    threads.close()


async def test_a_user_without_a_thread_finds_one_beside_several_busy_ones(blocking: Blocking) -> None:
    threads = FairThreads(16, name="test")
    slow = [task for number in range(4) for task in started(threads, blocking, f"mallory {number}", 20)]
    await until(lambda: len(blocking.began) >= 14)

    assert "bob" == await threads.run("bob", lambda: "bob")
    blocking.end(200)
    await asyncio.gather(*slow)
    threads.close()


async def test_those_who_wait_get_a_thread_in_turn(blocking: Blocking) -> None:
    threads = FairThreads(1, name="test")
    calls = started(threads, blocking, "alice", 1)
    await until(lambda: blocking.began)
    for user_id, count in (("alice", 4), ("bob", 2), ("carol", 1)):
        calls += started(threads, blocking, user_id, count)
    await asyncio.sleep(0)

    blocking.end(8)
    await asyncio.gather(*calls)

    assert ["alice", "alice", "bob", "carol", "alice", "bob", "alice", "alice"] == blocking.began
    threads.close()


async def test_a_call_that_is_cancelled_while_it_waits_is_not_made(blocking: Blocking) -> None:
    threads = FairThreads(1, name="test")
    [slow] = started(threads, blocking, "alice", 1)
    await until(lambda: blocking.began)
    [cancelled, later] = started(threads, blocking, "bob", 2)
    await asyncio.sleep(0)
    cancelled.cancel()
    blocking.end(2)

    assert ["alice", "bob"] == [await slow, await later]
    assert Counter({"alice": 1, "bob": 1}) == Counter(blocking.began)
    threads.close()


async def test_nothing_is_started_after_the_end(blocking: Blocking) -> None:
    threads = FairThreads(1, name="test")
    calls = started(threads, blocking, "alice", 2)
    await until(lambda: blocking.began)

    threads.close()
    blocking.end(2)

    assert "alice" == await calls[0]
    calls[1].cancel()
    await asyncio.wait([calls[1]])
    assert ["alice"] == blocking.began
