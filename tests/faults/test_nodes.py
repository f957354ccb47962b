"""Servers whose log outlives them: killed processes, workers and nodes that share a log, an engine that is away."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.frames import Opcode

from engines import NatsServer, RedisServer
from faults.processes import ServerProcess
from places import SHARED, new_url
from support import until
from unmissed import client


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ServerProcess]:
    """Return a server whose log is a file."""
    with ServerProcess("unmissed", "serve", log=tmp_path / "log", log_url=f"sqlite:{tmp_path}/log.db") as server:
        yield server


async def numbers_until(stream: client.Stream, last: object) -> list[object]:
    """Return the data of the messages up to the one with this data. Anything else than a message is a failure."""
    found: list[object] = []
    async with asyncio.timeout(120):
        async for event in stream:
            assert isinstance(event, client.ReceivedMessage), event
            found.append(event.data)
            if event.data == last:
                break
    return found


async def publish(http: httpx.AsyncClient, url: str, headers: dict[str, str], data: int) -> None:
    """Publish until it is acknowledged, once whatever happens in between."""
    headers = {**headers, "Idempotency-Key": f"key-{data}"}

    async def published() -> bool:
        try:
            response = await http.post(f"{url}/websocket/messages", headers=headers, json={"type": "n", "data": data})
        except httpx.TransportError:
            return False
        if response.status_code not in (200, 201):
            assert 503 == response.status_code
            assert response.headers["retry-after"]
        return response.is_success

    await until(published)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.long)])
async def test_a_server_that_is_killed_loses_and_doubles_nothing(node: ServerProcess, kills: int) -> None:
    async with (
        client.connect(node.url, token=node.token()) as stream,
        httpx.AsyncClient(timeout=5) as http,
    ):
        reading = asyncio.create_task(numbers_until(stream, 99))
        for data in range(100):
            if data % (100 // kills) == 50 // kills:
                await asyncio.to_thread(node.kill)
                await asyncio.to_thread(node.start)
            await publish(http, node.url, node.headers(), data)

        assert [*range(100)] == await reading
        assert stream.reconnects >= kills


@pytest.fixture(params=SHARED)
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """Return a server with two workers."""
    url = new_url(request.param, request, tmp_path)
    with ServerProcess("unmissed", "serve", "--workers", "2", log=tmp_path / "log", log_url=url) as server:
        yield server


async def node_ids(stack: AsyncExitStack, server: ServerProcess, *, count: int) -> dict[str, client.Stream]:
    """Return connections to this number of different nodes."""
    streams: dict[str, client.Stream] = {}
    async with asyncio.timeout(90), httpx.AsyncClient() as http:
        while len(streams) < count:
            user_id = os.urandom(6).hex()
            stream = await stack.enter_async_context(client.connect(server.url, token=server.token(user_id)))
            answer = await http.get(
                f"{server.url}/websocket/connections", headers=server.headers("admin"), params={"user": user_id}
            )
            [connection] = answer.json()["connections"]
            streams.setdefault(connection["connection_id"].partition(".")[0], stream)
    return streams


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_workers_share_a_log_and_are_replaced_when_they_are_killed(workers: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        streams = await node_ids(stack, workers, count=2)
        readings = [asyncio.create_task(numbers_until(stream, 1)) for stream in streams.values()]
        async with httpx.AsyncClient(timeout=5) as http:
            await publish(http, workers.url, workers.headers(), 0)
            workers.kill_a_worker()
            await publish(http, workers.url, workers.headers(), 1)

        assert [[0, 1], [0, 1]] == await asyncio.gather(*readings)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_workers_end_with_their_supervisor(workers: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        await node_ids(stack, workers, count=2)
        await asyncio.to_thread(workers.kill)

        await until(lambda: workers.output.count("Finished server process") == 2)
        assert not workers.running


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_all_workers_drain(workers: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        streams = await node_ids(stack, workers, count=2)
        workers.signal(signal.SIGTERM)

        assert 0 == await asyncio.to_thread(workers.exit_code, seconds=30)
        assert 2 == len(streams)
    assert 2 == workers.output.count("Finished server process")


async def test_an_engine_that_is_away_is_told_and_clients_stay(tmp_path: Path) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(RedisServer(tmp_path))
        node = stack.enter_context(
            ServerProcess("unmissed", "serve", log=tmp_path / "log", log_url=engine.url, publish_seconds="0.3")
        )
        async with client.connect(node.url, token=node.token()) as stream, httpx.AsyncClient(timeout=10) as http:
            await publish(http, node.url, node.headers(), 0)
            engine.kill()

            refused = await http.post(
                f"{node.url}/websocket/messages",
                headers={**node.headers(), "Idempotency-Key": "key-1"},
                json={"type": "n", "data": 1},
            )
            ready = await http.get(f"{node.url}/readyz")
            alive = await http.get(f"{node.url}/livez")
            missed = await http.get(f"{node.url}/websocket/messages", headers=node.headers())
            engine.start()
            await publish(http, node.url, node.headers(), 1)

            assert (503, 503, 200) == (refused.status_code, ready.status_code, alive.status_code)
            assert "the log is unavailable" in refused.json()["detail"]
            assert "redis://" not in refused.text + ready.text
            assert "redis://" in node.output
            assert "1" == refused.headers["retry-after"]
            assert [0] == [message["data"] for message in missed.json()["messages"]]
            assert [0, 1] == await numbers_until(stream, 1)
            assert 0 == stream.reconnects

            async def is_ready() -> bool:
                return (await http.get(f"{node.url}/readyz")).is_success

            await until(is_ready)


@pytest.mark.parametrize("engine", [RedisServer, pytest.param(NatsServer, marks=pytest.mark.long)])
def test_a_stop_does_not_wait_for_an_engine_that_has_stopped(
    engine: type[RedisServer | NatsServer], tmp_path: Path
) -> None:
    drain_seconds = 0.5
    with engine(tmp_path) as store, ExitStack() as stack:
        node = stack.enter_context(
            ServerProcess(
                "unmissed",
                "serve",
                log=tmp_path / "log",
                log_url=store.url,
                drain_seconds=str(drain_seconds),
                publish_seconds="60",
            )
        )
        peers = [stack.enter_context(node.websocket("alice")) for _ in range(3)]
        store.signal(signal.SIGSTOP)
        # Messages wait to be written, and one client waits for the answer.
        for peer in peers:
            peer.frame(Opcode.TEXT, b'{"type":"publish","id":"1","message":{"type":"a"}}')
        stack.enter_context(node.event_stream("bob"))

        node.signal(signal.SIGTERM)

        assert node.exit_code(seconds=drain_seconds + 10) in (0, -signal.SIGTERM)
    assert "Traceback" not in node.output
