"""Clients of event streams that do not read, leave, or send what nobody asked for, on both sockets."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from event_client import EventClient
from raw_client import RawClient, authorization
from support import LOGGED, SOCKETS, Serve, native_only, nth, nths, portable_is_long, until
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.core.rest import EVENTS_PATH
from unmissed.testing import SECRET, LiveServer

MESSAGES_PER_MEGABYTE = 16
BULK = re.compile(rb'id: (\d+)\ndata: {"type":"bulk"')


def stream(
    server: LiveServer, user_id: str = "alice", *lines: str, query: str = "", receive_buffer: int | None = None
) -> RawClient:
    """Open an event stream whose client reads only when it is told to."""
    client = RawClient(server.url, receive_buffer=receive_buffer)
    head = "\r\n".join([f"GET {EVENTS_PATH}{query} HTTP/1.1", "Host: test", authorization(server, user_id), *lines])
    client.send(f"{head}\r\n\r\n".encode())
    assert client.head().startswith(b"HTTP/1.1 200")
    return client


def users(server: LiveServer) -> set[str]:
    return {connection.identity.user_id for connection in server.manager.connections}


def flood(server: LiveServer, *, megabytes: int) -> None:
    for _ in range(megabytes * MESSAGES_PER_MEGABYTE):
        server.publish("bulk", "x" * 65_000)


def numbers_of(client: RawClient, count: int, *, seconds_between: float = 0.0) -> list[int]:
    """Read so many messages, and return their numbers."""
    numbers: list[int] = []
    received = b""
    while len(numbers) < count:
        received += client.socket.recv(1_000_000)
        while event := BULK.search(received):
            numbers.append(int(event[1]))
            received = received[event.end() :]
            time.sleep(seconds_between)
    return numbers


# Clients that do not read


async def test_a_client_that_never_reads_is_dropped_and_others_get_everything(serve: Serve) -> None:
    server = serve(stall_seconds=1, max_messages=10_000)
    with stream(server, "stalled", receive_buffer=4_096), EventClient(server, user_id="healthy") as healthy:
        await until(lambda: {"stalled", "healthy"} == users(server))
        publishing = asyncio.create_task(asyncio.to_thread(flood, server, megabytes=8))

        received = await asyncio.to_thread(healthy.events, 1 + 8 * MESSAGES_PER_MEGABYTE)
        await publishing
        await until(lambda: {"healthy"} == users(server))

    assert [str(nth(n)) for n in range(8 * MESSAGES_PER_MEGABYTE + 1)] == [event.id for event in received]


@pytest.mark.long
def test_a_client_that_reads_slowly_is_told_its_gap_and_goes_on(serve: Serve) -> None:
    server = serve(max_messages=20)
    with stream(server, receive_buffer=4_096) as client:
        flood(server, megabytes=8)
        server.publish("last")

        received = b""
        while b'"last"' not in received:
            received += client.socket.recv(1_000_000)

    gap = re.search(rb'id: (\d+)\ndata: {"type":"gap","from":(\d+),"to":\d+,', received)
    assert gap
    assert int(gap[1]) + 1 == int(gap[2])


@portable_is_long
def test_a_client_that_reads_slowly_but_steadily_is_kept_and_gets_everything(serve: Serve) -> None:
    """8 MB are more than the buffers of both systems, so the server waits for this client most of the time."""
    server = serve(stall_seconds=1, max_messages=10_000)
    count = 8 * MESSAGES_PER_MEGABYTE
    server.run(server.manager.publish_batch([{"type": "bulk", "data": "x" * 65_000}] * count))
    with stream(server, query="?since=0", receive_buffer=4_096) as client:
        started = time.monotonic()
        numbers = numbers_of(client, count, seconds_between=2.5 / count)

        assert time.monotonic() - started > 2, "too fast to prove anything"
        assert nths(*range(1, count + 1)) == numbers
        assert {"alice"} == users(server)


async def test_a_stream_that_is_not_read_is_logged_out(serve: Serve) -> None:
    server = serve(stall_seconds=1, max_messages=10_000)
    with stream(server, receive_buffer=4_096):
        await asyncio.to_thread(flood, server, megabytes=8)

        assert 1 == await asyncio.to_thread(lambda: server.run(server.manager.log_out("alice")))

        await until(lambda: not users(server))


# Clients that leave


async def others_are_served(server: LiveServer) -> None:
    with EventClient(server, user_id="other") as other:
        assert "connected" == (await asyncio.to_thread(other.events, 1))[0].type


@pytest.mark.parametrize("leave", [RawClient.reset, RawClient.half_close], ids=["reset", "half-close"])
async def test_a_client_that_leaves_is_forgotten(server: LiveServer, leave: Callable[[RawClient], None]) -> None:
    with stream(server) as client:
        await until(lambda: users(server))

        leave(client)

        await until(lambda: not users(server))
        await others_are_served(server)


async def test_a_storm_of_resets_leaves_nothing_behind(server: LiveServer) -> None:
    for number in range(150):
        client = RawClient(server.url)
        head = f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n{authorization(server)}\r\n\r\n".encode()
        client.send(head[: 30 if number % 3 == 0 else None])
        if number % 3 == 2:
            client.head()
        client.reset()

    with EventClient(server, user_id="bob") as last:
        assert "connected" == last.events(1)[0].type
        await until(lambda: {"bob"} == users(server))


@pytest.fixture
def pinged_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("liveness", "fanout"):
        monkeypatch.setattr(f"unmissed.delivery.{module}.PING_SECONDS", 1.0)


@native_only
@pytest.mark.usefixtures("pinged_each_second")
async def test_a_client_behind_a_cut_cable_is_dropped_and_others_are_not(server: LiveServer) -> None:
    with EventClient(server, user_id="healthy") as healthy, stream(server, "silent") as silent:
        await until(lambda: {"healthy", "silent"} == users(server))
        silent.silence()

        await until(lambda: {"healthy"} == users(server))
        server.publish("after")
        assert ["connected", "after"] == [event.type for event in healthy.events(2)]


def test_a_newer_stream_replaces_the_older_one_of_a_user_at_the_limit(serve: Serve) -> None:
    """Behind a proxy that acknowledges everything, nothing shows whether the client of the older one is gone."""
    server = serve(max_connections_per_user=1)
    with EventClient(server) as older:
        older.events(1)
        with EventClient(server) as newer:
            [connected] = newer.events(1)
            [told] = older.rest()

            assert 200 == newer.response.status_code
            assert {connected.frame["connection_id"]} == {each.id for each in server.manager.connections}

    assert ("error", 4429) == (told.type, told.frame["code"])
    assert "replaced by a newer connection" in told.frame["detail"]


@native_only
def test_a_silent_stream_keeps_its_user_out_for_no_time(serve: Serve) -> None:
    server = serve(max_connections_per_user=1)
    with stream(server) as silent:
        silent.silence()
        with EventClient(server) as newer:
            assert 200 == newer.response.status_code


# Clients that send something after their request


def pipelined(server: LiveServer) -> RawClient:
    """Open an event stream whose client has sent another request, too."""
    client = RawClient(server.url)
    head = f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n{authorization(server)}\r\n\r\n"
    client.send(head.encode() + b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
    return client


def test_after_a_pipelined_request_the_stream_goes_on(server: LiveServer) -> None:
    with pipelined(server) as client:
        client.head()
        server.publish("bulk")

        assert nths(1) == numbers_of(client, 1)


@native_only
async def test_after_a_pipelined_request_the_server_still_notices_that_the_client_leaves(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written that would fail. On the portable socket, uvicorn tells only the latest request."""
    monkeypatch.setattr("unmissed.delivery.fanout.PING_SECONDS", 1e6)
    server = serve(heartbeat_seconds=1e6)
    with pipelined(server) as client:
        client.head()
        await until(lambda: users(server))
    await until(lambda: not users(server))
    await others_are_served(server)


