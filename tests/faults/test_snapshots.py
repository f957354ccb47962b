"""State that messages change, loaded when it is older or newer than the connection of the client that shows it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engines import RedisServer
from places import new_url
from support import FIRST, Serve, until
from unmissed import Settings
from unmissed.client import Event, Gap, ReceivedMessage, Reset, connect
from unmissed.lab.proxy import FaultProxy
from unmissed.testing import SECRET, LiveServer

PATIENCE = 60.0
AGES = [0, 1, 3, 1_000]
"""How many messages a loaded state is behind what is published. A thousand: it never contains anything."""


@dataclass
class Page:
    """Shows the numbers of the messages that its state contains, and fails if one comes twice."""

    read_state: Callable[[], int]
    shown: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    gaps: int = 0
    resets: int = 0
    loads: int = 0

    async def load(self) -> int:
        """Show the state as it is where this page reads it."""
        number = self.read_state()
        self.shown = set(range(FIRST, number + 1))
        self.lost = {each for each in self.lost if each > number}
        self.loads += 1
        return number

    def take(self, event: Event) -> None:
        """Change what is shown as an event says."""
        match event:
            case ReceivedMessage(sequence_number=int(number)):
                assert number not in self.shown, f"{number} came twice"
                self.shown.add(number)
            case Gap(first=first, last=last):
                self.gaps += 1
                self.lost |= {*range(first, last + 1)}
            case Reset():
                self.resets += 1
            case _:
                pytest.fail(f"unexpected: {event}")


async def read(page: Page, events: AsyncIterator[Event]) -> None:
    async for event in events:
        page.take(event)


@asynccontextmanager
async def opened(server: LiveServer, read_state: Callable[[], int]) -> AsyncIterator[Page]:
    page = Page(read_state)
    async with (
        asyncio.timeout(PATIENCE),
        connect(server.url, token=server.token(), snapshot=page.load) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        reading = tasks.create_task(read(page, stream))
        yield page
        reading.cancel()


async def publish(server: LiveServer, count: int) -> int:
    """Publish, and return the last number."""
    for _ in range(count):
        message = await asyncio.to_thread(server.publish, "chat")
    return message.sequence_number


def aged(server: LiveServer, age: int) -> Callable[[], int]:
    """Return how a page reads a state that is so many messages behind: 0 if it contains none."""

    def read_state() -> int:
        number = server.manager.window.latest - age
        return number if number >= FIRST else 0

    return read_state


@pytest.mark.parametrize("age", AGES)
async def test_what_a_state_does_not_contain_arrives(serve: Serve, age: int) -> None:
    server = serve(first_number=FIRST)
    await publish(server, 5)

    async with opened(server, aged(server, age)) as page:
        number = await publish(server, 3)
        await until(lambda: number in page.shown)
        await asyncio.to_thread(server.drop)
        last = await publish(server, 4)
        await until(lambda: last in page.shown)

    assert {*range(FIRST, last + 1)} == page.shown
    assert (set(), 1) == (page.lost, page.loads)


async def test_a_state_that_is_newer_than_the_node_of_the_client_is_not_delivered_again(serve: Serve) -> None:
    """Messages that are published while the state is loaded are in it."""
    server = serve(first_number=FIRST)

    def read_state() -> int:
        for _ in range(3):
            number = server.publish("chat").sequence_number
        return number

    async with opened(server, read_state) as page:
        last = await publish(server, 2)
        await until(lambda: last in page.shown)

    assert ({*range(FIRST, last + 1)}, set()) == (page.shown, page.lost)


@pytest.mark.parametrize("age", AGES)
async def test_what_is_neither_in_the_state_nor_retained_is_a_gap(serve: Serve, age: int) -> None:
    server = serve(first_number=FIRST, max_messages=2)
    await publish(server, 5)

    async with opened(server, aged(server, age)) as page:
        number = await publish(server, 1)
        await until(lambda: number in page.shown)
        await asyncio.to_thread(server.drop)
        last = await publish(server, 9)
        await until(lambda: last in page.shown)

    everything = {*range(FIRST, last + 1)}
    assert everything == page.shown | page.lost
    assert (set(), 0) == (page.shown & page.lost, page.resets)
    assert 1 + page.gaps == page.loads
    assert age > 1 or not page.lost, "every later state contains what was lost"


async def test_a_state_of_an_earlier_epoch_is_one_reset_and_then_everything(serve: Serve) -> None:
    server = serve(first_number=FIRST)
    await publish(server, 3)

    async with opened(server, lambda: FIRST - 500) as page:
        last = await publish(server, 2)
        await until(lambda: last in page.shown)

    assert ({*range(FIRST, last + 1)}, set()) == (page.shown, page.lost)
    assert (1, 2) == (page.resets, page.loads)


async def test_a_restart_that_loses_the_log_is_a_reset_and_another_state(serve: Serve) -> None:
    server = serve(first_number=FIRST, drain_seconds=0.1)
    await publish(server, 3)

    async with opened(server, lambda: server.manager.window.latest) as page:
        await asyncio.to_thread(server.restart)
        last = await publish(server, 2)
        await until(lambda: page.loads == 2 and last in page.shown)

    assert {*range(FIRST, last + 1)} == page.shown
    assert (1, 2) == (page.resets, page.loads)


@asynccontextmanager
async def two_nodes(server: RedisServer, url: str) -> AsyncIterator[tuple[LiveServer, LiveServer, FaultProxy]]:
    """Run two nodes. The second one reaches Redis through a proxy."""
    port = urlsplit(server.url).port
    assert port is not None
    async with FaultProxy("127.0.0.1", port).serving() as proxy:
        urls = (url, url.replace(f":{port}", f":{proxy.port}"))
        nodes = [
            LiveServer(settings=Settings.load(jwt_secret=SECRET, log_url=each, first_number=FIRST)) for each in urls
        ]
        for node in nodes:
            await asyncio.to_thread(node.start)
        try:
            yield nodes[0], nodes[1], proxy
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)


@pytest.mark.parametrize("newer", ["state", "connection"])
async def test_a_page_whose_state_and_connection_are_of_two_nodes_misses_nothing(
    newer: str, redis_server: RedisServer, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with two_nodes(redis_server, new_url("redis", request, tmp_path)) as (ahead, behind, proxy):
        await publish(ahead, 3)
        await until(lambda: behind.manager.window.latest == ahead.manager.window.latest)
        away = asyncio.create_task(proxy.partition(PATIENCE))
        await publish(ahead, 5)
        assert behind.manager.window.latest < ahead.manager.window.latest
        state, connection = (ahead, behind) if newer == "state" else (behind, ahead)
        number = state.manager.window.latest

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            away.cancel()
            if newer == "state":
                proxy.calm()
            reading = tasks.create_task(shown_on(connection, number, FIRST + 9))
            await publish(ahead, 2)
        proxy.calm()

    assert {*range(FIRST, FIRST + 10)} == reading.result().shown
    assert (set(), 1) == (reading.result().lost, reading.result().loads)


async def shown_on(server: LiveServer, number: int, last: int) -> Page:
    """Return a page that loaded a state with this number, and was connected until it showed the last message."""
    async with opened(server, lambda: number) as page:
        await until(lambda: last in page.shown)
    return page
