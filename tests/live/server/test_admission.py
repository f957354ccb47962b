"""A handshake gets the same answer, whether the server admits it itself or leaves it to the application."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from fastapi import APIRouter, Depends, FastAPI
from opentelemetry.trace import NoOpTracerProvider
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Match, Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.frames import Frame, Opcode

from raw_client import RawClient
from support import FIRST, nth
from unit.security.test_tokens import HOSTILE
from unmissed import Bearer, ConnectionManager, JwtVerifier, Settings, create_app, create_router, get_identity
from unmissed.core.audience import Identity
from unmissed.delivery.socket import ADMISSIONS_STATE, Admissions, Socket
from unmissed.server import arriving as http
from unmissed.server.http_requests import RequestProtocol
from unmissed.testing import SECRET, LiveServer

NATIVE: dict[str, Any] = {"http": "unmissed.server:HttpProtocol", "ws": "unmissed.server:WebSocketProtocol"}
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
GOOD = "Authorization: Bearer {token}"
_VARIABLE = re.compile(rb'"(connection_id|epoch|timestamp)":"[^"]*"|"expires_(at|in)":[0-9.]*')


class Watching:
    """A middleware that sees every WebSocket, so that the application must handle each handshake."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def started(settings: Settings, *, watched: bool) -> LiveServer:
    app = create_app(settings)
    if watched:
        app.add_middleware(Watching)
    return LiveServer(app, manager=app.state.manager, settings=settings, log_config=None, log_level="info", **NATIVE)


class Servers:
    """A server that admits handshakes itself, one that does not, and the requests that either started."""

    def __init__(self, short: LiveServer, complete: LiveServer, requests: list[RequestProtocol]) -> None:
        self.short, self.complete = short, complete
        self._requests = requests
        for server in (short, complete):
            for _ in range(2):
                server.publish("before")

    def answers(self, ask: Callable[[RawClient, LiveServer], str]) -> tuple[str, str, bool]:
        """Return both answers, and whether the first server admitted the handshake itself."""
        self._requests.clear()
        with RawClient(self.short.url) as client:
            short = ask(client, self.short)
        admitted = not self._requests
        with RawClient(self.complete.url) as client:
            complete = ask(client, self.complete)
        return short, complete, admitted


@pytest.fixture(scope="module")
def spy() -> Iterator[list[RequestProtocol]]:
    """The requests that the servers of this module have started."""
    requests: list[RequestProtocol] = []

    class Spied(RequestProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            requests.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "RequestProtocol", Spied)
        patch.setattr("unmissed.api.identity.AUTHENTICATION_SECONDS", 0.5)
        yield requests


@pytest.fixture(scope="module")
def servers(spy: list[RequestProtocol]) -> Iterator[Servers]:
    settings = Settings.load(
        jwt_secret=SECRET,
        allowed_origins="https://app.example",
        allow_query_token=True,
        max_connections_per_user=2,
        first_number=FIRST,
    )
    with started(settings, watched=False) as short, started(settings, watched=True) as complete:
        yield Servers(short, complete, spy)


def answer_to(
    *lines: str, after: bytes = b"", user: str = "alice", grants: tuple[str, ...] = (), **request: Any
) -> Any:
    """Return a function that sends a handshake and tells the answer, as far as it does not depend on chance."""

    def ask(client: RawClient, server: LiveServer) -> str:
        token = server.token(user, topics=grants)
        sent = [line.format(token=token) for line in (KEY, *lines)]
        path = request.get("path", "/ws").format(token=token)
        client.request(*sent, **{**request, "path": path})
        if after:
            client.send(after)
        return told_by(client)

    return ask


def told_by(client: RawClient) -> str:
    """Return the head and the frames until the ``connected`` frame and its heartbeat, or until the close frame."""
    head = client.head().decode()
    if "101 Switching" not in head:
        return re.sub("\r\ndate:[^\r]*", "", head + client.rest().decode(), flags=re.IGNORECASE)
    frames: list[tuple[Opcode, bytes]] = []
    while not frames or frames[-1][0] is not Opcode.CLOSE:
        opcode, data = client.next_frame()
        frames.append(
            (opcode, re.sub(rb'"(connection_id|epoch|timestamp)":"[^"]*"|"expires_(at|in)":[0-9.]*', b"", data))
        )
        if b'"heartbeat"' in data or (b'"connected"' in data and b'"outcome"' not in data):
            break
    return head + repr(frames)


