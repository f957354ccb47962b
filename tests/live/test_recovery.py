"""Dropped connections, restarts and a steady publisher: nothing is lost, and nothing arrives twice."""

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from support import Serve, portable_is_long
from unmissed import client
from unmissed.testing import LiveServer

MESSAGES = 1_000
DROPS = 50


async def publish(server: LiveServer) -> None:
    """Publish at about 1,000 messages a second."""
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers("publisher")) as publisher:
        for number in range(0, MESSAGES, 10):
            batch = [{"type": "count", "data": each} for each in range(number, number + 10)]
            response = await publisher.post("/websocket/messages", json=batch)
            assert 201 == response.status_code
            await asyncio.sleep(0.01)


class PlainClient:
    """A client that knows only ``?since=``, and stores the last ``sequence_number`` it saw."""

    def __init__(self, server: LiveServer, *, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.last = 0
        self.data: list[Any] = []

    async def run(self) -> None:
        for _ in range(DROPS):
            with suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0, 0.08)):
                    await self.listen()
        async with asyncio.timeout(60):
            await self.listen()

    async def listen(self) -> None:
        with suppress(ConnectionClosed, OSError):
            async with connect(
                f"{self.server.websocket_url}?since={self.last}",
                additional_headers=self.server.headers(),
                proxy=None,
                close_timeout=0,
            ) as websocket:
                try:
                    while len(self.data) < MESSAGES:
                        self.take(json.loads(await websocket.recv()))
                finally:
                    websocket.transport.abort()

    def take(self, frame: dict[str, Any]) -> None:
        self.last = frame.get("sequence_number", self.last)
        if frame["type"] == "count":
            self.data.append(frame["data"])


@portable_is_long
async def test_plain_clients_miss_and_double_nothing_over_fifty_drops(server: LiveServer) -> None:
    clients = [PlainClient(server, seed=seed) for seed in range(3)]

    await asyncio.gather(publish(server), *(each.run() for each in clients))

    assert [list(range(MESSAGES))] * 3 == [each.data for each in clients]


@portable_is_long
async def test_a_client_that_recovers_by_rest_misses_and_doubles_nothing(server: LiveServer) -> None:
    publishing = asyncio.create_task(publish(server))
    data: list[int] = []
    last = 0
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers()) as http:
        while len(data) < MESSAGES:
            body = (await http.get("/websocket/messages", params={"since": last})).json()
            assert "complete" == body["outcome"]
            data += [message["data"] for message in body["messages"]]
            last = body["messages"][-1]["sequence_number"] if body["messages"] else last
    await publishing

    assert list(range(MESSAGES)) == data


@portable_is_long
async def test_the_python_client_misses_and_doubles_nothing(server: LiveServer) -> None:
    data: list[Any] = []
    async with client.connect(server.url, token=server.token()) as stream:
        publishing = asyncio.create_task(publish(server))
        async with asyncio.timeout(60):
            async for event in stream:
                assert isinstance(event, client.ReceivedMessage)
                data.append(event.data)
                if len(data) % 200 == 0:
                    stream.drop()
                if len(data) == MESSAGES:
                    break
        await publishing

    assert list(range(MESSAGES)) == data


BURST = 50

over_restarts = pytest.mark.parametrize("restarts", [4, pytest.param(20, marks=pytest.mark.long)])


class RestartingServer:
    """A server that restarts at random moments and the numbers that each life published."""

    def __init__(self, server: LiveServer, *, seed: int, restarts: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.restarts = restarts
        self.lives: list[list[int]] = []
        self.done = False

    async def run(self) -> None:
        for _ in range(self.restarts):
            self.lives.append([])
            for _ in range(BURST):
                message = await asyncio.to_thread(self.server.publish, "count", len(self.lives))
                self.lives[-1].append(message.sequence_number)
                if self.chance.random() < 0.05:
                    await asyncio.sleep(0.005)
            await asyncio.to_thread(self.server.restart)
        await asyncio.to_thread(self.server.publish, "end")
        self.done = True

    def judge(self, received: list[int], *, resets: int) -> None:
        """Check that what is missing was lost by a restart that the client was told."""
        assert sorted(set(received)) == received, "duplicate or out of order"
        lost = sum(self._lost_in_the_middle(numbers, received) for numbers in self.lives)
        assert 0 == lost
        assert resets

    def _lost_in_the_middle(self, published: list[int], received: list[int]) -> int:
        """Count what a life published before the last message that the client received of it, and did not deliver."""
        seen = set(received) & set(published)
        return len([number for number in published if seen and number < max(seen)]) - max(len(seen) - 1, 0)


@pytest.fixture
def restarting(serve: Serve, restarts: int) -> RestartingServer:
    server = serve(first_number="clock", drain_seconds=0.05)
    return RestartingServer(server, seed=1, restarts=restarts)


@over_restarts
@portable_is_long
async def test_a_client_with_one_number_loses_nothing_silently_over_restarts_by_rest(
    restarting: RestartingServer,
) -> None:
    running = asyncio.create_task(restarting.run())
    received: list[int] = []
    last, resets, types = 0, 0, set[str]()
    async with httpx.AsyncClient(base_url=restarting.server.url, headers=restarting.server.headers()) as http:
        while "end" not in types:
            with suppress(httpx.HTTPError):
                body = (await http.get("/websocket/messages", params={"since": last})).json()
                if "messages" not in body:
                    continue
                resets += body["outcome"] == "reset"
                types |= {message["type"] for message in body["messages"]}
                received += [message["sequence_number"] for message in body["messages"]]
                last = received[-1] if received else 0
    await running

    restarting.judge(received, resets=resets)


@over_restarts
@portable_is_long
async def test_a_client_with_one_number_loses_nothing_silently_over_restarts_by_websocket(
    restarting: RestartingServer,
) -> None:
    running = asyncio.create_task(restarting.run())
    received: list[int] = []
    last, resets, types = 0, 0, set[str]()
    while "end" not in types:
        with suppress(ConnectionClosed, OSError, InvalidHandshake):
            async with connect(
                f"{restarting.server.websocket_url}?since={last}",
                additional_headers=restarting.server.headers(),
                proxy=None,
                close_timeout=0,
            ) as websocket:
                while "end" not in types:
                    frame = json.loads(await websocket.recv())
                    last = frame.get("sequence_number", last)
                    resets += frame.get("outcome") == "reset"
                    types.add(frame["type"])
                    if "timestamp" in frame:
                        received.append(last)
    await running

    restarting.judge(received, resets=resets)
