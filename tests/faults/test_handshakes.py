"""Row 12: a bad request head is answered with a status and closed, and what follows a handshake stays in order."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from websockets.frames import Frame, Opcode

from raw_client import RawClient, authorization
from support import ALICE, LOGGED, SOCKETS, Serve, native_only
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.testing import SECRET, LiveServer


@native_only
@pytest.mark.parametrize(
    ("lines", "request_line", "status"),
    [
        pytest.param((), {"path": "/ws?" + "x" * 9_000}, 414, id="URL over 8 kB"),
        pytest.param(("X-Large: " + "x" * 70_000,), {}, 431, id="head over 64 kB"),
        pytest.param(("X-Large: " + "x" * 9_000,), {}, 431, id="header over 8 kB"),
        pytest.param(tuple(f"X-{number}: y" for number in range(200)), {}, 431, id="200 headers"),
        pytest.param((), {"method": "POST"}, 405, id="POST"),
        pytest.param(("Content-Length: 5",), {"body": b"hello"}, 400, id="body"),
        pytest.param(("Content-Length: 5",), {"method": "POST", "body": b"hello"}, 400, id="POST with body"),
        pytest.param(("Sec-WebSocket-Version: 12",), {}, 426, id="version 12"),
        pytest.param(("Sec-WebSocket-Version:",), {}, 400, id="no version"),
        pytest.param(("Sec-WebSocket-Key:",), {}, 400, id="no key"),
        pytest.param(("Sec-WebSocket-Key: short",), {}, 400, id="short key"),
        pytest.param(("Host:",), {}, 400, id="no Host"),
        pytest.param(("X-Second: 1\r\nHost: test",), {}, 400, id="two Hosts"),
    ],
)
def test_a_bad_handshake_is_answered_and_closed(
    server: LiveServer, lines: tuple[str, ...], request_line: dict[str, Any], status: int
) -> None:
    with RawClient(server.url) as client:
        client.request(*lines, **request_line)

        assert_own_problem(client.rest(), status)


def assert_own_problem(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert status == problem["status"]
    assert problem["type"].startswith("urn:unmissed:problem:")
    assert problem["detail"]


@native_only
def test_the_answer_to_another_version_names_the_right_one(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request("Sec-WebSocket-Version: 12")

        assert b"\r\nSec-WebSocket-Version: 13\r\n" in client.rest()


@native_only
@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /livez?" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414, id="URL over 8 kB"),
        pytest.param(b"\x16\x03\x01 hello\r\n\r\n", 400, id="not HTTP"),
    ],
)
def test_a_bad_request_is_answered_and_closed(server: LiveServer, head: bytes, status: int) -> None:
    with RawClient(server.url) as client:
        client.send(head)

        assert_own_problem(client.rest(), status)


@native_only
def test_an_endless_head_is_answered_with_431(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(b"GET /livez HTTP/1.1\r\n")
        client.send_until_answered(b"X-Line: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20, seconds_between=0.002)

        assert_own_problem(client.rest(), 431)


@native_only
def test_a_large_body_with_a_part_of_the_next_head_is_not_taken_for_a_large_head(server: LiveServer) -> None:
    message = b'{"type":"large","data":"%b"}' % (b"x" * 50_000)
    body = b"[%b,%b]" % (message, message)
    head = (
        f"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{authorization(server)}\r\n\r\n"
    )
    with RawClient(server.url) as client:
        client.send(head.encode() + body + b"GET /livez HTTP/1.1\r\nHo")
        published, _ = client.answer()
        client.send(b"st: test\r\n\r\n")
        alive, _ = client.answer()

    assert [201, 200] == [published, alive]


@native_only
@pytest.mark.parametrize(
    ("lines", "path", "why"),
    [
        (("Cookie: " + "x" * 9_000,), "/ws", "a cookie or a token, is too long (WEBSOCKETS_MAX_LINE_LENGTH): "),
        (tuple(f"X-{number}: y" for number in range(200)), "/ws", "too many headers (WEBSOCKETS_MAX_NUM_HEADERS): "),
        (tuple(f"X-{number}: " + "y" * 4_000 for number in range(20)), "/ws", "has more than 65,536 bytes"),
        ((), "/ws?" + "x" * 9_000, "its URL has more than 8,192 bytes"),
        (("Sec-WebSocket-Key: short",), "/ws", "it is not valid: "),
        (("Content-Length: x",), "/ws", "it is not valid HTTP"),
    ],
    ids=["header over 8 kB", "200 headers", "head over 64 kB", "URL over 8 kB", "short key", "invalid HTTP"],
)
def test_a_refusal_of_the_server_is_one_line_that_names_the_limit(
    server: LiveServer, caplog: pytest.LogCaptureFixture, lines: tuple[str, ...], path: str, why: str
) -> None:
    with RawClient(server.url) as client:
        client.request(*lines, path=path)
        client.rest()

    [message] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert message.startswith("127.0.0.1:")
    assert why in message


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_for_the_websocket_is_told_to_upgrade(server: LiveServer, method: str) -> None:
    answer = httpx.request(method, server.url + "/ws?since=0")

    assert 426 == answer.status_code
    assert "websocket" == answer.headers["upgrade"]
    assert "application/problem+json" == answer.headers["content-type"]
    if method == "GET":
        assert "a proxy drops the headers Upgrade and Connection" in answer.json()["detail"]


def test_other_methods_are_not_allowed_on_the_websocket(server: LiveServer) -> None:
    answer = httpx.post(server.url + "/ws", json={"type": "a"})

    assert 405 == answer.status_code
    assert {"GET", "HEAD"} == set(answer.headers["allow"].split(", "))


def publishing(names: Iterable[str], *, size: int) -> bytes:
    """Return frames that publish messages of these types, each of about so many bytes."""
    return b"".join(text(id=name, type="publish", message={"type": name, "data": "x" * size}) for name in names)


def text(**frame: object) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=True)


def published(client: RawClient, server: LiveServer, *, count: int) -> list[str]:
    """Return the types in the log, in order, once so many messages were answered."""
    while count:
        opcode, data = client.next_frame()
        assert opcode is not Opcode.CLOSE, data
        count -= b'"published"' in data
    window = server.manager.window
    return [str(message.as_dict()["type"]) for message in window.messages_after(window.evicted_through)]


NAMES = [f"m{number}" for number in range(12)]
HEADER = "token in a header"
FIRST_FRAME = "token in the first frame"
LATER = "token in the first frame, after the answer to the handshake"


def send_in_one_segment(client: RawClient, server: LiveServer, *, way: str, frames: bytes) -> None:
    """Open a WebSocket that authenticates in this way, and send these frames together with what does it."""
    token = server.token(topics=["a"])
    authenticate = text(type="authenticate", token=token)
    if way == HEADER:
        client.request(f"Authorization: Bearer {token}", body=frames)
    elif way == FIRST_FRAME:
        client.request(body=authenticate + frames)
    else:
        client.request()
    assert client.head().startswith(b"HTTP/1.1 101")
    if way == LATER:
        client.send(authenticate + frames)


@native_only
@pytest.mark.parametrize("way", [HEADER, FIRST_FRAME, LATER])
@pytest.mark.parametrize("size", [1, 700, 5_000])
def test_frames_in_the_segment_that_authenticates_are_taken_in_order(server: LiveServer, way: str, size: int) -> None:
    with RawClient(server.url) as first:
        first.handshake(authorization(server))
        first.next_frame()
    with RawClient(server.url) as client:
        send_in_one_segment(client, server, way=way, frames=publishing(NAMES, size=size))

        assert NAMES == published(client, server, count=len(NAMES))


@pytest.mark.parametrize(
    ("sockets", "way"), [("native", HEADER), ("native", FIRST_FRAME), ("native", LATER), ("portable", LATER)]
)
def test_frames_that_wait_for_the_application_are_taken_in_order(sockets: str, way: str) -> None:
    """The client does not wait until the application has decided about its topic."""

    async def authorize(identity: Identity, topic: str) -> bool:  # noqa: ARG001  # the contract
        for _ in range(100):
            await asyncio.sleep(0)
        return True

    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authorize=authorize))
    with LiveServer(app, manager=manager, **SOCKETS[sockets]) as server, RawClient(server.url) as client:
        send_in_one_segment(client, server, way=way, frames=publishing(NAMES, size=400))

        assert NAMES == published(client, server, count=len(NAMES))


# Clients that leave before they are admitted


class Slow:
    """An application that decides about clients when a test says so, and reports when it has left one."""

    def __init__(self, *, injected: bool, allows: bool) -> None:
        self.manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
        self.asked, self.decide, self.left = threading.Event(), asyncio.Event(), threading.Event()
        self._allows = allows
        self._app = FastAPI(lifespan=self.manager.lifespan)
        router = create_router(
            self.manager,
            authenticate=self._authenticate if injected else None,
            authorize=None if injected else self._authorize,
        )
        self._app.include_router(router)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            self.left.set()

    async def _authorize(self, identity: Identity, topic: str) -> bool:  # noqa: ARG002  # the contract
        self.asked.set()
        await self.decide.wait()
        return self._allows

    async def _authenticate(self, connection: HTTPConnection) -> Identity:  # noqa: ARG002  # FastAPI passes it
        await self._authorize(ALICE, "")
        if not self._allows:
            raise HTTPException(401, "no")
        return ALICE


SERVERS = {
    **SOCKETS,
    "wsproto": {"ws": "wsproto"},
    "native without its HTTP class": {"ws": "unmissed.server:WebSocketProtocol"},
}


@pytest.mark.parametrize("options", SERVERS.values(), ids=SERVERS.keys())
@pytest.mark.parametrize("allows", [True, False], ids=["admitted", "refused"])
@pytest.mark.parametrize("injected", [True, False], ids=["authenticate", "authorize"])
def test_a_client_that_leaves_while_the_application_decides_is_no_error(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], *, injected: bool, allows: bool
) -> None:
    application = Slow(injected=injected, allows=allows)
    with LiveServer(cast("Any", application), manager=application.manager, **options, **LOGGED) as server:
        with RawClient(server.url) as client:
            client.request(f"Authorization: Bearer {server.token(topics=['a'])}", path="/ws?topics=a")
            assert application.asked.wait(20)
            client.reset()
        server.call(application.decide.set)
        assert application.left.wait(20)

    assert [] == errors(caplog)


@pytest.mark.parametrize("options", SERVERS.values(), ids=SERVERS.keys())
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    ("answered", "frames"),
    [(False, b""), (True, b""), (True, Frame(Opcode.TEXT, b"no").serialize(mask=True))],
    ids=["at once", "after the answer", "after a wrong first frame"],
)
def test_a_client_without_a_token_that_leaves_is_no_error(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], frames: bytes, *, answered: bool, reset: bool
) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager, **options, **LOGGED) as server:
        with RawClient(server.url) as client:
            client.request()
            if answered:
                client.head()
            client.send(frames)
            if reset:
                client.reset()
        with RawClient(server.url) as next_client:
            next_client.handshake(authorization(server))

    assert [] == errors(caplog)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


def test_clients_without_a_token_do_not_keep_out_those_that_send_one(serve: Serve) -> None:
    server = serve(max_connections=3)
    long_way = "Connection: keep-alive, Upgrade"
    with ExitStack() as silent:
        for _ in range(3):
            silent.enter_context(RawClient(server.url)).handshake()
        with RawClient(server.url) as another:
            another.handshake()

            assert 4429 == another.close_code()
        with RawClient(server.url) as client:
            client.handshake(long_way, authorization(server))

            assert b'"connected"' in client.next_frame()[1]
