"""Backpressure: a publisher that never awaits."""

import asyncio
from contextlib import suppress

from support import connect, flushed, managed, nth, nths, shape
from unmissed import ConnectionManager
from unmissed.testing import ManualClock


async def test_a_publisher_that_never_waits_loses_no_message_for_a_client_that_takes_them(
    manager: ConnectionManager,
) -> None:
    socket, _ = connect(manager)

    for _ in range(2_000):
        await manager.emit("a")
    await flushed(manager)

    assert nths(*range(1, 2_001)) == [number for kind, number in shape(socket) if kind == "a"]
    assert "gap" not in {kind for kind, _ in shape(socket)}


async def test_batches_as_large_as_the_log_lose_nothing_for_a_client_that_takes_them(
    manager: ConnectionManager,
) -> None:
    socket, _ = connect(manager)

    for _ in range(3):
        await manager.publish_batch([{"type": "a"}] * 400)
    await flushed(manager)

    assert nths(*range(1, 1_201)) == [number for kind, number in shape(socket) if kind == "a"]


async def test_a_publisher_that_never_waits_gives_way_but_not_to_a_client_that_never_reads(
    manager: ConnectionManager,
) -> None:
    stalled, _ = connect(manager)
    stalled.pause()
    reading, _ = connect(manager)

    for _ in range(600):
        await manager.emit("a")
    async with asyncio.timeout(10):
        while ("a", nth(600)) not in shape(reading):
            await asyncio.sleep(0)

    assert nths(*range(1, 601)) == [number for kind, number in shape(reading) if "a" == kind]


async def test_a_client_that_never_reads_costs_publishers_nothing_after_the_first_wait(
    manager: ConnectionManager,
) -> None:
    stalled, _ = connect(manager)
    stalled.pause()
    for _ in range(300):
        await manager.emit("a")

    others = asyncio.create_task(count_turns())
    for _ in range(2_000):
        await manager.emit("a")
    others.cancel()

    # About one turn for each quarter of the log. To spin for the client took thousands.
    assert await others <= 10 * (2_000 // 125)


async def count_turns() -> int:
    """Return how often the event loop turned until this task is cancelled."""
    turns = 0
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0)
            turns += 1
    return turns


async def test_a_full_log_does_not_hurry_flushes(clock: ManualClock) -> None:
    async with managed(clock, max_messages=40) as manager:
        for _ in range(40):
            await manager.emit("a")
        socket, _ = connect(manager)
        await asyncio.sleep(0.02)  # Until the pause after the last flush is over, which nothing tells.
        writes = socket.write_progress

        for _ in range(3):
            await manager.emit("b")
        await flushed(manager)

    assert 2 == socket.write_progress - writes
    assert 3 == sum("b" == kind for kind, _ in shape(socket))
