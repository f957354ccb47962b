"""Row 33: engines that moved, were demoted or damaged, or hold the data of another program."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines import NatsServer
from places import Place
from unit.logs.test_base import drafts, payloads, until_reached
from unmissed.core.audience import EVERYONE
from unmissed.core.window import Retention, Window
from unmissed.logs.shared.engine import Position
from unmissed.logs.shared.jetstream.address import Address
from unmissed.logs.shared.jetstream.engine import JetStreamEngine
from unmissed.logs.writer import Write

pytestmark = pytest.mark.live


@pytest.fixture
async def places() -> AsyncIterator[list[Place]]:
    """Return a list for the places that are to be closed at the end of the test."""
    places: list[Place] = []
    yield places
    for place in places:
        await place.close_all()


def at(url: str, places: list[Place]) -> Place:
    places.append(Place(url))
    return places[-1]


def visible(window: Window) -> list[str]:
    """Return the data of what everyone sees."""
    return [
        message.as_dict()["data"]
        for message in window.messages_after(window.evicted_through)
        if message.audience is EVERYONE
    ]


async def store(url: str, *, messages: int, key: str) -> None:
    """Store one batch, without reading it."""
    engine = JetStreamEngine(Address.of(url), retention=Retention())
    await engine.connect()
    state = await engine.state(None)
    fingerprint = b"of the batch"
    write = Write(drafts(messages), key, fingerprint, asyncio.get_running_loop().create_future())
    await engine.write([write], Position(state.epoch, state.latest, 0))
    await engine.close()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
async def test_a_batch_that_a_killed_nats_server_kept_in_part_is_published_once(
    tmp_path: Path, places: list[Place], kept: float
) -> None:
    with NatsServer(tmp_path) as server:
        log, window = await at(server.url, places).open()
        await log.publish(drafts(1, of="before "))
        await places[0].close_all()
        [block] = server.store.rglob("unmissed/msgs/*.blk")
        before = block.stat().st_size
        await store(server.url, messages=100, key="key")

        server.kill()
        with block.open("r+b") as file:
            file.truncate(before + round((block.stat().st_size - before) * kept))
        block.with_name("index.db").unlink(missing_ok=True)
        server.start()
        (log, window), (other, second) = [await at(server.url, places).open() for _ in range(2)]
        part = visible(window)
        repeated = await log.publish(drafts(100), idempotency_key="key")
        again = await other.publish(drafts(100), idempotency_key="key")
        await until_reached(second, window.latest)

        expected = ["before 0", *map(str, range(100))]
        assert ["before 0"] == part
        assert expected == visible(window) == visible(second)
        assert payloads(window) == payloads(second)
        assert repeated.receipt == again.receipt
        assert window.first_number + 1 < repeated.receipt.first
