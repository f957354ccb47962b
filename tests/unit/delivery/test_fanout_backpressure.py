"""Backpressure: publishers that never await, and what a log appends for others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from places import LOGS, new_url
from support import ALICE, ManualLog, connect, flushed, managed, nth, nths, pause_over, shape
from unmissed import ConnectionManager, Draft, Identity, Publication, Settings, WindowListener
from unmissed.delivery.backpressure import STUCK_SECONDS
from unmissed.delivery.fanout import SLICE
from unmissed.testing import FakeSocket, ManualClock


class TakingSocket(FakeSocket):
    """A socket whose client takes a chunk every fifth turn of the event loop."""

    def write(self, chunk: Any) -> None:
        super().write(chunk)
        self.pause()
        self._take(turns=5)

    def _take(self, *, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(lambda: self._take(turns=turns - 1))
        elif self.closed_with is None:
            self.resume()


@pytest.fixture(params=LOGS)
async def small(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[ConnectionManager]:
    """A manager that retains 40 messages, on each kind of log."""
    async with managed(clock, log_url=new_url(request.param, request, tmp_path), max_messages=40) as manager:
        yield manager


def received(socket: FakeSocket, manager: ConnectionManager) -> list[int]:
    """Return which messages of the epoch a client has received, and -1 for each gap, in this order."""
    return [
        -1 if frame["type"] == "gap" else frame["sequence_number"] - manager.window.first_number
        for frame in socket.frames
        if frame["type"] in ("a", "gap")
    ]


async def test_many_publishers_at_once_evict_nothing_that_a_connection_was_not_offered(
    small: ConnectionManager,
) -> None:
    socket, _ = connect(small)

    for _ in range(6):
        await asyncio.gather(*(small.publish_batch([{"type": "a"}] * 7) for _ in range(5)))
    await flushed(small)

    assert [*range(210)] == received(socket, small)


@pytest.mark.parametrize("small", LOGS[:2], indirect=True)
async def test_batches_that_are_committed_together_evict_nothing_that_a_connection_was_not_offered(
    small: ConnectionManager,
) -> None:
    """The second one waits for the pause after the flush of the first one, and the third one is as large as the log."""
    socket, _ = connect(small)

    await asyncio.gather(*(small.publish_batch([{"type": "a"}] * count) for count in (1, 9, 40)))
    await flushed(small)

    assert [*range(50)] == received(socket, small)


async def test_a_publisher_is_as_fast_as_a_client_that_takes_a_little_at_a_time(small: ConnectionManager) -> None:
    socket = TakingSocket()
    small.connect(socket, identity=ALICE)

    for _ in range(30):
        await small.publish_batch([{"type": "a"}] * 7)
    await flushed(small)

    assert [*range(210)] == received(socket, small)


@pytest.mark.parametrize("small", LOGS[1:2], indirect=True)
async def test_what_is_committed_together_is_appended_at_the_speed_of_a_client_that_takes_a_little_at_a_time(
    small: ConnectionManager,
) -> None:
    socket = TakingSocket()
    small.connect(socket, identity=ALICE)

    await asyncio.gather(*(small.publish_batch([{"type": "a"}] * 7) for _ in range(30)))
    await flushed(small)

    assert [*range(210)] == received(socket, small)


async def test_large_messages_are_published_at_the_speed_of_a_client_that_takes_them(clock: ManualClock) -> None:
    """The log holds eight of them, which is far less than a quarter of its messages."""
    async with managed(clock, max_bytes=40_000, max_message_bytes=5_000) as manager:
        socket = TakingSocket()
        manager.connect(socket, identity=ALICE)

        for _ in range(50):
            await manager.emit("a", "x" * 4_500)
        await flushed(manager)

        assert [*range(50)] == received(socket, manager)


async def test_a_message_as_large_as_the_log_evicts_nothing_that_a_connection_was_not_offered(
    clock: ManualClock,
) -> None:
    async with managed(clock, max_bytes=6_000, max_message_bytes=5_000) as manager:
        socket, _ = connect(manager)

        for size in (10, 10, 10, 10, 4_900):
            await manager.emit("a", "x" * size)
        await flushed(manager)

        assert [*range(5)] == received(socket, manager)


@pytest.mark.parametrize("kind", LOGS)
async def test_a_large_message_that_is_stored_with_others_evicts_nothing_that_a_connection_was_not_offered(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Publishes that are written together are appended one after another, and the last one needs most of the log."""
    settings = Settings.load(log_url=new_url(kind, request, tmp_path), max_bytes=70_000, max_message_bytes=65_000)
    async with ConnectionManager(settings) as manager:
        socket, _ = connect(manager)

        await asyncio.gather(*(manager.emit("a", "x" * size) for size in (1, 2, 15_000, 60_000)))
        await flushed(manager)

        assert ["connected", "a", "a", "a", "a"] == [kind for kind, _ in shape(socket)]


