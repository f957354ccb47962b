"""A client that leaves before it is admitted, and servers that offer some extensions, as ASGI has it."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import Message

from unmissed import Settings, create_app, issue_token
from unmissed.core.rest import EVENTS_PATH
from unmissed.delivery.socket import BODY_EXTENSION, SOCKET_EXTENSION
from unmissed.testing import SECRET, FakeSocket

TOKEN = issue_token(SECRET, user_id="alice", expires_in=3600.0)


def scope(kind: str, path: str, headers: dict[str, str], **others: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"test"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "subprotocols": [],
        "client": ("203.0.113.7", 1),
        "state": {},
        **others,
    }


@pytest.mark.parametrize("left_at", ["websocket.accept", "websocket.close", "websocket.send"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"authorization": f"Bearer {TOKEN}"}, id="a token"),
        pytest.param({"authorization": "Bearer x.y.z"}, id="a wrong token"),
        pytest.param({"authorization": f"Bearer {TOKEN}", "origin": "https://evil.example"}, id="a refused origin"),
    ],
)
async def test_a_client_that_leaves_is_no_error(
    caplog: pytest.LogCaptureFixture, headers: dict[str, str], left_at: str
) -> None:
    incoming: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "no"}]

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Message) -> None:
        if message["type"] == left_at:
            raise OSError("the client has left")

    app = create_app(Settings.load(jwt_secret=SECRET))
    async with app.state.manager:
        await app(scope("websocket", "/ws", headers), receive, send)

    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("extensions", [None, {}, {"of.another": {}}, {SOCKET_EXTENSION: FakeSocket()}])
async def test_a_websocket_is_served_with_or_without_a_native_socket(extensions: dict[str, Any] | None) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET))
    incoming: list[Message] = [{"type": "websocket.connect"}]
    texts: list[str] = []
    served = asyncio.Event()

    async def receive() -> Message:
        if not incoming:
            await served.wait()
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            texts.append(message["text"])
            served.set()

    offered = {} if extensions is None else {"extensions": extensions}
    async with app.state.manager:
        await app(scope("websocket", "/ws", {"authorization": f"Bearer {TOKEN}"}, **offered), receive, send)
        native: FakeSocket | None = (extensions or {}).get(SOCKET_EXTENSION)
        texts += [] if native is None else [payload.decode() for payload in native.payloads]

    assert 1 == len([text for text in texts if '"connected"' in text])


@pytest.mark.parametrize("native", [FakeSocket(), None], ids=["a socket", "none this time"])
async def test_an_event_stream_is_served_by_a_server_that_offers_its_body_alone(native: FakeSocket | None) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET))
    bodies: list[bytes] = []
    served = asyncio.Event()
    requested = False

    async def receive() -> Message:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await served.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])
            served.set()

    extensions = {BODY_EXTENSION: lambda: native}
    async with app.state.manager:
        request = scope("http", EVENTS_PATH, {"authorization": f"Bearer {TOKEN}"}, extensions=extensions)
        await app(request, receive, send)
        bodies += [] if native is None else native.payloads

    assert 1 == len([body for body in bodies if b'"connected"' in body])
