"""A client that leaves before it is admitted, as an ASGI server reports it."""

import logging
from typing import Any

import pytest
from starlette.types import Message

from unmissed import Settings, create_app, issue_token
from unmissed.testing import SECRET

TOKEN = issue_token(SECRET, user_id="alice", expires_in=3600.0)


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
    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/ws",
        "query_string": b"",
        "headers": [(b"host", b"test"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "subprotocols": [],
        "client": ("203.0.113.7", 1),
        "state": {},
    }
    async with app.state.manager:
        await app(scope, receive, send)

    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
