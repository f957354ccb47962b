"""The first data of a connection: what waits for its turn, and what does not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.server import ServerState

from unmissed.core.framing import EVENTS_PATH
from unmissed.server.arrivals import Arrivals
from unmissed.server.arriving import HttpProtocol
from unmissed.server.uvicorn_names import Config
from unmissed.server.websocket_protocol import WebSocketProtocol

STREAM = f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n".encode()
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class FakeTransport(asyncio.Transport):
    """A transport without a network, which passes data to its protocol while it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self._closing = False
        self._protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def receive(self, data: bytes) -> None:
        if self.reading and not self._closing:
            self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Never be full."""


class Newcomer:
    """Another connection whose turn comes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = FakeTransport()
        self.arrived = asyncio.Event()

    def arrive(self) -> None:
        self.arrived.set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve nothing."""


@pytest.fixture
async def served() -> AsyncIterator[tuple[FakeTransport, Arrivals]]:
    """A new connection, and the queue of its server."""
    config, state, loop = Config(app, log_config=None, ws=WebSocketProtocol), ServerState(), asyncio.get_running_loop()
    config.load()
    transport, protocol = FakeTransport(), HttpProtocol(config, state, {}, loop)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    yield transport, Arrivals.of(state, config, loop)
    transport.get_protocol().connection_lost(None)


@pytest.mark.parametrize("first", [STREAM, HANDSHAKE], ids=["event stream", "handshake"])
async def test_a_connection_waits_once_whatever_it_sends(served: tuple[FakeTransport, Arrivals], first: bytes) -> None:
    transport, arrivals = served
    transport.receive(first)
    for _ in range(1_000):
        transport.receive(b"X: " + b"y" * 20_000 + b"\r\n")
    other = Newcomer()
    arrivals.wait(other)

    await asyncio.sleep(0)

    assert other.arrived.is_set()


async def test_a_head_that_grows_while_it_waits_has_the_limit_of_every_head(
    served: tuple[FakeTransport, Arrivals],
) -> None:
    transport, _ = served
    transport.receive(STREAM)

    for _ in range(10):
        transport.receive(b"X: " + b"y" * 20_000 + b"\r\n")

    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert transport.is_closing()


async def test_a_head_in_small_parts_is_answered_when_its_turn_comes(served: tuple[FakeTransport, Arrivals]) -> None:
    transport, arrivals = served
    for line in STREAM.split(b"\r\n")[:-1]:
        transport.receive(line + b"\r\n")
    before = transport.get_protocol()
    other = Newcomer()
    arrivals.wait(other)

    await other.arrived.wait()

    assert before is not transport.get_protocol()
