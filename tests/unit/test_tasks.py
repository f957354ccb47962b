"""The end of tasks that use other libraries."""

import asyncio
import contextlib

from unmissed.tasks import end


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
