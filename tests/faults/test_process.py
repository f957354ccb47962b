"""Rows 21 and 22: a server that is killed, frozen, stopped or out of file descriptors."""

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from faults.processes import ServerProcess
from raw_client import RawClient
from support import wait_until
from unmissed import client

DRAIN_SECONDS = 2.0
BACKLOG = ["x" * 65_000] * 15

_BUSY_SECONDS = 10.0
"""For the work of a stop on a busy machine. A stalled client alone would hold a server up for 30 seconds."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run ``unmissed serve``."""
    with ServerProcess("unmissed", "serve", log=tmp_path / "log", drain_seconds=str(DRAIN_SECONDS)) as server:
        yield server


async def count_until(stream: client.Stream, last: object) -> list[object]:
    """Return the data of every message, and the class of every other event, until this data."""
    received: list[object] = []
    while last not in received:
        event = await anext(stream)
        received.append(event.data if isinstance(event, client.ReceivedMessage) else type(event))
    return received


async def test_after_a_kill_a_client_is_told_of_the_reset_and_receives_what_follows(server: ServerProcess) -> None:
    async with client.connect(server.url, token=server.token()) as stream:
        await asyncio.to_thread(server.publish, 1, 2, 3)
        before = await count_until(stream, 3)

        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.publish, 4, 5)
        after = await count_until(stream, 5)
        await asyncio.to_thread(server.publish, 6)
        later = await count_until(stream, 6)

    assert [1, 2, 3] == before
    assert [client.Reset, 4, 5] == after
    assert [6] == later


async def test_nothing_is_lost_while_the_process_is_frozen(server: ServerProcess) -> None:
    batch = json.dumps([{"type": "count", "data": number} for number in range(10, 20)]).encode()
    async with client.connect(server.url, token=server.token()) as stream:
        await asyncio.to_thread(server.publish, *range(10))
        server.signal(signal.SIGSTOP)
        with RawClient(server.url) as publisher:
            # The kernel accepts the connection and the request, which the process finds when it continues.
            publisher.send(
                b"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\nAuthorization: Bearer %b\r\n\r\n"
                % (len(batch), server.token().encode())
                + batch
            )
            server.signal(signal.SIGCONT)

            assert 201 == (await asyncio.to_thread(publisher.answer))[0]
        assert list(range(20)) == await count_until(stream, 19)
        assert 0 == stream.reconnects


def flood(peer: RawClient) -> None:
    """Send pings as fast as possible, and close never."""
    with suppress(OSError):
        while True:
            peer.send(b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}')


def stall(server: ServerProcess, peers: ExitStack) -> None:
    """Open a WebSocket and an event stream that do not read, and for which more waits than the systems take."""
    peers.enter_context(server.websocket("stalled"))
    peers.enter_context(server.event_stream("stalled"))
    for _ in range(8):
        server.publish(*BACKLOG)


def test_a_stop_waits_for_no_client_longer_than_the_drain_time(server: ServerProcess) -> None:
    with ExitStack() as peers:
        stall(server, peers)
        healthy = peers.enter_context(
            connect(f"{server.url.replace('http', 'ws')}/ws", additional_headers=server.headers(), proxy=None)
        )
        events = peers.enter_context(server.event_stream("healthy"))
        for _ in range(20):
            peers.enter_context(server.slow_post())
        flooding = threading.Thread(target=flood, args=[peers.enter_context(server.websocket("flooding"))])
        flooding.start()

        server.signal(signal.SIGTERM)

        while '"type":"reconnect"' not in str(healthy.recv(timeout=20)):
            pass
        with pytest.raises(ConnectionClosed):
            healthy.recv(timeout=20)
        assert b'"type":"reconnect"' in events.rest()
        assert 0 == server.exit_code(seconds=DRAIN_SECONDS + _BUSY_SECONDS)
        flooding.join()
        assert 1012 == healthy.close_code
    assert "Traceback" not in server.output


@pytest.mark.long
def test_a_flood_does_not_keep_a_server_from_stopping(server: ServerProcess) -> None:
    """The client reconnects as soon as it is closed."""
    stopped, connected = threading.Event(), threading.Event()

    def flood_again_and_again() -> None:
        while not stopped.is_set():
            with suppress(OSError, EOFError), RawClient(server.url) as peer:
                peer.handshake(f"Authorization: Bearer {server.token()}")
                connected.set()
                flood(peer)

    flooding = threading.Thread(target=flood_again_and_again)
    flooding.start()
    try:
        assert connected.wait(60)
        server.signal(signal.SIGTERM)

        assert 0 == server.exit_code(seconds=DRAIN_SECONDS + _BUSY_SECONDS)
    finally:
        stopped.set()
        flooding.join()
    assert "Traceback" not in server.output


@pytest.mark.long
def test_a_server_without_file_descriptors_lives_is_quiet_and_serves_again(server: ServerProcess) -> None:
    server.limit_file_descriptors(64)
    with ExitStack() as peers:
        accepted = peers.enter_context(RawClient(server.url))
        for _ in range(200):
            peers.enter_context(RawClient(server.url)).send(b"GET /livez HTTP/1.1\r\n")
        wait_until(lambda: server.file_descriptors >= 60)
        # A server that tries to accept again in each iteration of its event loop writes a log of megabytes.
        for _ in range(1_000):
            accepted.send(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
            assert 200 == accepted.answer()[0]

        assert server.running
        assert len([line for line in server.output.splitlines() if "GET /livez" not in line]) < 100
    assert 200 == httpx.get(f"{server.url}/livez", timeout=30).status_code
    server.publish("still here")


@pytest.mark.long
def test_plain_uvicorn_with_the_protocol_classes_stops_in_spite_of_slow_clients(tmp_path: Path) -> None:
    command = ("uvicorn", "unmissed.main:app")
    classes = ("--http", "unmissed.server:HttpProtocol", "--ws", "unmissed.server:WebSocketProtocol")
    with ServerProcess(*command, *classes, log=tmp_path / "log") as server, ExitStack() as peers:
        stall(server, peers)
        peers.enter_context(server.slow_post())

        server.signal(signal.SIGTERM)

        assert server.exit_code(seconds=20) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.output


@pytest.mark.long
def test_plain_uvicorn_stops_in_spite_of_event_streams_which_it_waits_for(tmp_path: Path) -> None:
    with ServerProcess("uvicorn", "unmissed.main:app", log=tmp_path / "log") as server, ExitStack() as peers:
        streams = [peers.enter_context(server.event_stream("healthy")) for _ in range(3)]

        server.signal(signal.SIGTERM)

        assert [True] * 3 == [b'"type":"reconnect"' in stream.rest() for stream in streams]
        assert server.exit_code(seconds=20) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.output