async def test_a_batch_as_large_as_the_log_is_delivered_in_one_flush_of_many_slices(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        sockets = [connect(manager, Identity(f"user {number}"))[0] for number in range(2_000)]
        await flushed(manager)
        before = sum(len(socket.chunks) for socket in sockets)
        loop, most = asyncio.get_running_loop(), 0

        def watch(written: int) -> None:
            nonlocal most
            now = sum(len(socket.chunks) for socket in sockets)
            most = max(most, now - written)
            if now < before + 2_000:
                loop.call_soon(watch, now)

        loop.call_soon(watch, before)
        await manager.publish_batch([{"type": "a"}] * 500)
        await flushed(manager)

        assert before + 2_000 == sum(len(socket.chunks) for socket in sockets)
        assert most <= 2 * SLICE


@pytest.mark.parametrize("kind", LOGS)
async def test_publishes_are_numbered_in_the_order_in_which_they_were_begun(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Also where one of them waits for a reader that takes a chunk now and then."""
    async with ConnectionManager(Settings.load(log_url=new_url(kind, request, tmp_path), max_messages=20)) as manager:
        manager.connect(TakingSocket(), identity=ALICE)

        published = await asyncio.gather(*(manager.emit("a", number) for number in range(60)))

        numbers = [message.sequence_number for message in published]
        assert sorted(numbers) == numbers


class UnevenLog(ManualLog):
    """A log of an application that appends a whole batch, and calls the listener once."""

    def subscribe(self, listener: WindowListener) -> None:
        self.listener = listener

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        publication = await super().publish(drafts, idempotency_key=idempotency_key)
        self.listener.appended()
        return publication


async def test_a_log_that_appends_a_batch_at_once_evicts_nothing_that_a_connection_was_not_offered(
    clock: ManualClock,
) -> None:
    async with managed(clock, log=UnevenLog(clock)) as manager:
        socket, _ = connect(manager)

        for count in (1, 100, 500, 1, 100, 500):
            await manager.publish_batch([{"type": "a"}] * count)
        await flushed(manager)

        assert [*range(1_202)] == received(socket, manager)


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


async def test_publishers_wait_for_a_client_that_has_been_behind_since_it_connected(
    manager: ConnectionManager,
) -> None:
    await manager.publish_batch([{"type": "a"}] * 200)
    socket = FakeSocket()
    socket.pause()
    manager.connect(socket, identity=ALICE, since=nth(0))
    time = asyncio.get_running_loop().time
    begun = time()

    await manager.emit("a")

    assert STUCK_SECONDS <= time() - begun


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
        socket, _ = connect(manager)
        for _ in range(45):
            await manager.emit("a")
        await flushed(manager)
        await pause_over()
        writes = socket.write_progress

        for _ in range(3):
            await manager.emit("b")
        await flushed(manager)

    assert 2 == socket.write_progress - writes
    assert 3 == sum("b" == kind for kind, _ in shape(socket))
