"""The native WebSocket class as a complete ASGI server, and what it stands up to: raw bytes on a live server."""

import asyncio
import base64
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, Self

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from unmissed import ConnectionManager, Settings, create_router
from unmissed.testing import SECRET, LiveServer

NATIVE: dict[str, Any] = {"http": "unmissed.server:HttpProtocol", "ws": "unmissed.server:WebSocketProtocol"}

app = FastAPI()


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol="echo" if "echo" in websocket.scope["subprotocols"] else None)
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                app.state.disconnects.append((event["code"], event.get("reason")))
                return
            if event.get("text") is not None:
                await websocket.send_text(event["text"])
            else:
                await websocket.send_bytes(event["bytes"])
    except WebSocketDisconnect:
        return


@app.websocket("/headers")
async def headers(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-seen", websocket.headers["x-asked"].encode())])
    await websocket.send_json({key: websocket.scope[key] for key in ("path", "scheme", "http_version")})
    await websocket.close(4000, "done")


@app.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("no entry", 418, headers={"x-why": "tea"}))


@app.websocket("/refused")
async def refused(websocket: WebSocket) -> None:
    await websocket.close()


@app.websocket("/broken")
async def broken(websocket: WebSocket) -> None:
    if websocket.query_params.get("accept"):
        await websocket.accept()
    raise ValueError("broken on purpose")


@app.websocket("/careless")
async def careless(websocket: WebSocket) -> None:
    """Return without an answer."""


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    assert "websocket" == scope["type"]
    assert {"type": "websocket.connect"} == await receive()
    await send({"type": "websocket.accept"})
    with pytest.raises(RuntimeError, match="unexpected ASGI message"):
        await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "ok"})


app.mount("/stubborn", stubborn)


@app.websocket("/torrent")
async def torrent(websocket: WebSocket) -> None:
    await websocket.accept()
    app.state.sent = 0
    try:
        for _ in range(100):
            await websocket.send_bytes(b"x" * 1_000_000)
            app.state.sent += 1
    except WebSocketDisconnect:
        app.state.disconnects.append((1006, None))


@pytest.fixture
def server() -> Iterator[LiveServer]:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    application = FastAPI(lifespan=manager.lifespan)
    application.include_router(create_router(manager))
    application.mount("/", app)
    app.state.disconnects = []
    with LiveServer(application, manager=manager, log_config=None, log_level="info", **NATIVE) as server:
        yield server


def url(server: LiveServer, path: str) -> str:
    return server.websocket_url.removesuffix("/ws") + path


def opened(server: LiveServer, path: str, **options: Any) -> connect:
    return connect(url(server, path), proxy=None, **options)


