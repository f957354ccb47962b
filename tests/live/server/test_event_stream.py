"""Which streams the native server takes over from the application, and which it leaves to ASGI."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from event_client import EventClient
from raw_client import RawClient, authorization
from support import BOB, LOGGED, SOCKETS
from unmissed import ConnectionManager, Settings, create_app, create_router
from unmissed.core.rest import EVENTS_PATH
from unmissed.server.event_stream_protocol import EventStreamProtocol
from unmissed.testing import SECRET, FakeSocket, LiveServer

Start = Callable[..., LiveServer]


class Delaying:
    """A middleware that keeps the head of a response until the first part of its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept: list[Message] = []

        async def later(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept.append(message)
                return
            while kept:
                await send(kept.pop())
            await send(message)

        await self.app(scope, receive, later)


class Overtaking:
    """A middleware that connects another client when it has passed on the head of a stream."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def overtake(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                scope["app"].state.manager.connect(FakeSocket(), identity=BOB)

        await self.app(scope, receive, overtake)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the streams that the server has taken over."""
    found = list[object]()
    init = EventStreamProtocol.__init__

    def counting(self: EventStreamProtocol, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        found.append(self)

    monkeypatch.setattr(EventStreamProtocol, "__init__", counting)
    return found


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def starting(app: FastAPI, *, socket: str = "native") -> LiveServer:
            server = LiveServer(app, manager=app.state.manager, **SOCKETS[socket], **LOGGED)
            return stack.enter_context(server)

        yield starting


def built_in(**settings: Any) -> FastAPI:
    return create_app(Settings.load(jwt_secret=SECRET, **settings))


def included() -> FastAPI:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.state.manager = manager
    app.include_router(create_router(manager))
    return app


def received(server: LiveServer) -> list[str]:
    """Return the types of the frames of a stream during which something is published, until it is closed."""
    with EventClient(server, "?since=0") as client:
        types = [event.type for event in client.events(1)]
        server.publish("a")
        types += [event.type for event in client.events(1)]
        server.call(lambda: server.manager.disconnect(server.manager.connections[0].id, code=4401))
        return types + [event.type for event in client.rest()]


@pytest.mark.parametrize("build", [built_in, included])
def test_a_stream_is_taken_over(build: Callable[[], FastAPI], native: list[object], start: Start) -> None:
    assert ["connected", "a", "error"] == received(start(build()))
    assert 1 == len(native)


def test_a_stream_is_taken_over_from_middlewares_that_pass_it_on_and_has_their_headers(
    native: list[object], start: Start
) -> None:
    app = built_in()
    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example.com"], expose_headers=["X-Trace"])
    server = start(app)
    headers = {**server.headers(), "Origin": server.url, "Accept-Encoding": "gzip"}

    with EventClient(server, headers=headers) as client:
        assert "connected" == client.events(1)[0].type
        assert "X-Trace" == client.response.headers["access-control-expose-headers"]
    assert 1 == len(native)


def test_a_middleware_that_keeps_the_head_gets_the_events_in_the_asgi_way(native: list[object], start: Start) -> None:
    app = built_in()
    app.add_middleware(Delaying)

    assert ["connected", "a", "error"] == received(start(app))
    assert [] == native


def test_a_middleware_that_streams_the_body_itself_gets_the_events_in_the_asgi_way(
    native: list[object], start: Start
) -> None:
    app = built_in()

    @app.middleware("http")
    async def add_header(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["X-Trace"] = "1"
        return response

    assert ["connected", "a", "error"] == received(start(app))
    assert [] == native


@pytest.mark.parametrize("socket", SOCKETS)
def test_a_refusal_after_the_head_was_sent_is_an_error_frame(
    socket: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    app = built_in(max_connections=1)
    app.add_middleware(Overtaking)

    with EventClient(start(app, socket=socket)) as client:
        [event] = client.rest()

    assert ("error", 4429) == (event.type, event.frame["code"])
    assert "Traceback" not in caplog.text


def test_an_old_client_gets_the_events_in_the_asgi_way(native: list[object], start: Start) -> None:
    server = start(built_in())
    with RawClient(server.url) as client:
        client.send(f"GET {EVENTS_PATH} HTTP/1.0\r\n{authorization(server)}\r\n\r\n".encode())
        client.head()
        server.call(lambda: server.manager.running.drain(seconds=0))

        assert b'"type":"reconnect"' in client.rest()
    assert [] == native


def test_a_connection_that_has_served_requests_becomes_a_stream_and_ends_with_it(
    native: list[object], start: Start
) -> None:
    server = start(built_in())
    with RawClient(server.url) as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        client.answer()
        client.send(f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n{authorization(server)}\r\n\r\n".encode())

        assert b"connection: close" in client.head()
        server.call(lambda: server.manager.running.drain(seconds=0))
        assert client.rest().endswith(b"\r\n0\r\n\r\n")
    assert 1 == len(native)


def test_many_streams_that_open_at_once_let_other_requests_in(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """The server's event loop is blocked until everything is sent, so its own order decides and no thread's luck."""
    server = start(built_in())
    blocked, sent = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        sent.wait(20)

    blocking = threading.Thread(target=server.call, args=[block])
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(41)]
        blocking.start()
        blocked.wait(20)
        for client in clients[1:]:
            client.send(f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n{authorization(server)}\r\n\r\n".encode())
        clients[0].send(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        sent.set()
        assert 200 == clients[0].answer()[0]
        for client in clients[1:]:
            assert client.head().startswith(b"HTTP/1.1 200")
        blocking.join()

    answered = ["/livez" in message for message in caplog.messages if '"GET ' in message]
    assert 41 == len(answered)
    assert answered.index(True) < 20


def test_the_response_is_in_the_access_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = start(built_in())

    with EventClient(server) as client:
        client.events(1)

    assert f'"GET {EVENTS_PATH} HTTP/1.1" 200' in caplog.text


def test_other_responses_are_unchanged(start: Start) -> None:
    server = start(built_in())

    assert {"status": "alive"} == httpx.get(f"{server.url}/livez").json()
