"""The native WebSocket class as a complete ASGI server."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from raw_client import RawClient
from support import until
from unmissed import ConnectionManager, Settings, create_router
from unmissed.delivery.socket import SOCKET_EXTENSION
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


@app.websocket("/slow")
async def slow(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("ready")
    await app.state.go.wait()
    async for text in websocket.iter_text():
        app.state.received.append(text)
    app.state.received.append("the end")


@app.websocket("/impatient")
async def impatient(websocket: WebSocket) -> None:
    """Close after the first message."""
    await websocket.accept()
    await websocket.receive()
    await websocket.close(4000)


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
    await send({"type": "websocket.close", "code": 4000})
    with pytest.raises(RuntimeError, match="unexpected ASGI message"):
        await send({"type": "websocket.send", "text": "late"})
    app.state.refused.set()


app.mount("/stubborn", stubborn)


@app.websocket("/lost")
async def lost(websocket: WebSocket) -> None:
    """Send when the connection is lost, and the application does not know it yet."""
    await websocket.accept()
    websocket.scope["extensions"][SOCKET_EXTENSION].abort()
    try:
        await websocket.send_text("late")
    except WebSocketDisconnect as error:
        app.state.disconnects.append((error.code, error.reason))


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
    app.state.disconnects, app.state.refused = [], asyncio.Event()
    with LiveServer(application, manager=manager, log_config=None, log_level="info", **NATIVE) as server:
        yield server


def url(server: LiveServer, path: str) -> str:
    return server.websocket_url.removesuffix("/ws") + path


def opened(server: LiveServer, path: str, **options: Any) -> connect:
    return connect(url(server, path), proxy=None, **options)


async def test_text_and_bytes_of_any_length_are_echoed(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        for message in ("", "Grüße 👋", b"", b"\x00\xff", "x" * 65_536, b"y" * 65_535):
            await websocket.send(message)
            assert message == await websocket.recv()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("size", [1, 700])
async def test_messages_in_the_segment_of_the_close_are_received_before_it(loop: str, size: int) -> None:
    app.state.go, app.state.received = asyncio.Event(), []
    messages = [str(number) * size for number in range(3)]
    frames = b"".join(Frame(Opcode.TEXT, message.encode()).serialize(mask=True) for message in messages)
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    with LiveServer(app, manager=manager, loop=loop, **NATIVE) as server, RawClient(server.url) as client:
        client.handshake(path="/slow")
        client.next_frame()
        client.send(frames + Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        server.call(app.state.go.set)
        await until(lambda: "the end" in app.state.received)

    assert [*messages, "the end"] == app.state.received


def test_an_application_that_closes_before_it_has_read_everything_does_not_delay_the_end(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request(path="/impatient", body=Frame(Opcode.TEXT, b"a").serialize(mask=True) * 2)
        client.head()
        assert 4000 == client.close_code()
        client.frame(Opcode.CLOSE, b"\x0f\xa0")

        # The end of a closing handshake. A server that has not read the answer resets the connection in the end.
        with pytest.raises(EOFError):
            client.exactly(1)


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
        await until(app.state.refused.is_set)


async def test_an_application_that_sends_before_it_knows_of_the_disconnect_learns_it(server: LiveServer) -> None:
    with contextlib.suppress(ConnectionClosed):
        async with opened(server, "/lost") as websocket:
            await websocket.wait_closed()

    await until(lambda: app.state.disconnects)
    assert [(1006, "")] == app.state.disconnects


async def test_the_application_hears_why_the_client_left(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        await websocket.close(4001, "bye")
    async with opened(server, "/echo") as websocket:
        websocket.transport.abort()

    await until(lambda: len(app.state.disconnects) == 2)
    assert [(4001, "bye"), (1006, "")] == app.state.disconnects


async def test_pings_are_answered(server: LiveServer) -> None:
    async with opened(server, "/echo") as websocket:
        seconds = await asyncio.wait_for(await websocket.ping(b"payload"), 10)

    assert seconds > 0


def test_a_frame_in_the_segment_of_the_handshake_is_kept(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request(path="/echo", body=Frame(Opcode.TEXT, b"early").serialize(mask=True))

        assert client.head().startswith(b"HTTP/1.1 101")
        assert (Opcode.TEXT, b"early") == client.next_frame()


def test_the_first_frame_may_authenticate_in_the_segment_of_the_handshake(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        token = f'{{"type":"authenticate","token":"{server.token()}"}}'
        client.request(
            body=Frame(Opcode.TEXT, token.encode()).serialize(mask=True)
            + Frame(Opcode.TEXT, b'{"type":"ping"}').serialize(mask=True)
        )

        assert client.head().startswith(b"HTTP/1.1 101")
        assert ["connected", "pong"] == [json.loads(client.next_frame()[1])["type"] for _ in range(2)]


async def test_an_application_waits_for_a_client_that_does_not_read(server: LiveServer) -> None:
    with RawClient(server.url, receive_buffer=4_096) as client:
        await asyncio.to_thread(client.handshake, path="/torrent")
        await until(lambda: getattr(app.state, "sent", 0))

    await until(lambda: app.state.disconnects)
    assert app.state.sent < 100


def test_no_pong_comes_before_the_handshake_is_answered(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request(path="/echo", body=Frame(Opcode.PING, b"early").serialize(mask=True) * 3)

        assert client.head().startswith(b"HTTP/1.1 101")


def test_another_upgrade_is_served_as_http(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request("Upgrade: h2c", "Connection: Upgrade, close", path="/livez")

        assert client.head().startswith(b"HTTP/1.1 200")


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    options: dict[str, Any] = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05, **NATIVE}
    with LiveServer(app, manager=manager, **options) as server, RawClient(server.url) as client:
        await asyncio.to_thread(client.handshake, path="/echo")

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
