"""Rows 18 and 19: who reads nothing is dropped, who reads slowly is served, who never authenticates is closed."""

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from raw_client import RawClient, authorization
from support import Serve, next_frame, nths, portable_is_long, until
from unmissed.testing import LiveServer

MESSAGES_PER_MEGABYTE = 16
SMALL_BUFFER = 4_096


def reader(server: LiveServer, user_id: str) -> RawClient:
    """Connect a client that has a small buffer, and reads only when it is told to."""
    client = RawClient(server.url, receive_buffer=SMALL_BUFFER)
    return client.handshake(authorization(server, user_id))


def users(server: LiveServer) -> set[str]:
    return {connection.identity.user_id for connection in server.manager.connections}


async def flood(server: LiveServer, *, megabytes: int) -> None:
    for _ in range(megabytes * MESSAGES_PER_MEGABYTE):
        await asyncio.to_thread(server.publish, "bulk", "x" * 65_000)


async def test_a_client_that_never_reads_is_dropped_and_others_get_everything(serve: Serve) -> None:
    server = serve(stall_seconds=1, max_messages=10_000)
    count = 8 * MESSAGES_PER_MEGABYTE
    with reader(server, "stalled"):
        async with connect(
            server.websocket_url, additional_headers=server.headers("healthy"), proxy=None, max_size=None
        ) as healthy:
            await until(lambda: {"stalled", "healthy"} == users(server))
            publishing = asyncio.create_task(flood(server, megabytes=8))
            numbers: list[int] = []
            while len(numbers) < count:
                frame = await next_frame(healthy)
                if frame["type"] == "bulk":
                    numbers.append(frame["sequence_number"])
            await publishing

            await until(lambda: {"healthy"} == users(server))

    assert nths(*range(1, count + 1)) == numbers


@portable_is_long
async def test_a_client_that_reads_slowly_is_told_its_gap_and_goes_on(serve: Serve) -> None:
    server = serve(max_messages=20)
    with reader(server, "slow") as client:
        await until(lambda: {"slow"} == users(server))
        await flood(server, megabytes=8)
        server.publish("last")

        received = b""
        while b'"last"' not in received:
            received += await asyncio.to_thread(client.socket.recv, 1_000_000)

    assert b'{"type":"gap","from":' in received


@portable_is_long
def test_a_client_that_reads_slowly_but_steadily_is_kept_and_gets_everything(serve: Serve) -> None:
    """8 MB are more than the buffers of both systems, so the server waits for this client most of the time."""
    stall_seconds = 1.0
    server = serve(stall_seconds=stall_seconds, max_messages=10_000)
    count = 8 * MESSAGES_PER_MEGABYTE
    server.run(server.manager.publish_batch([{"type": "bulk", "data": "x" * 65_000}] * count))
    with RawClient(server.url, receive_buffer=SMALL_BUFFER) as client:
        client.handshake(authorization(server, "slow"), path="/ws?since=0")
        started = time.monotonic()
        numbers: list[int] = []
        while len(numbers) < count:
            opcode, payload = client.next_frame()
            if opcode is Opcode.TEXT and (frame := json.loads(payload))["type"] == "bulk":
                numbers.append(frame["sequence_number"])
                time.sleep(2.5 * stall_seconds / count)

        assert time.monotonic() - started > 2 * stall_seconds, "too fast to prove anything"
        assert nths(*range(1, count + 1)) == numbers
        assert {"slow"} == users(server)


async def test_a_burst_of_an_application_reaches_a_client_that_reads(serve: Serve) -> None:
    server = serve()
    count = 3_000

    async def burst() -> None:
        for number in range(count):
            await server.manager.emit("burst", number)

    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        await websocket.recv()
        publishing = asyncio.create_task(asyncio.to_thread(server.run, burst()))
        received = [await next_frame(websocket) for _ in range(count)]
        await publishing

    assert list(range(count)) == [frame.get("data") for frame in received]


async def test_a_client_that_reads_nothing_for_a_moment_gets_everything_before_the_close_of_a_drain(
    serve: Serve,
) -> None:
    server = serve(max_messages=10_000)
    with reader(server, "slow") as client:
        await until(lambda: {"slow"} == users(server))
        await flood(server, megabytes=8)
        server.call(lambda: server.manager.running.drain(seconds=1))

        received = list[dict[str, Any]]()
        while (frame := await asyncio.to_thread(client.next_frame))[0] is not Opcode.CLOSE:
            received.append(json.loads(frame[1]))

    numbers = [each["sequence_number"] for each in received if each["type"] == "bulk"]
    assert nths(*range(1, 8 * MESSAGES_PER_MEGABYTE + 1)) == numbers
    assert "reconnect" in [each["type"] for each in received]
    assert 1012 == int.from_bytes(frame[1][:2])


# Before authentication


async def test_a_client_that_does_not_authenticate_is_closed_with_4408(
    monkeypatch: pytest.MonkeyPatch, server: LiveServer
) -> None:
    monkeypatch.setattr("unmissed.api.identity.AUTHENTICATION_SECONDS", 0.2)
    async with connect(server.websocket_url, proxy=None) as websocket:
        await websocket.wait_closed()

        assert 4408 == websocket.close_code


async def test_more_clients_without_a_token_than_connections_are_closed_with_4429_and_keep_out_no_others(
    serve: Serve,
) -> None:
    server = serve(max_connections=2)
    async with connect(server.websocket_url, proxy=None), connect(server.websocket_url, proxy=None) as second:
        async with connect(server.websocket_url, proxy=None) as third:
            await third.wait_closed()
        async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as fourth:
            assert "connected" == (await next_frame(fourth))["type"]
            await second.send(json.dumps({"type": "authenticate", "token": server.token()}))

            assert 4429 == third.close_code
            assert "connected" == (await next_frame(second))["type"]


async def test_a_client_that_leaves_during_authentication_makes_room(serve: Serve) -> None:
    server = serve(max_connections=1)
    with RawClient(server.url) as first:
        first.handshake()
        first.reset()

    async def admitted() -> bool:
        async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
            try:
                return bool("connected" == (await next_frame(websocket))["type"])
            except ConnectionClosed:
                return False

    await until(admitted)
    assert () == server.manager.connections
