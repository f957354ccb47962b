"""The end of tasks: of those that use other libraries, and by a signal."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import pytest

from unmissed.tasks import Turns, cancelled_by_sigterm, end


async def wait_through(cancellations: int) -> None:
    """Wait, and swallow this many cancellations."""
    for _ in range(cancellations):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("failed")


async def begun(task: asyncio.Task[None]) -> asyncio.Task[None]:
    await asyncio.sleep(0)
    return task


async def test_a_task_that_swallows_cancellations_ends() -> None:
    for cancellations in (0, 1, 2):
        task = await begun(asyncio.create_task(wait_through(cancellations)))

        async with asyncio.timeout(10):
            await end(task)

        assert task.cancelled()


async def test_a_task_that_ends_by_itself_when_it_is_cancelled_is_not_waited_for_longer() -> None:
    async def leave() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    task = await begun(asyncio.create_task(leave()))

    await end(task)

    assert None is task.exception()


async def test_the_failure_of_a_task_that_has_ended_is_not_raised() -> None:
    task = await begun(asyncio.create_task(fail()))

    await end(task)

    assert isinstance(task.exception(), ValueError)


async def test_items_that_need_several_turns_take_them_in_turn() -> None:
    left = {"a": 3, "b": 2, "c": 1}
    served = list[str]()

    def serve(item: str) -> None:
        served.append(item)
        left[item] -= 1
        if left[item]:
            turns.add(item)

    turns = Turns[str](serve)
    for name in left:
        turns.add(name)
        turns.add(name)
    assert [] == served
    while any(left.values()):
        await asyncio.sleep(0)

    assert ["a", "b", "c", "a", "b", "a"] == served


async def test_other_callbacks_run_between_long_turns() -> None:
    loop, order = asyncio.get_running_loop(), list[str]()

    def serve(item: str) -> None:
        order.append(item)
        begun = loop.time()
        while loop.time() < begun + 0.001:
            pass

    turns = Turns[str](serve)
    for name in ("a", "b", "c"):
        turns.add(name)
    loop.call_soon(order.append, "other")
    while "c" not in order:
        await asyncio.sleep(0)

    assert ["a", "other", "b", "c"] == order


@pytest.fixture
def _sigint_ignored() -> Iterator[None]:
    """Ignore SIGINT, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint_ignored")
async def test_sigterm_cancels_a_task_also_where_sigint_is_ignored_and_is_handled_as_before_afterwards() -> None:
    async def wait() -> None:
        with cancelled_by_sigterm():
            await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGTERM)
    task = await begun(asyncio.create_task(wait()))

    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait([task], timeout=10)

    assert task.cancelled()
    assert before == signal.getsignal(signal.SIGTERM)
