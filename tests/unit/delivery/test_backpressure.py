"""Which readers a publisher waits for."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from support import connect
from unmissed import ConnectionManager
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.backpressure import Behind


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


async def test_a_reader_that_catches_up_ends_the_wait(manager: ConnectionManager, behind: Behind) -> None:
    before = manager.window.latest
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    behind.add(connection)

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


async def test_a_reader_that_was_behind_before_is_not_waited_for(manager: ConnectionManager, behind: Behind) -> None:
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    served_through = manager.window.latest
    await manager.emit("a")
    behind.add(connection)

    assert not waits(behind.catch_up(manager.window.latest, served_through=served_through))


async def test_a_reader_that_is_closing_is_not_waited_for(manager: ConnectionManager, behind: Behind) -> None:
    before = manager.window.latest
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    behind.add(connection)
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
