"""Rows 11 and 21: bad peers write no token, no traceback and no forged line into the log."""

import json
import logging
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from raw_client import RawClient, authorization
from support import Serve, native_only, nth
from unmissed import issue_token
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


HEADER, SUBPROTOCOL, FIRST_FRAME = "header", "subprotocol", "first frame"


@pytest.mark.parametrize("way", [HEADER, SUBPROTOCOL, FIRST_FRAME])
def test_a_refused_token_is_one_warning_and_never_an_accepted_client(
    server: LiveServer, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, way: str
) -> None:
    forged = issue_token("y" * 40, user_id="alice", expires_in=60)
    with RawClient(server.url) as client:
        if way == HEADER:
            client.handshake(f"Authorization: Bearer {forged}")
        elif way == SUBPROTOCOL:
            client.handshake(f"Sec-WebSocket-Protocol: unmissed.bearer, {forged}")
        else:
            client.handshake()
            client.frame(Opcode.TEXT, json.dumps({"type": "authenticate", "token": forged}).encode())

        assert 4401 == client.close_code()

    expected = (
        "WebSocket /ws from 127.0.0.1 refused with status 401 or close code 4401: the token is invalid or expired"
    )
    assert [expected] == [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert forged not in caplog.text
    assert {4401: 1} == server.manager.running.measures.refusals
    if request.node.callspec.params["serve"] == "native":  # uvicorn's own classes log each client that they accept
        assert "accepted" not in caplog.text
        assert '"WebSocket /ws" 4401' in caplog.text


def test_a_refused_token_over_http_is_one_warning(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    forged = issue_token("y" * 40, user_id="alice", expires_in=60)

    for path in ("/websocket/messages", "/websocket/events"):
        assert 401 == httpx.get(server.url + path, headers={"Authorization": f"Bearer {forged}"}).status_code

    assert [
        f"GET {path} from 127.0.0.1 refused with status 401 or close code 4401: the token is invalid or expired"
        for path in ("/websocket/messages", "/websocket/events")
    ] == [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert {4401: 2} == server.manager.running.measures.refusals


def test_no_token_under_an_encoded_name_reaches_a_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(allow_query_token=True)
    token = server.token()
    every_letter = "".join(f"%{ord(character):02x}" for character in token)

    for query in (f"%74oken={every_letter}", f"since=0;%54oken={token}", f"%2574oken={every_letter}"):
        with RawClient(server.url) as client:
            client.send(f"GET /websocket/messages?{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            client.rest()
        with RawClient(server.url) as client:
            client.request(path=f"/ws?{query}")
            client.head()

    assert 3 == sum("/websocket/messages?" in message for message in caplog.messages)
    assert token not in unquote(unquote(caplog.text))