class Raw:
    """A WebSocket client that can misbehave."""

    def __init__(self, server: LiveServer, *, path: str = "/echo", receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, *lines: str, method: str = "GET", path: str | None = None, body: bytes = b"") -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": "test",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        for line in lines:
            name, _, value = line.partition(":")
            fields.pop(name, None)
            if value:
                fields[name] = value.strip()
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket.sendall(f"{method} {path or self.path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def handshake(self) -> "Raw":
        self.request()
        assert self.head().startswith(b"HTTP/1.1 101")
        return self

    def head(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                break
            data += byte
        return data

    def send(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        self.socket.sendall(Frame(opcode, data, fin).serialize(mask=True))

    def rest(self) -> bytes:
        """Return everything until the server closes or resets the connection."""
        data = b""
        try:
            while chunk := self.socket.recv(65_536):
                data += chunk
        except ConnectionResetError:
            pass
        return data

    def close_code(self) -> int:
        """Return the code of the close frame, the last thing that the server sent."""
        data = self.rest()
        start = data.rindex(b"\x88")
        return int(struct.unpack("!H", data[start + 2 : start + 4])[0])


async def test_text_and_bytes_of_any_length_are_echoed(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        for message in ("", "Grüße 👋", b"", b"\x00\xff", "x" * 65_536, b"y" * 65_535):
            await websocket.send(message)
            assert message == await websocket.recv()


async def test_fragments_are_joined(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        await websocket.send(["a", "", "b"])
        await websocket.send([b"c", b"d"])

        assert ["ab", b"cd"] == [await websocket.recv(), await websocket.recv()]


async def test_a_subprotocol_is_chosen_by_the_application(server: LiveServer) -> None:
    async with opened(server, "/echo", subprotocols=["other", "echo"]) as websocket:
        assert "echo" == websocket.subprotocol


async def test_no_extension_is_negotiated(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        assert [] == websocket.protocol.extensions


async def test_the_scope_and_the_headers_of_both_sides_pass(server: LiveServer) -> None:
    async with opened(server, "/headers?a=b", additional_headers={"X-Asked": "tea"}) as websocket:
        assert websocket.response is not None
        assert "tea" == websocket.response.headers["x-seen"]
        assert '{"path":"/headers","scheme":"ws","http_version":"1.1"}' == await websocket.recv()
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert (4000, "done") == (websocket.close_code, websocket.close_reason)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/denied", 418, b"no entry"), ("/refused", 403, b""), ("/broken", 500, b""), ("/careless", 500, b"")],
)
async def test_a_handshake_that_is_not_accepted_is_answered_with_a_status(
    server: LiveServer, path: str, status: int, body: bytes
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await opened(server, path)

    response = refusal.value.response
    assert (status, body) == (response.status_code, response.body or b"")


async def test_an_error_after_the_handshake_is_a_1011(server: LiveServer) -> None:
    async with opened(server, "/broken?accept=1") as websocket:
        with pytest.raises(ConnectionClosed):
            await websocket.recv()

        assert 1011 == websocket.close_code


async def test_an_event_out_of_turn_is_an_error_of_the_application_alone(server: LiveServer) -> None:
    async with opened(server, "/stubborn/") as websocket:
        assert "ok" == await websocket.recv()


async def test_the_application_hears_why_the_client_left(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        await websocket.close(4001, "bye")
    async with opened(server, "/echo") as websocket:
        websocket.transport.abort()

    while len(app.state.disconnects) < 2:
        await asyncio.sleep(0)
    assert [(4001, "bye"), (1006, "")] == app.state.disconnects


async def test_pings_are_answered(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        await asyncio.wait_for(await websocket.ping(b"payload"), 10)


@pytest.mark.parametrize(
    ("lines", "request_line", "status"),
    [
        ((), {"path": "/echo?" + "x" * 9_000}, 414),
        (("X-Large: " + "x" * 9_000,), {}, 431),
        (tuple(f"X-{number}: y" for number in range(200)), {}, 431),
        ((), {"method": "POST"}, 405),
        (("Content-Length: 5",), {"body": b"hello"}, 400),
        (("Content-Length: 5",), {"method": "POST", "body": b"hello"}, 400),
        (("Sec-WebSocket-Version: 12",), {}, 426),
        (("Sec-WebSocket-Version:",), {}, 400),
        (("Host:",), {}, 400),
        (("X-Second: 1\r\nHost: test",), {}, 400),
        (("Sec-WebSocket-Key:",), {}, 400),
        (("Sec-WebSocket-Key: short",), {}, 400),
    ],
)
def test_a_bad_handshake_is_answered_and_closed(
    server: LiveServer, lines: tuple[str, ...], request_line: dict[str, Any], status: int
) -> None:
    with Raw(server) as client:
        client.request(*lines, **request_line)

        assert client.rest().startswith(f"HTTP/1.1 {status}".encode())


def test_a_frame_in_the_segment_of_the_handshake_is_kept(server: LiveServer) -> None:
    with Raw(server) as client:
        client.request(body=Frame(Opcode.TEXT, b"early").serialize(mask=True))

        assert client.head().startswith(b"HTTP/1.1 101")
        assert b"\x81\x05early" == client.socket.recv(7)


def test_the_first_frame_may_authenticate_in_the_segment_of_the_handshake(server: LiveServer) -> None:
    with Raw(server, path="/ws") as client:
        token = f'{{"type":"authenticate","token":"{server.token()}"}}'
        client.request(
            body=Frame(Opcode.TEXT, token.encode()).serialize(mask=True)
            + Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True)
        )

        assert client.head().startswith(b"HTTP/1.1 101")
        received = b""
        while b'"pong"' not in received:
            received += client.socket.recv(4096)
        assert received.index(b'"connected"') < received.index(b'"pong"')


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"a").serialize(mask=False), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),
        (b"\x89\xfe\x00\x80" + b"\x00" * 132, 1002),
        (b"\x88\x81\x00\x00\x00\x00\x01", 1002),
        (b"\x80\x80\x00\x00\x00\x00", 1002),
        (b"\x81\xff" + (2**63 - 1).to_bytes(8) + b"\x00" * 4, 1009),
        (Frame(Opcode.BINARY, b"x" * 65_537).serialize(mask=True), 1009),
    ],
)
def test_a_frame_against_the_rules_is_closed_with_its_code(server: LiveServer, data: bytes, code: int) -> None:
    with Raw(server).handshake() as client:
        client.socket.sendall(data)

        assert code == client.close_code()


def test_a_flood_of_empty_fragments_is_cut(server: LiveServer) -> None:
    with Raw(server).handshake() as client:
        client.send(Opcode.TEXT, fin=False)
        client.socket.sendall(Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 2_000)

        assert 1009 == client.close_code()


def test_a_flood_of_pings_is_cut(server: LiveServer) -> None:
    with Raw(server).handshake() as client:
        client.socket.sendall(Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 500)

        assert 4429 == client.close_code()


async def test_an_application_waits_for_a_client_that_does_not_read(server: LiveServer) -> None:
    with Raw(server, path="/torrent", receive_buffer=4_096) as client:
        await asyncio.to_thread(client.handshake)
        while not getattr(app.state, "sent", 0):
            await asyncio.sleep(0)

    while not app.state.disconnects:
        await asyncio.sleep(0)
    assert app.state.sent < 100


def test_a_client_that_asks_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch, server: LiveServer) -> None:
    monkeypatch.setattr("unmissed.server.deadlines.HEAD_SECONDS", 0.05)
    monkeypatch.setattr("unmissed.server.deadlines._TICK_SECONDS", 0.05)

    with Raw(server) as client:
        assert b"" == client.rest()


def test_half_a_second_request_is_closed(monkeypatch: pytest.MonkeyPatch, server: LiveServer) -> None:
    monkeypatch.setattr("unmissed.server.deadlines.HEAD_SECONDS", 0.05)
    monkeypatch.setattr("unmissed.server.deadlines._TICK_SECONDS", 0.05)

    with Raw(server) as client:
        client.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.head().startswith(b"HTTP/1.1 200")
        client.socket.sendall(b"GET /livez HT")

        assert client.rest().endswith(b'{"status":"alive"}')


def test_an_endless_head_is_answered_with_431(server: LiveServer) -> None:
    with Raw(server) as client:
        client.socket.sendall(b"GET /livez HTTP/1.1\r\n")
        answered: list[socket.socket] = []
        while not answered:
            client.socket.sendall(b"X-Line: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20)
            answered, _, _ = select.select([client.socket], [], [], 0.002)

        assert client.rest().startswith(b"HTTP/1.1 431")


def test_a_path_forges_no_line_of_the_log(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="uvicorn.error")
    with Raw(server) as client:
        client.request(path="/x%0aERROR:%20forged")
        client.rest()

    assert "%0AERROR" in caplog.text
    assert "\nERROR: forged" not in caplog.text


def test_no_pong_comes_before_the_handshake_is_answered(server: LiveServer) -> None:
    with Raw(server) as client:
        client.request(body=Frame(Opcode.PING, b"early").serialize(mask=True) * 3)

        assert client.head().startswith(b"HTTP/1.1 101")


def test_what_is_not_http_is_answered_with_400(server: LiveServer) -> None:
    with Raw(server) as client:
        client.socket.sendall(b"\x16\x03\x01 hello\r\n\r\n")

        assert client.rest().startswith(b"HTTP/1.1 400")


def test_another_upgrade_is_served_as_http(server: LiveServer) -> None:
    with Raw(server, path="/livez") as client:
        client.request("Upgrade: h2c", "Connection: Upgrade, close")

        assert client.head().startswith(b"HTTP/1.1 200")


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    options: dict[str, Any] = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05, **NATIVE}
    with LiveServer(app, manager=manager, **options) as server, Raw(server).handshake() as client:
        assert 1011 == await asyncio.to_thread(client.close_code)


async def test_a_client_that_answers_pings_is_kept() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    options: dict[str, Any] = {"ws_ping_interval": 0.02, "ws_ping_timeout": 0.5, **NATIVE}
    with LiveServer(app, manager=manager, **options) as server:
        async with opened(server, "/echo") as websocket:
            for _ in range(5):
                latency = await websocket.ping()
                await latency
            await websocket.send("still here")

            assert "still here" == await websocket.recv()
