"""New connections: what waits for its turn, and which handshakes are admitted where the application announces it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from uvicorn.lifespan.on import LifespanOn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState

from unmissed.core.rest import EVENTS_PATH
from unmissed.delivery.served_application import ServedApplication
from unmissed.delivery.socket import ADMISSIONS_STATE, Admissions
from unmissed.framework_names import Config
from unmissed.main import create_app
from unmissed.server.arriving import HANDSHAKES_PER_TURN, Arrivals, HttpProtocol
from unmissed.server.websocket_protocol import WebSocketProtocol
from unmissed.testing import SECRET

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


class Newcomer(HttpProtocol):
    """Another connection, which writes down when its turn comes."""

    __slots__ = ("_arrived", "_broken", "_number", "arrived")

    def __init__(self, arrived: list[int], number: int = 0, *, broken: bool = False) -> None:
        self.transport: asyncio.Transport = FakeTransport()
        self.arrived = asyncio.Event()
        self._arrived = arrived
        self._number = number
        self._broken = broken

    def arrive(self) -> None:
        if self._broken:
            raise ValueError("broken on purpose")
        self._arrived.append(self._number)
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
    yield transport, Arrivals.of(state, config, {}, loop)
    transport.get_protocol().connection_lost(None)


@pytest.mark.parametrize("first", [STREAM, HANDSHAKE], ids=["event stream", "handshake"])
async def test_a_connection_waits_once_whatever_it_sends(served: tuple[FakeTransport, Arrivals], first: bytes) -> None:
    transport, arrivals = served
    transport.receive(first)
    for _ in range(1_000):
        transport.receive(b"X: " + b"y" * 20_000 + b"\r\n")
    other = Newcomer([])
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
    other = Newcomer([])
    arrivals.wait(other)

    await other.arrived.wait()

    assert before is not transport.get_protocol()


def arrivals(application: Any = app, state: dict[str, Any] | None = None, **options: Any) -> Arrivals:
    config = Config(application, log_config=None, **options)
    config.load()
    return Arrivals(config, state or {}, asyncio.get_running_loop())


async def test_a_few_handshakes_are_answered_in_each_turn_in_their_order() -> None:
    queue, arrived = arrivals(), list[int]()
    for number in range(2 * HANDSHAKES_PER_TURN + 3):
        queue.wait(Newcomer(arrived, number))

    after_turns = []
    for _ in range(4):
        await asyncio.sleep(0)
        after_turns.append(len(arrived))

    assert [8, 16, 19, 19] == after_turns
    assert sorted(arrived) == arrived


async def test_a_broken_handshake_is_ended_and_the_others_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    queue, arrived = arrivals(), list[int]()
    broken = Newcomer(arrived, 0, broken=True)
    for newcomer in (broken, Newcomer(arrived, 1)):
        queue.wait(newcomer)

    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [1] == arrived
    assert broken.transport.is_closing()
    assert "unexpected error in its handshake" in caplog.text


async def test_connections_of_one_server_share_a_queue() -> None:
    one, other, loop = ServerState(), ServerState(), asyncio.get_running_loop()
    config = Config(app, log_config=None)
    config.load()

    assert Arrivals.of(one, config, {}, loop) is Arrivals.of(one, config, {}, loop)
    assert Arrivals.of(one, config, {}, loop) is not Arrivals.of(other, config, {}, loop)


def admit(scope: Any, open_socket: Any) -> bool:  # noqa: ARG001  # the signature of an Admission
    return True


ANNOUNCED = {ADMISSIONS_STATE: Admissions(app, lambda: {"/ws": admit})}


def scope(path: str = "/ws", **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "websocket", "path": path, "scheme": "ws", "client": ("127.0.0.1", 1), "headers": named}


@pytest.mark.parametrize(
    ("options", "path", "admitted"),
    [
        ({}, "/ws", True),
        ({}, "/other", False),
        ({}, "/live/ws", False),
        ({"root_path": "/live"}, "/live/ws", True),
        ({"root_path": "/live"}, "/live/live/ws", False),
    ],
)
async def test_a_handshake_is_admitted_where_the_application_announces_it(
    options: Any, path: str, *, admitted: bool
) -> None:
    assert (admit if admitted else None) is arrivals(state=ANNOUNCED, **options).admission(scope(path))


@pytest.mark.parametrize(
    ("application", "options"),
    [
        pytest.param(app, {"proxy_headers": False}, id="the application itself"),
        pytest.param(app, {"proxy_headers": True}, id="in the middleware of uvicorn"),
    ],
)
async def test_the_announcement_of_the_application_that_is_called_counts(application: Any, options: Any) -> None:
    assert admit is arrivals(application, ANNOUNCED, **options).admission(scope())


async def guard(scope: Any, receive: Any, send: Any) -> None:
    """Stand for a middleware around the application, which passes on its lifespan and might refuse its WebSockets."""
    await app(scope, receive, send)


@pytest.mark.parametrize("application", [guard, ProxyHeadersMiddleware(cast("Any", app))])
@pytest.mark.parametrize("proxy_headers", [False, True])
async def test_an_application_inside_another_one_admits_nothing(application: Any, *, proxy_headers: bool) -> None:
    assert None is arrivals(application, ANNOUNCED, proxy_headers=proxy_headers).admission(scope())


@pytest.mark.parametrize("state", [{}, {ADMISSIONS_STATE: None}, {ADMISSIONS_STATE: {"/ws": admit}}])
async def test_without_an_announcement_nothing_is_admitted(state: dict[str, Any]) -> None:
    assert None is arrivals(app, state).admission(scope())


@pytest.mark.parametrize("served", [False, True], ids=["an application", "as unmissed.main serves it"])
async def test_the_lifespan_of_the_application_announces_its_path(
    monkeypatch: pytest.MonkeyPatch, *, served: bool
) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    application: Any = ServedApplication(create_app) if served else create_app()
    config = Config(application, log_config=None)
    lifespan = LifespanOn(config)
    await lifespan.startup()

    admission = Arrivals(config, lifespan.state, asyncio.get_running_loop()).admission(scope())
    await lifespan.shutdown()

    assert admission is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("203.0.113.7", "wss")),
        ({"forwarded_allow_ips": "10.0.0.1"}, ("127.0.0.1", "ws")),
        ({"proxy_headers": False}, ("127.0.0.1", "ws")),
    ],
)
async def test_the_address_is_the_forwarded_one_if_the_proxy_is_trusted(
    options: Any, expected: tuple[str, str]
) -> None:
    handshake = scope(x_forwarded_for="203.0.113.7", x_forwarded_proto="https")

    arrivals(state=ANNOUNCED, **options).admission(handshake)

    assert expected == (handshake["client"][0], handshake["scheme"])
