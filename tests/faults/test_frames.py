"""Rows 13, 15, 16 and 17: frames against the rules close one connection, with a code, and cost nothing."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from raw_client import RawClient, authorization
from support import native_only, next_frame, portable_is_long
from unmissed.testing import LiveServer

EMPTY_FRAME = Frame(Opcode.TEXT, b"").serialize(mask=True)
PING = '{"type":"ping"}'
MEGABYTE = 1_000_000


def opened(server: LiveServer, user_id: str = "alice") -> connect:
    return connect(server.websocket_url, additional_headers=server.headers(user_id), proxy=None)


async def still_delivers(server: LiveServer, other: ClientConnection) -> bool:
    await asyncio.to_thread(server.publish, "after")
    frames = [await next_frame(other) for _ in range(2)]
    return ["connected", "after"] == [frame["type"] for frame in frames]


@contextmanager
def flat_memory(*, most: int) -> Iterator[None]:
    """Check that the process, which is the server and the test, grows by at most this many bytes."""
    before = resident_bytes()
    yield
    assert resident_bytes() - before <= most


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # a file of the kernel
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# Frames that are not of the protocol of unmissed


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("{", id="invalid JSON"),
        pytest.param("[]", id="wrong shape"),
        pytest.param('{"type":"publish"}', id="unknown type"),
        pytest.param('{"type":"authenticate","token":1}', id="token of the wrong type"),
        pytest.param(b'{"type":"ping"}', id="binary"),
        pytest.param("[" * 3_000, id="deep JSON"),
        pytest.param('{"type":' + "9" * 5_000 + "}", id="5,000 digits"),
        pytest.param("", id="empty text"),
    ],
)
async def test_frames_that_mean_nothing_are_errors_and_then_closed_with_4400(
    server: LiveServer, caplog: pytest.LogCaptureFixture, frame: str | bytes
) -> None:
    async with opened(server) as other, opened(server) as client:
        assert "connected" == (await next_frame(client))["type"]
        for _ in range(3):
            await client.send(frame)
            error = await next_frame(client)
            assert ("error", 4400) == (error["type"], error["code"])
        await client.wait_closed()

        assert 4400 == client.close_code
        assert await still_delivers(server, other)
    assert [] == [record for record in caplog.records if record.levelname == "ERROR"]


async def test_one_frame_that_means_nothing_does_not_end_a_connection(server: LiveServer) -> None:
    async with opened(server) as client:
        await client.send("{")
        await client.send(PING)

        assert ["connected", "error", "pong"] == [(await next_frame(client))["type"] for _ in range(3)]


# Frames that are not of RFC 6455


@native_only
@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "unauthenticated"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007, id="bad UTF-8"),
        pytest.param(Frame(Opcode.TEXT, b"a").serialize(mask=False), 1002, id="unmasked"),
        pytest.param(b"\x83\x80\x00\x00\x00\x00", 1002, id="reserved opcode"),
        pytest.param(b"\xc1\x80\x00\x00\x00\x00", 1002, id="compressed"),
        pytest.param(b"\x89\xfe\x00\x80" + b"\x00" * 132, 1002, id="long ping"),
        pytest.param(b"\x09\x80\x00\x00\x00\x00", 1002, id="fragmented ping"),
        pytest.param(b"\x88\x81\x00\x00\x00\x00\x01", 1002, id="close with one byte"),
        pytest.param(b"\x88\x82\x00\x00\x00\x00\x03\xee", 1002, id="close with code 1006"),
        pytest.param(b"\x80\x80\x00\x00\x00\x00", 1002, id="continuation of nothing"),
        pytest.param(b"\x81\xff" + (2**63 - 1).to_bytes(8) + b"\x00" * 4, 1009, id="length 2^63-1"),
        pytest.param(b"\x81\xff" + (2**63).to_bytes(8) + b"\x00" * 4, 1009, id="length 2^63"),
        pytest.param(Frame(Opcode.BINARY, b"x" * 65_537).serialize(mask=True), 1009, id="oversize"),
    ],
)
async def test_a_frame_against_the_rules_is_closed_with_its_code(
    server: LiveServer, data: bytes, code: int, *, authenticated: bool
) -> None:
    async with opened(server, "other") as other:
        with RawClient(server.url) as client:
            client.handshake(*[authorization(server)] * authenticated)
            client.send(data)

            assert code == await asyncio.to_thread(client.close_code)
        assert await still_delivers(server, other)


@native_only
async def test_a_deflate_bomb_cannot_be_sent_because_no_extension_is_negotiated(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request("Sec-WebSocket-Extensions: permessage-deflate", authorization(server))

        assert b"extensions" not in client.head().lower()


# Floods


@native_only
def test_a_flood_of_empty_fragments_is_cut(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.handshake()
        client.frame(Opcode.TEXT, fin=False)
        client.send(Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 2_000)

        assert 1009 == client.close_code()


@native_only
def test_a_flood_of_pings_is_cut(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.handshake(authorization(server))
        client.send(Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 500)

        assert 4429 == client.close_code()


@native_only
@pytest.mark.parametrize("authenticated", [True, False], ids=["authenticated", "unauthenticated"])
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(Frame(Opcode.PING, b"x" * 125).serialize(mask=True), id="pings"),
        pytest.param(Frame(Opcode.CONT, b"", fin=False).serialize(mask=True), id="fragments"),
        pytest.param(EMPTY_FRAME, id="empty frames"),
    ],
)
def test_a_flood_by_a_client_that_does_not_read_is_cut_and_costs_no_memory(
    server: LiveServer, frame: bytes, *, authenticated: bool
) -> None:
    with RawClient(server.url, receive_buffer=4_096) as client:
        client.handshake(*[authorization(server)] * authenticated)
        with flat_memory(most=30 * MEGABYTE):
            client.send_without_reading(frame * 1_000, total=20 * MEGABYTE)

        client.rest()
        assert b"" == client.rest(), "the connection has ended"


@portable_is_long
async def test_a_flood_of_empty_frames_before_authentication_is_closed_and_costs_no_memory(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.handshake()
        # Kept, the 500,000 frames would take well over 50 MB.
        with flat_memory(most=30 * MEGABYTE):
            flooding = asyncio.create_task(
                asyncio.to_thread(client.send_without_reading, EMPTY_FRAME * 1_000, total=3 * MEGABYTE)
            )
            async with opened(server) as other:
                assert await still_delivers(server, other)
            await flooding

        await asyncio.to_thread(client.rest)


@pytest.mark.parametrize(
    ("frame", "count", "code"),
    [
        pytest.param(PING, 5_000, 4429, id="frames"),
        pytest.param("", 5_000, 4400, id="empty frames"),
        # 40 times 60 kB are more than 1 MiB in one second also when a second ends in between.
        pytest.param(PING.ljust(60_000), 40, 4429, id="bytes"),
        pytest.param(PING.ljust(66_000), 1, 1009, id="one frame over 64 kB"),
    ],
)
async def test_a_flood_after_authentication_is_closed_and_others_do_not_notice(
    server: LiveServer, frame: str, count: int, code: int
) -> None:
    async with opened(server) as other, opened(server) as flooding:
        with suppress(ConnectionClosed):
            for _ in range(count):
                await flooding.send(frame)
            while True:
                await flooding.recv()

        assert code == flooding.close_code
        assert await still_delivers(server, other)
