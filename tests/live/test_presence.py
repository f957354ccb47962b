"""Presence on three nodes that are killed and restarted: every client knows who is there, and nobody flickers."""

import asyncio
import json
import os
import random
import secrets
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from support import until
from unmissed import issue_token
from unmissed.lab.process import ServerProcess, running
from unmissed.testing import SECRET

MEMBERS = 50
GRACE_SECONDS = 5.0
ROOM = "rooms.1"


class MemberClient:
    """A client that connects to any node that runs, and keeps the members of its room."""

    def __init__(self, number: int, nodes: list[ServerProcess], published: dict[int, tuple[str, bool]]) -> None:
        self.user_id = f"user {number}"
        self.members = dict[str, Any]()
        self.node: ServerProcess | None = None
        """The node that it is connected to."""
        self.connects = 0
        self._nodes = nodes
        self._published = published
        self._position = 0
        self._chance = random.Random(number)

    async def run(self) -> None:
        token = issue_token(SECRET, user_id=self.user_id, expires_in=600, topics=["rooms.*"])
        headers = {"Authorization": f"Bearer {token}"}
        while True:
            node = self._chance.choice(self._nodes)
            url = f"{node.url.replace('http', 'ws')}/ws?topics={ROOM}&since={self._position}"
            with suppress(ConnectionClosed, InvalidHandshake, OSError):
                async with connect(url, additional_headers=headers) as websocket:
                    self.node = node
                    self.connects += 1
                    async for text in websocket:
                        self._take(json.loads(text))
            self.node = None
            await asyncio.sleep(self._chance.random() / 2)

    def _take(self, frame: dict[str, Any]) -> None:
        number = frame.get("sequence_number", 0)
        if frame["type"] == "presence":
            self._published[number] = frame["key"], "deleted" in frame
            self.members[frame["key"]] = frame["data"]
            if "deleted" in frame:
                del self.members[frame["key"]]
        self._position = max(self._position, number)


@pytest.mark.live
@pytest.mark.long
@pytest.mark.parametrize("engine", ["redis", "nats"])
async def test_fifty_members_on_three_nodes_survive_a_crash_and_a_rolling_restart(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"{request.getfixturevalue(f'{engine}_server').url}?name={secrets.token_hex(8)}"
    settings = {"JWT_SECRET": SECRET, "LOG_URL": url, "PRESENCE": "rooms.*"}
    settings |= {"PRESENCE_GRACE_SECONDS": str(GRACE_SECONDS), "DRAIN_SECONDS": "2"}
    environment = {**os.environ, **{f"UNMISSED_{name}": value for name, value in settings.items()}}
    nodes = [
        ServerProcess("unmissed", "serve", name=name, output=tmp_path / name, environment=environment)
        for name in ("a", "b", "c")
    ]
    published: dict[int, tuple[str, bool]] = {}
    clients = [MemberClient(number, nodes, published) for number in range(MEMBERS)]

    def all_know(users: set[str]) -> bool:
        there = [client for client in clients if client.user_id in users]
        return all(client.node is not None and client.members == dict.fromkeys(users, ONE) for client in there)

    async with running(nodes), asyncio.TaskGroup() as group:
        tasks = {client.user_id: group.create_task(client.run()) for client in clients}
        everyone = {*tasks}
        await until(lambda: all_know(everyone))
        # Six of the users of a node do not come back when it is killed.
        gone = {client.user_id for client in clients if client.node is nodes[0]}
        gone = {*sorted(gone)[:6]}
        nodes[0].kill()
        for user_id in gone:
            tasks[user_id].cancel()
        await until(lambda: all_know(everyone - gone))
        await nodes[0].launch()

        connects = sum(client.connects for client in clients)
        for node in nodes:
            await node.terminate()
            await node.launch()
            await until(lambda: all(client.node or client.user_id in gone for client in clients))
        assert connects + MEMBERS - len(gone) <= sum(client.connects for client in clients)
        # Who was thought to have left would do so before this one, which comes last and leaves.
        last = MemberClient(MEMBERS, nodes, published)
        leaving = group.create_task(last.run())
        await until(lambda: all_know(everyone - gone | {last.user_id}))
        leaving.cancel()
        await until(lambda: all_know(everyone - gone))
        for task in tasks.values():
            task.cancel()

    counts = Counter(user_id for user_id, _ in published.values())
    gone.add(last.user_id)
    assert gone == {user_id for user_id, has_left in published.values() if has_left}
    assert dict.fromkeys(gone, 2) == {user_id: counts[user_id] for user_id in gone}
    assert {1} == {counts[user_id] for user_id in everyone - gone}


ONE = {"connections": 1}
