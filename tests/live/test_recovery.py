"""Fifty dropped connections and a steady publisher: nothing is lost, nothing comes twice."""

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from unmissed import client
from unmissed.testing import LiveServer

MESSAGES = 2_000
DROPS = 50


async def publish(server: LiveServer) -> None:
    """Publish at about 1,000 messages a second, four times the pace that the log is made for in this test."""
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
        async with asyncio.timeout(20):
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


async def test_plain_clients_miss_and_double_nothing_over_fifty_drops(server: LiveServer) -> None:
    clients = [PlainClient(server, seed=seed) for seed in range(3)]

    await asyncio.gather(publish(server), *(each.run() for each in clients))

    assert [list(range(MESSAGES))] * 3 == [each.data for each in clients]


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


async def test_the_own_client_misses_and_doubles_nothing(server: LiveServer) -> None:
    data: list[Any] = []
    async with client.connect(server.url, token=server.token()) as stream:
        publishing = asyncio.create_task(publish(server))
        async with asyncio.timeout(60):
            async for event in stream:
                assert isinstance(event, client.Message)
                data.append(event.data)
                if len(data) % 400 == 0:
                    stream.drop()
                if len(data) == MESSAGES:
                    break
        await publishing

    assert list(range(MESSAGES)) == data
