"""What is known after a restart of Redis: that nothing is lost, that something may be, or that it is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from engines import RedisServer
from unit.logs.test_base import drafts
from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Seen, State
from unmissed.logs.redis.engine import RedisEngine
from unmissed.logs.redis.redis_clients import client_factory
from unmissed.logs.writer import Stored, Write

pytestmark = [pytest.mark.live, pytest.mark.long]

EVERY_SECOND = ["--appendonly", "yes", "--appendfsync", "everysec"]
ALWAYS = ["--appendonly", "yes", "--appendfsync", "always"]
SNAPSHOTS = ["--save", "3600 1"]


class Node:
    """A node without a window."""

    def __init__(self, server: RedisServer) -> None:
        self.engine = RedisEngine(
            client_factory(server.url, tls={}),
            shown="redis",
            name="unmissed",
            retention=Retention(),
            first_number=None,
            settle_ms=200,
        )
        self.seen: Seen | None = None

    async def start(self) -> State:
        """Connect as a new process does, and read everything."""
        await self.engine.connect()
        return self._have(await self.engine.state(None))

    async def report(self) -> State:
        """Ask for the state, as a node does all the time. The first attempt after a restart may fail."""
        with contextlib.suppress(LogUnavailable):
            await self.engine.state(self.seen)
        return self._have(await self.engine.state(self.seen))

    async def publish(self, count: int = 1) -> int:
        """Publish a batch, and return the number of its first message."""
        assert self.seen is not None
        write = Write(drafts(count), None, b"", asyncio.get_running_loop().create_future())
        [stored] = await self.engine.write([write], self.seen)
        assert isinstance(stored, Stored)
        self.seen = Seen(self.seen.epoch, stored.receipt.first + count - 1, 0)
        return stored.receipt.first

    def _have(self, state: State) -> State:
        self.seen = Seen(state.epoch, state.latest, 0)
        return state


Start = Callable[[RedisServer], Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Return a function that starts a node, and returns it with the state that it found."""
    async with AsyncExitStack() as stack:

        async def start(server: RedisServer) -> tuple[Node, State]:
            node = Node(server)
            stack.push_async_callback(node.engine.close)
            return node, await node.start()

        yield start


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis with the options of the test."""
    with RedisServer(tmp_path, persistent=False, options=request.param) as server:
        yield server


async def restart(server: RedisServer) -> None:
    """End the server in order, so that it loses nothing: no node can know that."""
    await server.terminate()
    await server.launch()


def with_options(*options: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", options, indirect=True)


@with_options(EVERY_SECOND)
async def test_without_a_witness_everything_may_be_lost_and_numbers_go_on_at_the_clock(
    server: RedisServer, start: Start
) -> None:
    node, before = await start(server)
    first = await node.publish(3)

    await restart(server)
    other, after = await start(server)
    later = await other.publish()

    assert before.epoch == after.epoch
    assert first + 100_000 < after.lost == after.latest == later - 1  # Microseconds.
    assert first == after.oldest


@with_options(EVERY_SECOND)
async def test_a_node_that_had_the_epoch_vouches_for_it(server: RedisServer, start: Start) -> None:
    node, _ = await start(server)
    first = await node.publish(3)

    await restart(server)
    assert 0 == (await node.report()).lost
    other, after = await start(server)
    later = await other.publish()
    blocks = other.engine.read(first + 2)
    async with aclosing(blocks):
        assert [] == await anext(blocks)
        [record] = await anext(blocks)

    assert (0, first + 2) == (after.lost, after.latest)
    assert first + 3 < later == record.number
    assert record.continues(first + 2)
    for seen, oldest in ((first + 1, first + 2), (first + 2, first + 3), (first - 1, first)):
        assert oldest == (await node.engine.state(Seen(after.epoch, seen, 0))).oldest


@with_options(EVERY_SECOND)
async def test_a_node_that_started_after_the_restart_vouches_for_nothing(server: RedisServer, start: Start) -> None:
    node, before = await start(server)
    first = await node.publish(3)

    await restart(server)
    other = Node(server)
    await other.engine.connect()
    with pytest.raises(TimeoutError):  # It would wait until the nodes before it had time to report.
        await asyncio.wait_for(other.engine.state(None), 0.1)
    other.seen = Seen(before.epoch, first + 2, 0)
    await other.report()
    after = await other.engine.state(None)
    await other.engine.close()

    assert 0 < after.lost


@with_options(EVERY_SECOND)
async def test_a_witness_that_reports_late_follows(server: RedisServer, start: Start) -> None:
    node, before = await start(server)
    await node.publish(3)

    await restart(server)
    _, after = await start(server)
    late = await node.report()

    assert (before.epoch, after.lost) == (late.epoch, late.lost)


@with_options(EVERY_SECOND)
async def test_a_late_witness_of_a_message_that_was_lost_although_another_node_vouched_ends_the_epoch(
    server: RedisServer, start: Start
) -> None:
    node, before = await start(server)
    first = await node.publish(3)
    await restart(server)
    await node.report()
    other, _ = await start(server)
    later = await other.publish()

    late = await node.engine.state(Seen(before.epoch, first + 100, 1))

    assert before.epoch != late.epoch
    assert later < late.first_number


@with_options(EVERY_SECOND, SNAPSHOTS)
async def test_an_orderly_close_vouches_once(server: RedisServer, start: Start) -> None:
    node, _ = await start(server)
    first = await node.publish(3)
    await node.engine.close()
    await restart(server)

    other, after = await start(server)
    later = await other.publish()
    with Redis(port=server.port) as redis:
        redis.save()
    await restart(server)
    _, last = await start(server)

    assert (0, first + 2) == (after.lost, after.latest)
    assert first + 2 < later < last.lost


@with_options(EVERY_SECOND)
async def test_the_mark_of_a_close_is_gone_from_the_disk_before_a_message_is_stored(
    server: RedisServer, start: Start
) -> None:
    """Even if another node runs that did not listen for a moment."""
    node, _ = await start(server)
    await node.publish()
    other, _ = await start(server)
    await node.engine.close()
    with Redis(port=server.port) as redis:
        assert redis.hexists("{unmissed}:life", "closed")

        with pytest.raises(LogUnavailable, match="was restarted or replaced"):
            await other.publish()

        assert not redis.hexists("{unmissed}:life", "closed")
        wait_ms = float(str(redis.hget("{unmissed}:life", "settle_until"), "ascii")) - redis.time()[0] * 1000
    assert 500 < wait_ms <= 3_000


@with_options(EVERY_SECOND)
async def test_a_node_that_closes_while_others_listen_leaves_no_mark(server: RedisServer, start: Start) -> None:
    node, _ = await start(server)
    await node.publish()
    other, _ = await start(server)
    async with aclosing(other.engine.receive()) as notes:
        assert b"" == await anext(notes)

        await node.engine.close()

    with Redis(port=server.port) as redis:
        assert not redis.hexists("{unmissed}:life", "closed")
    await other.publish()


@with_options(
    [*SNAPSHOTS, "--rename-command", "BGSAVE", ""],
    [*EVERY_SECOND, "--rename-command", "CONFIG", ""],
    ["--appendonly", "yes", "--appendfsync", "no"],
    ["--save", ""],
    ALWAYS,
)
async def test_a_close_leaves_no_mark_where_it_could_not_be_removed_for_certain_or_is_not_needed(
    server: RedisServer, start: Start
) -> None:
    node, _ = await start(server)
    await node.publish()

    await node.engine.close()

    with Redis(port=server.port) as redis:
        assert not redis.hexists("{unmissed}:life", "closed")


@with_options(ALWAYS)
async def test_a_server_that_keeps_all_that_it_answers_needs_no_witness(server: RedisServer, start: Start) -> None:
    node, _ = await start(server)
    first = await node.publish(3)

    await restart(server)
    other, after = await start(server)

    assert (0, first + 2) == (after.lost, after.latest)
    assert first + 3 < await other.publish()


@with_options(ALWAYS)
async def test_messages_of_a_time_when_the_server_could_lose_them_are_not_vouched_for(
    server: RedisServer, start: Start
) -> None:
    with Redis(port=server.port) as redis:
        redis.config_set("appendfsync", "everysec")
    node, _ = await start(server)
    await node.publish(3)

    await restart(server)
    _, after = await start(server)

    assert 0 < after.lost


async def test_a_replica_that_takes_over_may_lack_the_newest_messages(tmp_path: Path, start: Start) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        RedisServer(tmp_path / "one") as primary,
        RedisServer(tmp_path / "two", options=["--replicaof", "127.0.0.1", str(primary.port)]) as replica,
        Redis(port=primary.port) as one,
        Redis(port=replica.port) as two,
    ):
        one.config_set("repl-diskless-sync-delay", 0)
        node, _ = await start(primary)
        await node.publish(3)
        # The server waits for the writes of this client alone.
        one.set("written", "after the messages")
        while not one.wait(1, 100):
            pass

        two.replicaof("NO", "ONE")
        _, after = await start(replica)

    assert 0 < after.lost


@with_options(EVERY_SECOND)
async def test_a_clock_that_was_set_back_delays_nothing(server: RedisServer, start: Start) -> None:
    await start(server)
    with Redis(port=server.port) as redis:
        redis.hset("{unmissed}:life", "settle_until", str((redis.time()[0] + 3_600) * 1000))

    async with asyncio.timeout(10):
        await start(server)
