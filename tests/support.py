"""What several test files share."""

import asyncio
from collections.abc import Callable
from typing import Any

from unmissed import Connection, ConnectionManager, Identity, Settings
from unmissed.testing import FakeSocket, ManualClock

ALICE, BOB = Identity("alice"), Identity("bob")


def managed(clock: ManualClock, **settings: Any) -> ConnectionManager:
    """Return a manager on a clock that moves by hand."""
    return ConnectionManager(Settings.load(**settings), clock=clock, wall_clock=clock)


def connect(manager: ConnectionManager, identity: Identity = ALICE, **position: Any) -> tuple[FakeSocket, Connection]:
    """Connect a socket in memory."""
    socket = FakeSocket()
    return socket, manager.connect(socket, identity=identity, **position)


def shape(socket: FakeSocket) -> list[tuple[str, int | None]]:
    """Return type and number of every frame."""
    return [(frame["type"], frame.get("sequence_number")) for frame in socket.frames]


async def flushed(manager: ConnectionManager) -> None:
    """Run the event loop until every connection is up to date."""
    async with asyncio.timeout(10):
        while any(each.position < manager.window.latest for each in manager.connections):
            await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until this holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
