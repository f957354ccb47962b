"""NATS loses its newest messages while every node ends: no number is used twice, and nothing is lost silently."""

import asyncio
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from engines import NatsServer, nats_cluster
from faults.test_redis_disasters import DISASTERS, History, RecordingNode, copied_every_second, nodes_of
from places import Place
from support import until
from unmissed.core.errors import ConfigurationError
from unmissed.core.window import Outcome, Window
from unmissed.lab.engine_servers import NatsServer as AnyNatsServer

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]


async def opened(url: str, history: History) -> tuple[Window, int]:
    """Return the window of a node that starts alone, and how many of the newest messages are lost."""
    place = Place(url)
    async with asyncio.timeout(60):
        while True:
            # A cluster may need longer to start than a node waits.
            with suppress(ConfigurationError):
                _, window = await place.open()
                break
    losses = history.losses(window)
    await place.close_all()
    return window, losses


def roll_back(server: AnyNatsServer, copy: Path) -> None:
    """Replace the store of a server that does not run."""
    shutil.rmtree(server.store)
    shutil.copytree(copy, server.store)


async def test_an_old_copy_without_a_living_node_uses_no_number_again(tmp_path: Path) -> None:
    history, seed, losses = History(), random.Random(7), list[int]()
    with NatsServer(tmp_path) as server:
        for _ in range(DISASTERS):
            async with nodes_of(server.url, tmp_path, history) as nodes:
                await until(lambda: all(each.journal() for each in nodes))
                async with copied_every_second(server.store) as copies:
                    await asyncio.sleep(seed.uniform(2.0, 6.0))
                server.kill()
            roll_back(server, seed.choice(copies))
            server.start()
            losses.append((await opened(server.url, history))[1])

    assert all(losses), losses


@pytest.mark.nightly
async def test_old_copies_of_a_whole_cluster_use_no_number_again(tmp_path: Path) -> None:
    history, seed, losses = History(), random.Random(7), list[int]()
    async with nats_cluster(tmp_path) as cluster:
        for _ in range(3):
            async with nodes_of(cluster.url, tmp_path, history) as nodes:
                await until(lambda: all(each.journal() for each in nodes))
                await asyncio.sleep(1)
                copies = [
                    shutil.copytree(server.store, server.store.with_name(f"copy-{len(losses)}"))
                    for server in cluster.servers
                ]
                await asyncio.sleep(seed.uniform(1.0, 4.0))
                for server in cluster.servers:
                    server.kill()
            for server, copy in zip(cluster.servers, copies, strict=True):
                roll_back(server, copy)
            await asyncio.gather(*(server.launch() for server in cluster.servers))
            await until(lambda: asyncio.to_thread(cluster.leader))
            losses.append((await opened(cluster.url, history))[1])

    assert all(losses), losses


async def until_published_again(nodes: Sequence[RecordingNode]) -> None:
    """Wait until each node has published something more."""
    counts = [len(each.journal()) for each in nodes]
    await until(lambda: all(len(each.journal()) > before for each, before in zip(nodes, counts, strict=True)))


async def test_an_orderly_restart_of_everything_is_complete(tmp_path: Path) -> None:
    history, epochs = History(), set[str]()
    with NatsServer(tmp_path) as server:
        for restart in ("nodes", "nodes, then NATS", "NATS, then nodes"):
            async with nodes_of(server.url, tmp_path, history) as nodes:
                await until(lambda: all(each.journal() for each in nodes))
                if restart == "NATS, then nodes":
                    await server.terminate()
                    server.start()
                    await until_published_again(nodes)
                await asyncio.gather(*(each.terminate() for each in nodes))
            if restart == "nodes, then NATS":
                await server.terminate()
                server.start()

            window, losses = await opened(server.url, history)

            assert Outcome.COMPLETE is window.locate(min(message.sequence_number for message in window)).outcome
            assert 0 == losses, restart
            epochs.add(window.epoch)
    assert 1 == len(epochs)
