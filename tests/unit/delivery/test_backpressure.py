"""Which readers a publisher waits for."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from support import ALICE, connect, nth
from unmissed import Connection, ConnectionManager
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.backpressure import Behind
from unmissed.testing import FakeSocket


def waits(coroutine: Coroutine[Any, Any, None]) -> bool:
    """Return whether a coroutine awaits anything before it ends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return False
    coroutine.close()
    return True


@pytest.fixture
def behind() -> Behind:
    return Behind()


async def fallen_behind(manager: ConnectionManager, behind: Behind) -> tuple[FakeSocket, Connection]:
    """Return a full socket and its connection, which has everything except one message that is published now."""
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    behind.add(connection)
    return socket, connection


async def test_a_reader_that_catches_up_ends_the_wait(manager: ConnectionManager, behind: Behind) -> None:
    before = manager.window.latest
    socket, connection = await fallen_behind(manager, behind)

    waiting = asyncio.create_task(behind.catch_up(manager.window.latest, served_through=before))
    await asyncio.sleep(0)
    assert not waiting.done()
    socket.resume()
    behind.discard(connection)

    async with asyncio.timeout(10):
        await waiting


async def test_a_reader_that_takes_data_is_waited_for_longer_than_one_that_does_not(manager: ConnectionManager) -> None:
    before = manager.window.latest
    (stuck_socket, stuck), (slow_socket, slow) = connect(manager), connect(manager)
    for socket in (stuck_socket, slow_socket):
        socket.pause()
    await manager.emit("a")
    order = list[str]()

    async def wait_for(name: str, connection: Any) -> None:
        own = Behind()
        own.add(connection)
        await own.catch_up(manager.window.latest, served_through=before)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for("slow", slow))
        group.create_task(wait_for("stuck", stuck))
        while not order:
            slow_socket.write_progress += 1
            await asyncio.sleep(0)

    assert ["stuck", "slow"] == order


class FullSocket(FakeSocket):
    """A socket that is full after each write."""

    def write(self, chunk: Any) -> None:
        super().write(chunk)
        self.pause()


async def test_a_reader_that_has_the_messages_is_not_waited_for_although_it_is_behind_with_later_ones(
    manager: ConnectionManager, behind: Behind
) -> None:
    before = manager.window.latest
    socket, (stuck_socket, stuck) = FullSocket(), connect(manager)
    reading = manager.connect(socket, identity=ALICE)
    stuck_socket.pause()
    for _ in range(2):
        await manager.emit("a", "x" * 40_000)  # Each is a chunk of its own.
    behind.add(reading)
    order = list[str]()

    async def wait_for_reading() -> None:
        await behind.catch_up(nth(1), served_through=before)
        order.append("reading")

    async def wait_for_stuck() -> None:
        own = Behind()
        own.add(stuck)
        # Twice is longer than one look at a reader, and far less than the longest wait for one that takes data.
        for _ in range(2):
            await own.catch_up(nth(1), served_through=before)
        order.append("stuck")

    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for_reading())
        group.create_task(wait_for_stuck())
        await asyncio.sleep(0)
        socket.resume()
        while not order:
            socket.write_progress += 1
            await asyncio.sleep(0)

    assert (nth(1), 1) == (reading.position, reading.lag)
    assert ["reading", "stuck"] == order


async def test_a_reader_that_was_behind_before_is_not_waited_for(manager: ConnectionManager, behind: Behind) -> None:
    await fallen_behind(manager, behind)
    served_through = manager.window.latest
    await manager.emit("a")

    assert not waits(behind.catch_up(manager.window.latest, served_through=served_through))


async def test_a_reader_that_is_closing_is_not_waited_for(manager: ConnectionManager, behind: Behind) -> None:
    before = manager.window.latest
    _, connection = await fallen_behind(manager, behind)
    connection.close(CloseCode.NORMAL, "")

    assert not waits(behind.catch_up(manager.window.latest, served_through=before))


async def test_a_connection_that_was_lost_and_is_closed_then_is_forgotten(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)
    left = weakref.ref(socket)

    socket.drop()
    connection.close(CloseCode.NORMAL, "")
    del connection, socket
    gc.collect()

    assert None is left()
