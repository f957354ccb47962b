"""Row 30: what one client makes the server hold or do is bounded, whatever the client chooses."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect

from support import Serve, next_frame, until
from unmissed.testing import LiveServer

FILL = "x" * 60_000


class Gate:
    """Opens in the thread of the server."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._opened = server.call(asyncio.Event)
        server.manager.command("slow")(self.wait)

    async def wait(self, data: str) -> int:
        await self._opened.wait()
        return len(data)

    def open(self) -> None:
        self._server.call(self._opened.set)


@asynccontextmanager
async def behind_a_slow_command(server: LiveServer, *, frames: int) -> AsyncIterator[ClientConnection]:
    """Connect a client whose commands are more than may wait."""
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        assert "connected" == (await next_frame(websocket))["type"]
        for number in range(frames):
            await websocket.send(json.dumps({"type": "command", "id": str(number), "name": "slow", "data": FILL}))
        yield websocket


async def others_are_served(server: LiveServer) -> None:
    """Let the server do all that it does at once, and show that others are not delayed."""
    async with connect(server.websocket_url, additional_headers=server.headers("bob"), proxy=None) as other:
        for _ in range(20):
            await other.send('{"type":"ping"}')
            await next_frame(other)


async def test_a_client_is_not_read_while_its_requests_wait_and_nothing_is_lost(serve: Serve) -> None:
    server = serve()
    gate = Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await websocket.send('{"type":"ping"}')
        await others_are_served(server)

        await asyncio.to_thread(gate.open)
        frames = [await next_frame(websocket) for _ in range(16)]

    assert "pong" in [frame["type"] for frame in frames[1:]]
    assert [str(number) for number in range(15)] == [frame["id"] for frame in frames if frame["type"] == "result"]


async def test_a_client_that_leaves_while_it_is_not_read_is_forgotten(serve: Serve) -> None:
    server = serve()
    gate = Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await others_are_served(server)
        websocket.transport.abort()

    await asyncio.to_thread(gate.open)

    await until(lambda: not server.manager.connections)


async def test_a_client_that_is_not_read_can_be_closed(serve: Serve) -> None:
    server = serve()
    Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await others_are_served(server)
        [connection] = server.manager.connections

        server.call(server.manager.disconnect, connection.id)

        async with asyncio.timeout(10):
            await websocket.wait_closed()
    assert 1000 == websocket.close_code
