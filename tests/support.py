"""What several test files share."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from unmissed import Connection, ConnectionManager, Identity, Settings
from unmissed.testing import FakeSocket, LiveServer, ManualClock

CONNECTED = '{"type":"connected","connection_id":"c","epoch":"e","oldest":1,"latest":0,"sequence_number":0}'
"""The greeting of a server, for ``scripted``."""

SOCKETS: dict[str, dict[str, Any]] = {
    "native": {"http": "unmissed.server:HttpProtocol", "ws": "unmissed.server:WebSocketProtocol"},
    "portable": {"ws": "websockets-sansio"},
}
"""The two sockets, as options of uvicorn: what is tested on a live server is tested on both."""

LOGGED: dict[str, Any] = {"log_config": None, "log_level": "info"}
"""Options of uvicorn that leave its loggers alone: with its own configuration they do not propagate to pytest."""

ALICE, BOB = Identity("alice"), Identity("bob")

Serve = Callable[..., LiveServer]
"""The fixture ``serve``: starts a live server with these settings."""

native_only = pytest.mark.parametrize("serve", ["native"], indirect=True)
"""Run a test of ``serve`` or ``server`` on the native socket alone: on the portable one, uvicorn handles the fault."""


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


@asynccontextmanager
async def scripted(
    *frames: str, close: tuple[int, str] | None = None, status: int | None = None, reads: bool = True
) -> AsyncIterator[str]:
    """Run another server, which sends these frames and then waits or closes, and return its URL."""

    async def answer(websocket: ServerConnection) -> None:
        for frame in frames:
            await websocket.send(frame)
        if not reads:
            websocket.transport.pause_reading()
        if close:
            await websocket.close(*close)
        await websocket.wait_closed()

    def refuse(websocket: ServerConnection, request: Request) -> Response | None:  # noqa: ARG001  # websockets passes it
        return websocket.respond(HTTPStatus(status), "") if status else None

    async with serve_websockets(answer, "127.0.0.1", 0, process_request=refuse, close_timeout=0.1) as other:
        [socket] = other.sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"


async def next_frame(websocket: ClientConnection) -> dict[str, Any]:
    """Return the next frame that is not a heartbeat: the first heartbeat comes at a random moment."""
    frame: dict[str, Any] = {"type": "heartbeat"}
    while frame["type"] == "heartbeat":
        frame = json.loads(await asyncio.wait_for(websocket.recv(), 30))
    return frame