@native_only
async def test_a_pipelined_request_is_not_answered_because_the_connection_ends_with_the_stream(
    server: LiveServer,
) -> None:
    with pipelined(server) as client:
        assert b"connection: close" in client.head()
        server.call(lambda: server.manager.running.drain(seconds=0))

        assert b"alive" not in await asyncio.to_thread(client.rest)


@native_only
async def test_a_client_that_does_not_stop_sending_is_reset(server: LiveServer) -> None:
    with EventClient(server, user_id="healthy") as healthy, stream(server, "flooding") as flooding:
        sent = await asyncio.to_thread(flooding.send_without_reading, b"x" * 10_000, total=20_000_000)

        await until(lambda: {"healthy"} == users(server))
        server.publish("after")
        assert ["connected", "after"] == [event.type for event in healthy.events(2)]
    assert sent < 20_000_000


@native_only
async def test_a_body_that_stays_away_ends_the_stream(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BODY", 0.5), ("_TICK", 0.05)):
        monkeypatch.setattr(f"unmissed.server.deadlines.{name}_SECONDS", seconds)
    with stream(server, "alice", "Content-Length: 1000") as client:
        assert b'"connected"' in await asyncio.to_thread(client.rest)
    await until(lambda: not users(server))


# Before authentication


class Gate:
    """An authentication that waits until it is opened."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._open = asyncio.Event()

    async def __call__(self, connection: HTTPConnection) -> Identity:  # noqa: ARG002  # FastAPI passes it
        self.asked.set()
        await self._open.wait()
        return Identity("alice")

    def open(self) -> None:
        self._open.set()


@pytest.fixture(params=SOCKETS)
def gated(request: pytest.FixtureRequest) -> Iterator[tuple[LiveServer, Gate]]:
    manager, gate = ConnectionManager(Settings.load(jwt_secret=SECRET)), Gate()
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=gate.__call__))
    options: dict[str, Any] = {**SOCKETS[request.param], **LOGGED}
    with LiveServer(app, manager=manager, **options) as server:
        yield server, gate


async def test_a_client_that_leaves_during_authentication_leaves_nothing_behind(
    gated: tuple[LiveServer, Gate], caplog: pytest.LogCaptureFixture
) -> None:
    server, gate = gated
    with RawClient(server.url) as client:
        client.send(f"GET {EVENTS_PATH} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await asyncio.to_thread(gate.asked.wait, 10)
        client.reset()
    server.call(gate.open)

    with EventClient(server) as other:
        assert "connected" == other.events(1)[0].type
        await until(lambda: len(server.manager.connections) == 1)
    assert "Traceback" not in caplog.text
