"""How many files a reader has to open to follow a message, a wake-up and a follow through the package."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from support import pause_over
from trips import Trip, recorded
from unmissed import ConnectionManager, Settings, create_app, issue_token
from unmissed.server import HttpProtocol, WebSocketProtocol
from unmissed.testing import SECRET


class Transport(asyncio.Transport):
    """A connection in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8_000)})
        self.protocol: asyncio.BaseProtocol | None = None
        self.written = b""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def receive(self, data: bytes) -> None:
        """Let the server receive data."""
        cast("asyncio.Protocol", self.get_protocol()).data_received(data)


class Served:
    """The built-in application on the protocol classes of this package, without a network."""

    def __init__(self, manager: ConnectionManager, config: Config, state: dict[str, Any]) -> None:
        self.manager = manager
        self._config = config
        self._state = state
        self._server_state = ServerState()
        self._token = issue_token(SECRET, user_id="alice", expires_in=60, topics=["news", "orders"])

    async def connected(self, query: str = "") -> Transport:
        """Return a connection that is open."""
        transport = Transport()
        protocol = HttpProtocol(self._config, self._server_state, self._state)
        protocol.connection_made(transport)
        transport.protocol = protocol
        transport.receive(
            f"GET /ws{query} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: unmissed.bearer, {self._token}\r\n\r\n".encode()
        )
        await written(transport, b"connected")
        return transport


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    app = create_app(Settings.load(jwt_secret=SECRET))
    config = Config(app, lifespan="on", log_level="warning", ws=WebSocketProtocol)
    config.load()
    lifespan = LifespanOn(config)
    await lifespan.startup()
    yield Served(app.state.manager, config, lifespan.state)
    await lifespan.shutdown()


async def written(transport: Transport, text: bytes) -> None:
    """Wait until the server has written this, and for nothing that does not belong to it."""
    async with asyncio.timeout(10):
        while text not in transport.written:
            await asyncio.sleep(0)


def frame(**fields: object) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(fields).encode()).serialize(mask=True)


def climbs_of(trip: Trip) -> list[str]:
    """Return the climbs, apart from those into the socket, which both receives and writes."""
    return [climb for climb in trip.climbs if "-> server/" not in climb]


async def test_an_emit_reaches_a_socket_through_at_most_13_files(served: Served) -> None:
    transport = await served.connected()
    await served.manager.emit("first")
    await pause_over()

    with recorded(until="server/") as trip:
        await served.manager.emit("second")
        await written(transport, b"second")

    assert len(trip.files) <= 13, trip


async def test_a_wake_up_passes_at_most_23_files(served: Served) -> None:
    since = (await served.manager.emit("seen")).sequence_number
    await served.manager.emit("missed")
    await served.connected()
    await pause_over()

    with recorded() as trip:
        transport = await served.connected(f"?since={since}")

    assert b"missed" in transport.written
    assert len(trip.files) <= 23, trip


async def test_a_follow_passes_at_most_16_files_and_never_climbs_back(served: Served) -> None:
    transport = await served.connected("?topics=orders")
    since = (await served.manager.emit("seen")).sequence_number
    await served.manager.emit("missed", topics=["news"])
    transport.receive(frame(type="ping"))
    await written(transport, b"pong")
    await pause_over()

    with recorded() as trip:
        transport.receive(frame(type="follow", topics=["news"], since=since))
        await written(transport, b"missed")

    assert len(trip.files) <= 16, trip
    assert [] == climbs_of(trip), trip
