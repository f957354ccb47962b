"""The fan-out: one flush for all connections."""

import asyncio
from typing import Any

import pytest

from support import ALICE, BOB, connect, flushed, shape
from unmissed import ConnectionManager
from unmissed.delivery import fanout
from unmissed.testing import FakeSocket


async def test_one_broken_connection_is_ended_and_the_others_are_served(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenSocket(FakeSocket):
        broken = False

        def write(self, chunk: Any) -> None:
            if self.broken:
                raise ValueError("broken")
            super().write(chunk)

    broken = BrokenSocket()
    manager.connect(broken, identity=ALICE)
    healthy, _ = connect(manager)
    broken.broken = True

    await manager.emit("a")
    await flushed(manager)

    assert ("a", 1) in shape(healthy)
    assert broken.aborted
    assert "connection aborted after an unexpected error" in caplog.text


async def test_connections_at_one_position_are_written_the_same_chunk(manager: ConnectionManager) -> None:
    first, second = connect(manager)[0], connect(manager, BOB)[0]

    await manager.emit("a")

    assert first.chunks[-1] is second.chunks[-1]
    assert ("a", 1) == shape(first)[-1]


async def test_a_message_after_a_flush_waits_for_the_pause_and_joins_the_next(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    await manager.emit("a")
    writes = socket.write_progress

    await manager.emit("b")
    await manager.emit("c")

    assert writes == socket.write_progress
    async with asyncio.timeout(1):
        await flushed(manager)
    assert writes + 1 == socket.write_progress
    assert [("a", 1), ("b", 2), ("c", 3)] == shape(socket)[1:]


async def test_a_flush_visits_many_connections_in_slices(
    manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE", 2)
    sockets = [connect(manager)[0] for _ in range(5)]

    await manager.emit("a")
    reached = [sum(("a", 1) in shape(socket) for socket in sockets)]
    for _ in range(2):
        await asyncio.sleep(0)
        reached.append(sum(("a", 1) in shape(socket) for socket in sockets))

    assert [2, 4, 5] == reached


async def test_a_message_during_a_flush_reaches_the_rest_with_it_and_everyone_once(
    manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE", 1)
    early, late = connect(manager)[0], connect(manager)[0]
    await manager.emit("a")

    await manager.emit("b")
    await asyncio.sleep(0)

    assert [("a", 1)] == shape(early)[1:]
    assert [("a", 1), ("b", 2)] == shape(late)[1:]
    async with asyncio.timeout(1):
        await flushed(manager)
    assert [("a", 1), ("b", 2)] == shape(early)[1:]
    assert [("a", 1), ("b", 2)] == shape(late)[1:]


async def test_messages_that_a_slice_has_not_reached_are_not_evicted(
    manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that never yields evicts nothing that was not offered to every connection."""
    monkeypatch.setattr(fanout, "SLICE", 1)
    sockets = [connect(manager)[0] for _ in range(3)]

    for _ in range(2 * manager.settings.max_messages):
        await manager.emit("a")

    async with asyncio.timeout(1):
        await flushed(manager)
    for socket in sockets:
        assert [("a", number + 1) for number in range(2 * manager.settings.max_messages)] == shape(socket)[1:]
