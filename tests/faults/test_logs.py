"""Rows 11 and 21: bad peers write no token, no traceback and no forged line into the log."""

import json
import logging
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from raw_client import RawClient, authorization
from support import Serve, native_only, nth
from unmissed.testing import LiveServer

_unheard = logging.Logger("client")  # noqa: LOG001  # the test client logs its own headers


async def test_no_token_reaches_a_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(allow_query_token=True)
    for name in (None, "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets", "unmissed"):
        caplog.set_level(logging.DEBUG, logger=name)
    token = server.token()

    async def attempt(**options: Any) -> None:
        query = options.pop("query", "")
        async with connect(server.websocket_url + query, proxy=None, logger=_unheard, **options) as it:
            if not options and not query:
                await it.send(json.dumps({"type": "authenticate", "token": token}))
            await it.recv()

    await attempt(query=f"?token={token}")
    await attempt(additional_headers={"Authorization": f"Bearer {token}"})
    await attempt(subprotocols=["unmissed.bearer", token])
    await attempt()
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.get("/websocket/messages", headers={"Authorization": f"Bearer {token}"}, params={"token": token})

    own = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    lines = [record.getMessage() for record in own]
    assert {"uvicorn.error", "uvicorn.access"} <= {record.name for record in own}
    assert any("accepted" in line for line in lines)
    assert any("GET /websocket/messages?token=[redacted]" in line for line in lines)
    assert [] == [line for line in lines if token in line or token.rpartition(".")[2] in line]


async def test_a_client_that_leaves_before_it_authenticates_is_no_error(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(server.websocket_url, proxy=None):
        pass
    async with connect(server.websocket_url, proxy=None) as abrupt:
        abrupt.transport.abort()
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        await websocket.recv()

    assert "[accepted]" in caplog.text
    assert "Exception in ASGI application" not in caplog.text
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_is_cut_off_is_no_error(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with RawClient(server.url) as client:
        client.send(
            b"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n" + authorization(server).encode() + b"\r\n\r\n{"
        )
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers()) as http:
        assert nth(0) == (await http.get("/websocket/messages")).json()["latest"]

    assert '"GET /websocket/messages HTTP/1.1" 200' in caplog.text
    assert "Exception in ASGI application" not in caplog.text
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


@native_only
def test_a_path_forges_no_line_of_the_log(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with RawClient(server.url) as client:
        client.request(path="/x%0aERROR:%20forged")
        client.rest()

    assert "%0AERROR" in caplog.text
    assert "\nERROR: forged" not in caplog.text
