"""Redis loses its newest messages while every node ends: no number is used twice, and nothing is lost silently."""

import asyncio
import os
import random
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from engines import RedisServer
from places import Place
from support import until
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Outcome, Window
from unmissed.lab.process import ManagedProcess, running

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).with_name("recording_node.py")
NODES = 3
DISASTERS = int(os.environ.get("DISASTERS", "3"))
"""How often each test rolls an engine back. Each night, it is ten times."""
RETENTION = Retention(rules=(Rule("rooms.*", 500, 3_600.0),))
"""That of the nodes. Without a rule, nothing below the tail would be known, and every loss would be declared."""

KEYS = frozenset({"#rooms.1"})
EVERY_SECOND = ["--appendonly", "yes", "--appendfsync", "everysec"]
SNAPSHOTS = ["--save", "1 1"]
DEFAULT = ["--save", "3600 1 300 100 60 10000"]
"""The settings of Redis without a configuration."""


class RecordingNode(ManagedProcess):
    """One life of a node, with its journal."""

    _lives = count()

    def __init__(self, url: str, folder: Path) -> None:
        name = f"node{next(self._lives)}"
        self._journal = folder / f"{name}.journal"
        super().__init__(
            name, [sys.executable, str(PROGRAM), url, name], ready=lambda: "ready" in self.output, output=self._journal
        )

    def journal(self) -> list[tuple[str, int, str]]:
        """Return what it has written: "acknowledged" or "seen", the number, and the data of a message."""
        lines, _, _ = self.output.rpartition("\n")
        entries = [line.split() for line in lines.splitlines() if line.startswith(("acknowledged ", "seen "))]
        return [(kind, int(number), data) for kind, number, data in entries]


@dataclass
class History:
    """What all nodes have written so far."""

    messages: dict[int, str] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)

    def add(self, node: RecordingNode) -> None:
        """Add the journal of a node. No number has two messages."""
        for kind, number, data in node.journal():
            assert data == self.messages.setdefault(number, data), f"{number} was used twice"
            if kind == "acknowledged":
                self.acknowledged.add(number)

    def losses(self, window: Window) -> int:
        """Return how many of the newest acknowledged messages are lost, which is declared to every client."""
        retained = {message.sequence_number: message.as_dict()["data"] for message in window}
        for number, data in retained.items():
            assert data == self.messages.setdefault(number, data), f"{number} was used twice"
        lost = {number for number in self.acknowledged if number >= window.first_number} - {*retained}
        for position in sorted(self.acknowledged)[-2_000:]:
            if Outcome.COMPLETE is window.locate(position, keys=KEYS).outcome:
                assert not [number for number in lost if number > position], f"lost silently after {position}"
        newest = max(retained, default=0)
        return len([number for number in self.acknowledged if number > newest])


@asynccontextmanager
async def nodes_of(url: str, folder: Path, history: History) -> AsyncIterator[list[RecordingNode]]:
    """Run some nodes, kill them at the end, and add their journals."""
    nodes = [RecordingNode(url, folder) for _ in range(NODES)]
    async with running(nodes):
        yield nodes
    for node in nodes:
        history.add(node)


async def more_from(node: RecordingNode) -> None:
    """Wait until a node has published again."""
    before = len(node.journal())
    await until(lambda: len(node.journal()) > before)


@asynccontextmanager
async def copied_every_second(folder: Path) -> AsyncIterator[list[Path]]:
    """Copy the files of a server while it writes them, as a backup of its volume does."""
    copies: list[Path] = []

    async def copy() -> None:
        while True:
            target = folder.with_name(secrets.token_hex(8))
            await asyncio.to_thread(shutil.copytree, folder, target, ignore=shutil.ignore_patterns("temp-*"))
            copies.append(target)
            await asyncio.sleep(1)

    copying = asyncio.create_task(copy())
    try:
        yield copies
    finally:
        copying.cancel()
        assert [True] == [
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(copying, return_exceptions=True)
        ]


@pytest.fixture(params=[EVERY_SECOND, SNAPSHOTS], ids=["everysec", "snapshots"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> RedisServer:
    """Return a server that loses its newest messages when it fails."""
    folder = tmp_path / "redis"
    folder.mkdir()
    return RedisServer(folder, persistent=False, options=request.param)


async def test_an_old_copy_without_a_living_node_uses_no_number_again(server: RedisServer, tmp_path: Path) -> None:
    history, seed, losses = History(), random.Random(7), []
    with server:
        for _ in range(DISASTERS):
            async with nodes_of(server.url, tmp_path, history) as nodes:
                await until(lambda: all(each.journal() for each in nodes))
                async with copied_every_second(server.folder) as copies:
                    await asyncio.sleep(seed.uniform(2.0, 6.0))
                server.kill()
            shutil.rmtree(server.folder)
            shutil.copytree(seed.choice(copies), server.folder)
            server.start()
            place = Place(server.url)
            _, window = await place.open(retention=RETENTION)
            losses.append(history.losses(window))
            await place.close_all()

    assert all(losses), losses


@pytest.mark.parametrize("options", [EVERY_SECOND, DEFAULT], ids=["everysec", "default"])
async def test_an_orderly_restart_of_everything_is_complete(options: list[str], tmp_path: Path) -> None:
    history = History()
    with RedisServer(tmp_path, persistent=False, options=options) as server:
        for restart in ("nodes", "nodes, then Redis", "Redis, then nodes"):
            async with nodes_of(server.url, tmp_path, history) as nodes:
                await until(lambda: all(each.journal() for each in nodes))
                if restart == "Redis, then nodes":
                    await server.terminate()
                    server.start()
                    await asyncio.gather(*(more_from(each) for each in nodes))
                await asyncio.gather(*(each.terminate() for each in nodes))
            if restart == "nodes, then Redis":
                await server.terminate()
                server.start()

            started = time.monotonic()
            place = Place(server.url)
            log, window = await place.open(retention=RETENTION)
            assert 5.0 > time.monotonic() - started
            assert Outcome.COMPLETE is window.locate(min(message.sequence_number for message in window)).outcome
            assert 0 == history.losses(window), restart
            await place.close(log)
        epochs = {window.epoch}
    assert 1 == len(epochs)
