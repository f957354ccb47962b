"""Bad peers and bad luck on a live server, on both sockets."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from support import until
from unmissed.testing import LiveServer

Serve = Callable[..., LiveServer]

_unheard = logging.Logger("client")  # noqa: LOG001  # the test client logs its own headers


@contextmanager
def stalled_client(server: LiveServer) -> Iterator[socket.socket]:
    """Connect a client that reads its handshake and then nothing, with a small buffer."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(20)
        client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        client.sendall(
            f"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {server.token('stalled')}\r\n\r\n".encode()
        )
        assert b"HTTP/1.1 101" == client.recv(12)
        yield client


def users(server: LiveServer) -> set[str]:
    return {connection.identity.user_id for connection in server.manager.connections}


async def flood(server: LiveServer, *, megabytes: int) -> None:
    for _ in range(megabytes * 16):
        await asyncio.to_thread(server.publish, "bulk", "x" * 65_000)


async def test_a_client_that_never_reads_is_dropped_and_others_get_everything(serve: Serve) -> None:
    server = serve(stall_seconds=0.3, max_messages=10_000)
    with stalled_client(server):
        async with connect(
            server.websocket_url, additional_headers=server.headers("healthy"), proxy=None, max_size=None
        ) as healthy:
            await until(lambda: {"stalled", "healthy"} == users(server))
            publishing = asyncio.create_task(flood(server, megabytes=8))
            numbers: list[int] = []
            while len(numbers) < 8 * 16:
                frame = json.loads(await asyncio.wait_for(healthy.recv(), 20))
                if frame["type"] == "bulk":
                    numbers.append(frame["sequence_number"])
            await publishing

            await until(lambda: {"healthy"} == users(server))

    assert list(range(1, 8 * 16 + 1)) == numbers


async def test_a_client_that_reads_slowly_is_told_its_gap_and_goes_on(serve: Serve) -> None:
    server = serve(max_messages=20)
    with stalled_client(server) as client:
        await until(lambda: bool(server.manager.connections))
        await flood(server, megabytes=8)
        server.publish("last")

        received = b""
        while b'"last"' not in received:
            received += await asyncio.to_thread(client.recv, 1_000_000)

    assert b'{"type":"gap","from":' in received


async def test_a_stop_does_not_wait_for_a_client_that_never_reads(serve: Serve) -> None:
    server = serve(drain_seconds=1)
    with stalled_client(server):
        await until(lambda: bool(server.manager.connections))
        await flood(server, megabytes=8)
        started = time.monotonic()

        await asyncio.to_thread(server.restart)

        assert time.monotonic() - started < 10


async def test_a_flood_of_frames_is_closed_with_4429_and_others_do_not_notice(serve: Serve) -> None:
    server = serve()
    async with (
        connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as other,
        connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as flooding,
    ):
        with suppress(ConnectionClosed):
            for _ in range(5_000):
                await flooding.send('{"type":"ping"}')
        with suppress(ConnectionClosed):
            while True:
                await flooding.recv()
        await asyncio.to_thread(server.publish, "a")
        frames = [json.loads(await other.recv()) for _ in range(2)]

        assert 4429 == flooding.close_code
        assert ["connected", "a"] == [frame["type"] for frame in frames]


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


async def test_a_burst_of_an_application_reaches_a_client_that_reads(serve: Serve) -> None:
    server = serve()
    count = 3_000

    async def burst() -> None:
        for number in range(count):
            await server.manager.emit("burst", number)

    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        await websocket.recv()
        publishing = asyncio.create_task(asyncio.to_thread(server.run, burst()))
        received = [json.loads(await asyncio.wait_for(websocket.recv(), 20)) for _ in range(count)]
        await publishing

    assert list(range(count)) == [frame.get("data") for frame in received]


async def test_a_client_that_leaves_before_it_authenticates_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    async with connect(server.websocket_url, proxy=None):
        pass
    async with connect(server.websocket_url, proxy=None) as abrupt:
        abrupt.transport.abort()
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        await websocket.recv()

    assert "[accepted]" in caplog.text
    assert "Exception in ASGI application" not in caplog.text
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_is_cut_off_is_no_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        client.sendall(
            b"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\nAuthorization: Bearer " + server.token().encode() + b"\r\n\r\n{"
        )
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers()) as http:
        assert 0 == (await http.get("/websocket/messages")).json()["latest"]

    assert '"GET /websocket/messages HTTP/1.1" 200' in caplog.text
    assert "Exception in ASGI application" not in caplog.text
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_storm_of_resets_leaves_nothing_behind(serve: Serve) -> None:
    server = serve()
    for _ in range(100):
        with stalled_client(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    await until(lambda: not server.manager.connections)
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        assert "connected" == json.loads(await websocket.recv())["type"]