ADMITTED = {
    "token in a header": answer_to(GOOD),
    "from a position": answer_to(GOOD, path="/ws?since=0"),
    "from a position and an epoch": answer_to(GOOD, path="/ws?since=0&epoch=other"),
    "from a number of the future": answer_to(GOOD, path=f"/ws?since={nth(99)}"),
    "token as a subprotocol": answer_to("Sec-WebSocket-Protocol: unmissed.bearer, {token}"),
    "another subprotocol as well": answer_to(GOOD, "Sec-WebSocket-Protocol: chat, unmissed.bearer"),
    "token in the URL": answer_to(path="/ws?token={token}"),
    "an allowed origin": answer_to(GOOD, "Origin: https://app.example"),
    "the own host as the origin": answer_to(GOOD, "Origin: http://test"),
    "all granted topics": answer_to(GOOD, grants=("news", "rooms.*")),
    "some granted topics": answer_to(GOOD, grants=("news", "rooms.*"), path="/ws?since=0&topics=rooms.1,rooms.2"),
    "no topic": answer_to(GOOD, grants=("news",), path="/ws?topics="),
    "an unknown parameter": answer_to(GOOD, path="/ws?unknown=1"),
    "an extension": answer_to(GOOD, "Sec-WebSocket-Extensions: permessage-deflate"),
    "upper case": answer_to("AUTHORIZATION: bearer {token}", "Upgrade:", "Upgrade: WebSocket"),
    "a forwarded address": answer_to(GOOD, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"),
    "another host": answer_to(GOOD, "Host: other"),
    "an encoded path": answer_to(GOOD, path="/%77s"),
    "a ping in the same segment": answer_to(GOOD, after=Frame(Opcode.PING, b"x").serialize(mask=True)),
}
LEFT_TO_THE_APPLICATION = {
    "no token, but one in the first frame": answer_to(after=Frame(Opcode.TEXT, b"{}").serialize(mask=True)),
    "a wrong token": answer_to("Authorization: Bearer x.y.z"),
    "another scheme": answer_to("Authorization: Basic {token}", after=Frame(Opcode.TEXT, b"no").serialize(mask=True)),
    "a refused origin": answer_to(GOOD, "Origin: https://evil.example"),
    "a null origin": answer_to(GOOD, "Origin: null"),
    "a position that is no number": answer_to(GOOD, path="/ws?since=abc"),
    "a position twice": answer_to(GOOD, path="/ws?since=1&since=2"),
    "an epoch twice": answer_to(GOOD, path="/ws?since=1&epoch=a&epoch=b"),
    "a topic that is not granted": answer_to(GOOD, grants=("news",), path="/ws?topics=news,sport"),
    "a topic that none can be": answer_to(GOOD, grants=("*",), path="/ws?topics=a%20b"),
    "topics twice": answer_to(GOOD, grants=("news",), path="/ws?topics=news&topics=news"),
    "a header twice": answer_to(GOOD, "X-Twice: 1\r\nX-Twice: 2"),
    "two tokens": answer_to(GOOD + "\r\nAuthorization: Bearer x"),
    "two hosts": answer_to(GOOD, "X-Second: 1\r\nHost: test"),
    "no host": answer_to(GOOD, "Host:"),
    "version 12": answer_to(GOOD, "Sec-WebSocket-Version: 12"),
    "no version": answer_to(GOOD, "Sec-WebSocket-Version:"),
    "a short key": answer_to(GOOD, "Sec-WebSocket-Key: short"),
    "a key that is not base64": answer_to(GOOD, "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!!!"),
    "no key": answer_to(GOOD, "Sec-WebSocket-Key:"),
    "two words in Connection": answer_to(GOOD, "Connection: keep-alive, Upgrade"),
    "POST": answer_to(GOOD, method="POST"),
    "a body": answer_to(GOOD, "Content-Length: 5", body=b"hello"),
    "another path": answer_to(GOOD, path="/wss"),
    "a slash at the end": answer_to(GOOD, path="/ws/"),
    "a long URL": answer_to(GOOD, path="/ws?x=" + "x" * 9_000),
    "a long header": answer_to(GOOD, "X-Large: " + "x" * 9_000),
    **{
        f"token: {name}": answer_to(f"Authorization: Bearer {token}".replace("{", "{{").replace("}", "}}"))
        for name, token in HOSTILE.items()
        if token.isascii() and token.isprintable()
    },
}


@pytest.mark.parametrize("ask", ADMITTED.values(), ids=ADMITTED.keys())
def test_a_plain_handshake_is_admitted_with_the_answer_of_the_application(servers: Servers, ask: Any) -> None:
    short, complete, admitted = servers.answers(ask)

    assert complete == short
    assert short.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert "connected" in short
    assert admitted


@pytest.mark.parametrize("ask", LEFT_TO_THE_APPLICATION.values(), ids=LEFT_TO_THE_APPLICATION.keys())
def test_everything_else_is_left_to_the_application(servers: Servers, ask: Any) -> None:
    short, complete, admitted = servers.answers(ask)

    assert complete == short
    assert not admitted


def test_a_handshake_in_two_segments_is_answered(servers: Servers) -> None:
    with RawClient(servers.short.url) as client:
        client.send(b"GET /ws HTTP/1.1\r\nHost: te")
        client.send(f"st\r\nUpgrade: websocket\r\n{GOOD.format(token=servers.short.token())}\r\n".encode())
        client.send(f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{KEY}\r\n\r\n".encode())

        assert "connected" in told_by(client)


def test_a_limit_is_explained_on_both_ways(servers: Servers) -> None:
    def third(client: RawClient, server: LiveServer) -> str:
        with RawClient(server.url) as first, RawClient(server.url) as second:
            for each in (first, second):
                each.handshake(GOOD.format(token=server.token("carol")))
                each.next_frame()
            answer: str = answer_to(GOOD, user="carol")(client, server)
            return answer

    short, complete, admitted = servers.answers(third)

    assert complete == short
    assert "this user has too many connections" in short
    assert not admitted


def test_both_ways_write_the_same_log_line(servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="uvicorn.error")
    lines = []
    for server in (servers.short, servers.complete):
        caplog.clear()
        with RawClient(server.url) as client:
            client.handshake(GOOD.format(token=server.token()), "X-Forwarded-For: 203.0.113.7")
            client.next_frame()
        lines += [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]

    assert ['203.0.113.7:0 - "WebSocket /ws" [accepted]'] * 2 == lines


@pytest.mark.parametrize(
    ("line", "client"),
    [
        pytest.param("X-Forwarded-For: 203.0.113.7", "203.0.113.7", id="forwarded"),
        pytest.param("X-Forwarded-For: 6.6.6.6, 203.0.113.7", "203.0.113.7", id="forged"),
        pytest.param("X-Forwarded-For: [2001:db8::7]:4711", "2001:db8::7", id="IPv6"),
        pytest.param("X-Nothing: 1", "127.0.0.1", id="direct"),
    ],
)
def test_the_address_of_each_client_is_known_on_both_ways(servers: Servers, line: str, client: str) -> None:
    def address(asking: RawClient, server: LiveServer) -> str:
        asking.handshake(GOOD.format(token=server.token("dora")), line)
        asking.next_frame()
        [connection] = server.manager.connections_of("dora")
        return str(connection.client)

    short, complete, admitted = servers.answers(address)

    assert [client, client] == [short, complete]
    assert admitted


def test_both_ways_give_the_same_scope() -> None:
    known: list[Scope] = []

    def admission(scope: Scope, open_socket: Callable[[str | None], Socket]) -> bool:  # noqa: ARG001  # an Admission
        known.append(scope)
        return False

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            announced = Admissions(application, lambda: {"/ws": admission})
            scope["state"] |= {ADMISSIONS_STATE: announced, "database": "open"}
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            known.append(scope)
            await send({"type": "websocket.close"})

    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    lines = ("Host: other:443", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "Cookie: a=b", KEY)
    with LiveServer(cast("Any", application), manager=manager, root_path="/live", **NATIVE) as server:
        for _ in range(2):
            with RawClient(server.url) as client:
                client.request(*lines, "Sec-WebSocket-Protocol: unmissed.bearer, x", path="/w%73?since=0&topics=a%20b")
                client.rest()
    first, *others = ({**scope, "extensions": None} for scope in known)

    assert [first] * 3 == others
    assert ("203.0.113.7", 0) == first["client"]
    assert ("wss", "/live/ws", "open") == (first["scheme"], first["path"], first["state"]["database"])


def overridden(app: FastAPI) -> None:
    app.dependency_overrides[get_identity] = lambda: Identity("somebody")


def watched(app: FastAPI) -> None:
    app.add_middleware(Watching)


class OwnCors(CORSMiddleware):
    """Changes nothing about WebSockets."""


class LookingCors(CORSMiddleware):
    """May look at WebSockets."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class Timing(BaseHTTPMiddleware):
    """Sees requests only."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class Guarding(BaseHTTPMiddleware):
    """Sees WebSockets, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def with_middleware(kind: Any, **options: Any) -> Callable[[FastAPI], None]:
    return lambda app: app.add_middleware(kind, **options)


def with_http_middleware(app: FastAPI) -> None:
    app.middleware("http")(lambda request, call_next: call_next(request))


def instrumented(app: FastAPI) -> None:
    """Wrap all layers of this one application, as packages for tracing do."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Watching(build())  # type: ignore[method-assign]


def with_a_router_of_its_own_kind(app: FastAPI) -> None:
    class OwnRouter(APIRouter):
        pass

    app.router.__class__ = OwnRouter


def with_another_websocket_first(app: FastAPI) -> None:
    async def other(websocket: WebSocket) -> None:
        await websocket.accept()

    app.router.routes.insert(0, WebSocketRoute("/other", other))
    app.router.routes.insert(0, Mount("/mounted", FastAPI()))


@pytest.mark.parametrize(
    ("change", "short"),
    [
        pytest.param(lambda _: None, True, id="nothing"),
        pytest.param(with_http_middleware, True, id="a function for requests"),
        pytest.param(with_middleware(Timing), True, id="a middleware for requests"),
        pytest.param(with_middleware(CORSMiddleware, allow_origins=["*"]), True, id="CORS"),
        pytest.param(with_middleware(OwnCors, allow_origins=["*"]), True, id="a subclass"),
        pytest.param(with_middleware(GZipMiddleware), True, id="compression"),
        pytest.param(with_another_websocket_first, True, id="other routes"),
        pytest.param(watched, False, id="an unknown middleware"),
        pytest.param(with_middleware(LookingCors, allow_origins=["*"]), False, id="a changed middleware"),
        pytest.param(with_middleware(Guarding), False, id="a middleware for both"),
        pytest.param(with_middleware(TrustedHostMiddleware), False, id="hosts"),
        pytest.param(instrumented, False, id="instrumented"),
        pytest.param(with_a_router_of_its_own_kind, False, id="a router of its own kind"),
        pytest.param(overridden, False, id="overridden"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/live"])
def test_an_embedded_router_is_short_unless_the_application_has_a_say(
    spy: list[RequestProtocol], change: Callable[[FastAPI], None], prefix: str, *, short: bool
) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager), prefix=prefix)
    change(app)
    with LiveServer(app, manager=manager, **NATIVE) as server:
        ways = [way(spy, server, path=f"{prefix}/ws") for _ in range(2)]

    assert [short] * 2 == ways


def way(spy: list[RequestProtocol], server: LiveServer, *lines: str, path: str = "/ws") -> bool:
    """Return whether the server admits a handshake itself that is admitted."""
    spy.clear()
    with RawClient(server.url) as client:
        client.handshake(GOOD.format(token=server.token()), *lines, path=path)
        assert b'"connected"' in client.next_frame()[1]
    return not spy


@pytest.mark.parametrize(
    ("own", "server_root", "paths"),
    [
        ("", "", {"/ws": True}),
        ("", "/behind", {"/ws": True}),
        ("/behind", "", {"/ws": True, "/behind/ws": True}),
        ("/behind", "/behind", {"/ws": False}),
    ],
)
def test_a_root_path_changes_no_answer(
    spy: list[RequestProtocol], own: str, server_root: str, paths: dict[str, bool]
) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.root_path = own
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager, root_path=server_root, **NATIVE) as server:
        ways = {path: way(spy, server, path=path) for path in paths}

    assert paths == ways


def test_an_override_counts_while_it_exists(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager, **NATIVE) as server:
        ways = [way(spy, server)]
        overridden(app)
        ways.append(way(spy, server))
        app.dependency_overrides.clear()
        ways.append(way(spy, server))

    assert [True, False, True] == ways


def test_each_router_of_an_application_is_announced(spy: list[RequestProtocol]) -> None:
    a = ConnectionManager(Settings.load(jwt_secret=SECRET))
    b = ConnectionManager(Settings.load(jwt_secret=SECRET))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with a, b:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_router(a), prefix="/a")
    app.include_router(create_router(b), prefix="/b")
    app.include_router(create_router(b), prefix="/a")
    with LiveServer(app, manager=a, **NATIVE) as server:
        for path, manager in (("/a/ws", a), ("/b/ws", b)):
            spy.clear()
            with RawClient(server.url) as client:
                client.handshake(GOOD.format(token=server.token()), path=path)
                assert manager.running.node_id.encode() in client.next_frame()[1]
            assert not spy


def test_a_guarded_inclusion_beside_an_open_one_stays_guarded(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app, router = FastAPI(lifespan=manager.lifespan), create_router(manager)
    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/guarded", dependencies=[Depends(lambda: None)])
    with LiveServer(app, manager=manager, **NATIVE) as server:
        assert [True, False] == [way(spy, server, path=path) for path in ("/open/ws", "/guarded/ws")]


def test_telemetry_of_the_framework_sees_every_handshake(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan, telemetry={"tracer_provider": NoOpTracerProvider()})
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager, **NATIVE) as server:
        assert not way(spy, server)


@pytest.mark.parametrize("passes_state", [False, True])
def test_an_application_around_ours_sees_every_handshake(spy: list[RequestProtocol], *, passes_state: bool) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope if passes_state else {**scope, "state": {}}, receive, send)

    with LiveServer(cast("Any", around), manager=manager, **NATIVE) as server:
        assert [False, False] == [way(spy, server) for _ in range(2)]


