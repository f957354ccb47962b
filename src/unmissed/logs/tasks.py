"""Ends tasks that use other libraries."""

import asyncio

_ATTEMPT_SECONDS = 0.1


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended. ``asyncio.wait_for`` can swallow a cancellation before Python 3.12."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_ATTEMPT_SECONDS)