class OwnBearer(Bearer):
    """Grants less than the token does."""

    async def __call__(self, connection: HTTPConnection) -> Identity:
        identity = await super().__call__(connection)
        return replace(identity, topics=identity.topics - {"secret"})


class OwnApplication(FastAPI):
    """Looks at every request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def test_a_changed_bearer_decides_about_every_token(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=OwnBearer(JwtVerifier(SECRET))))
    with LiveServer(app, manager=manager, **NATIVE) as server:
        token = server.token(topics=["open", "secret"])
        for _ in range(2):
            spy.clear()
            with RawClient(server.url) as client:
                client.handshake(f"Authorization: Bearer {token}")
                assert b'"topics":["open"]' in client.next_frame()[1]
                client.frame(Opcode.TEXT, f'{{"type":"authenticate","token":"{token}"}}'.encode())
                assert b'"error"' in client.next_frame()[1]
            assert spy


def test_a_changed_application_handles_every_handshake(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = OwnApplication(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager, **NATIVE) as server:
        for _ in range(2):
            spy.clear()
            with RawClient(server.url) as client:
                client.handshake(GOOD.format(token=server.token()))
            assert spy


def test_an_application_inside_another_one_handles_every_handshake(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    inner = FastAPI()
    inner.include_router(create_router(manager))
    app = FastAPI(lifespan=manager.lifespan)
    app.mount("/inner", inner)
    with LiveServer(app, manager=manager, **NATIVE) as server:
        for _ in range(2):
            spy.clear()
            with RawClient(server.url) as client:
                client.handshake(GOOD.format(token=server.token()), path="/inner/ws")
            assert spy


def test_no_client_turns_the_short_way_off(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    app.include_router(create_router(manager), prefix="/tenants/{tenant}")
    with LiveServer(app, manager=manager, **NATIVE) as server:
        foreign = [(f"foreign-{n}", path) for n in range(100) for path in (f"/tenants/{n}/ws", "/%77s")]
        for host, path in foreign:
            with RawClient(server.url) as client:
                client.handshake(GOOD.format(token=server.token()), f"Host: {host}", path=path)
        spy.clear()
        with RawClient(server.url) as client:
            client.handshake(GOOD.format(token=server.token()), "Host: own")
            assert b'"connected"' in client.next_frame()[1]

    assert not spy


class ByHeader(BaseRoute):
    """A route of the application's own kind, which looks at a header."""

    def __init__(self, router: APIRouter) -> None:
        self._app = FastAPI()
        self._app.include_router(router)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = (b"host", b"b.example") in scope.get("headers", ())
        return (Match.FULL if found else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def by_host(app: FastAPI, a: APIRouter, b: APIRouter) -> None:
    app.router.routes += [Host("a.example", a), Host("b.example", b)]


def by_host_with_a_default(app: FastAPI, a: APIRouter, b: APIRouter) -> None:
    app.router.routes.append(Host("b.example", b))
    app.include_router(a)


def by_host_in_an_included_router(app: FastAPI, a: APIRouter, b: APIRouter) -> None:
    router = APIRouter()
    router.routes.append(Host("b.example", b))
    app.include_router(router)
    app.include_router(a)


def by_a_route_of_its_own(app: FastAPI, a: APIRouter, b: APIRouter) -> None:
    app.router.routes.append(ByHeader(b))
    app.include_router(a)


@pytest.mark.parametrize(
    "choose", [by_host, by_host_with_a_default, by_host_in_an_included_router, by_a_route_of_its_own]
)
def test_where_more_than_the_path_decides_each_handshake_reaches_its_own_manager(
    choose: Callable[[FastAPI, APIRouter, APIRouter], None],
) -> None:
    a = ConnectionManager(Settings.load(jwt_secret=SECRET))
    b = ConnectionManager(Settings.load(jwt_secret=SECRET))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with a, b:
            yield

    app = FastAPI(lifespan=lifespan)
    choose(app, create_router(a), create_router(b))
    with LiveServer(app, manager=a, **NATIVE) as server:
        for _ in range(2):
            for host, manager in (("a.example", a), ("b.example", b)):
                with RawClient(server.url) as client:
                    client.handshake(GOOD.format(token=server.token()), f"Host: {host}")
                    assert manager.running.node_id.encode() in client.next_frame()[1]


def test_a_middleware_of_a_mount_sees_every_handshake(spy: list[RequestProtocol]) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.router.routes.append(Mount("/in", routes=create_router(manager).routes, middleware=[Middleware(Watching)]))
    with LiveServer(app, manager=manager, **NATIVE) as server:
        for _ in range(2):
            spy.clear()
            with RawClient(server.url) as client:
                client.handshake(GOOD.format(token=server.token()), path="/in/ws")
            assert spy


def test_a_server_that_shuts_down_says_so(spy: list[RequestProtocol]) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET))
    with LiveServer(app, manager=app.state.manager, **NATIVE) as server:
        with RawClient(server.url) as client:
            client.handshake(GOOD.format(token=server.token()))
        server.call(lambda: app.state.manager.running.drain(seconds=0.0))
        spy.clear()
        with RawClient(server.url) as client:
            client.handshake(GOOD.format(token=server.token()))

            assert 1012 == client.close_code()
        assert spy
