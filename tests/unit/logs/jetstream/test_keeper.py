"""Which numbers a node uses that starts after others have ended, on real servers."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from engines import NatsServer
from unit.logs.test_base import drafts
from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Seen, State
from unmissed.logs.feed import Record
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.engine import JetStreamEngine
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import api_request
from unmissed.logs.writer import Stored, Write

pytestmark = pytest.mark.live


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a NATS server for one test."""
    with NatsServer(tmp_path) as server:
        yield server


class Node:
    """A node that has started. It ends without closing when its server is killed."""

    def __init__(self, engine: JetStreamEngine, state: State) -> None:
        self.engine = engine
        self.state = state
        self.seen = Seen(state.epoch, state.latest, 0)

    @classmethod
    async def start(cls, url: str) -> "Node":
        """Start, and wait for reports of other nodes for as short a time as possible."""
        engine = JetStreamEngine(StreamAddress.of(url), retention=Retention(), settle_seconds=0.1)
        await engine.connect()
        return cls(engine, await engine.state(None))

    async def publish(self, count: int = 1, *, key: str | None = None) -> Stored:
        """Store one publish."""
        fingerprint = b"of the drafts"
        write = Write(drafts(count), key, fingerprint, asyncio.get_running_loop().create_future())
        [stored] = await self.engine.write([write], self.seen)
        assert isinstance(stored, Stored)
        self.seen = Seen(self.seen.epoch, max(self.seen.latest, stored.receipt.first + count - 1), 0)
        return stored

    async def read(self, after: int, *, through: int) -> list[Record]:
        """Return the messages after a number, up to another one."""
        records = list[Record]()
        async with asyncio.timeout(10), aclosing(self.engine.read(after)) as blocks:
            async for block in blocks:
                records += block
                if records and records[-1].number >= through:
                    break
        return records

    async def look_again(self) -> State:
        """Return the state after a restart of the server, which the first attempt may find."""
        while True:
            with suppress(LogUnavailable):
                return await self.engine.state(self.seen)

    async def listen_again(self) -> None:
        """Connect again for notes, without a look at the stream."""
        while True:
            with suppress(LogUnavailable):
                async with aclosing(self.engine.receive()) as notes:
                    assert b"" == await anext(notes)
                    return

    async def close(self) -> None:
        """Close in order, if the server is running."""
        await self.engine.close()


def numbers(records: list[Record]) -> list[int]:
    return [record.number for record in records]


async def restart(server: NatsServer) -> None:
    """End the server in order, and start it again."""
    await server.terminate()
    server.start()


def roll_back(server: NatsServer, copy: Path) -> None:
    """Kill the server, and start it with an older copy of its store."""
    server.kill()
    shutil.rmtree(server.store)
    shutil.copytree(copy, server.store)
    server.start()


async def test_a_node_that_starts_after_all_have_closed_goes_on_with_the_next_number(server: NatsServer) -> None:
    first = await Node.start(server.url)
    stored = await first.publish(3)
    await first.close()

    second = await Node.start(server.url)

    assert (first.state.epoch, stored.receipt.first + 2, 0) == (
        second.state.epoch,
        second.state.latest,
        second.state.lost,
    )
    assert stored.receipt.first + 3 == (await second.publish()).receipt.first
    await second.close()


async def test_a_node_that_starts_after_a_crash_of_all_goes_on_if_the_server_has_not_restarted(
    server: NatsServer,
) -> None:
    crashed = await Node.start(server.url)
    stored = await crashed.publish()

    node = await Node.start(server.url)

    assert 0 == node.state.lost
    assert stored.receipt.first + 1 == (await node.publish()).receipt.first
    await node.close()
    await crashed.close()


async def test_after_an_orderly_restart_of_everything_nothing_counts_as_lost(server: NatsServer) -> None:
    """The numbers skip ahead all the same: the store may be a copy that was made before the last node started."""
    first = await Node.start(server.url)
    stored = await first.publish(3)
    await first.close()
    await restart(server)
    before = time.time() * 1e6

    second = await Node.start(server.url)
    later = await second.publish()
    records = await second.read(stored.receipt.first, through=later.receipt.first)
    again = await Node.start(server.url)

    last = stored.receipt.first + 2
    assert (first.state.epoch, last, 0) == (second.state.epoch, second.state.latest, second.state.lost)
    assert before < later.receipt.first
    assert [last - 1, last, later.receipt.first] == numbers(records)
    assert [True, True, True] == [
        record.continues(number) for record, number in zip(records, [last - 2, last - 1, last], strict=True)
    ]
    assert (later.receipt.first, 0) == (again.state.latest, again.state.lost)
    for each in (second, again):
        await each.close()


async def test_an_orderly_restart_of_the_server_below_running_nodes_is_no_loss(server: NatsServer) -> None:
    first = await Node.start(server.url)
    await first.publish()
    await restart(server)
    state = await first.look_again()
    stored = await first.publish()
    await first.close()
    await restart(server)

    second = await Node.start(server.url)

    assert (first.state.latest + 2, 0, 0) == (stored.receipt.first, state.lost, second.state.lost)
    await second.close()


async def test_numbers_skip_ahead_if_the_store_may_have_lost_what_no_node_has_seen(server: NatsServer) -> None:
    crashed = await Node.start(server.url)
    await crashed.publish(3)
    server.kill()
    server.start()
    before = time.time() * 1e6

    node = await Node.start(server.url)
    stored = await node.publish()
    oldest = await node.read(node.state.oldest - 1, through=stored.receipt.first)

    assert crashed.state.epoch == node.state.epoch
    assert before < node.state.lost == node.state.latest == stored.receipt.first - 1
    assert [*range(node.state.oldest, node.state.oldest + 3), stored.receipt.first] == numbers(oldest)
    await node.close()
    await crashed.close()


async def test_no_number_is_used_twice_if_the_store_is_an_older_copy(server: NatsServer, tmp_path: Path) -> None:
    used = list[int]()
    for turn in range(3):
        node = await Node.start(server.url)
        used.append((await node.publish()).receipt.first)
        copy = shutil.copytree(server.store, tmp_path / f"copy {turn}")
        used += [(await node.publish()).receipt.first for _ in range(5)]
        roll_back(server, copy)
        await node.close()

    node = await Node.start(server.url)

    assert sorted(set(used)) == used
    assert used[-1] < node.state.lost
    assert [used[0], used[6], used[12]] == numbers(await node.read(used[0] - 1, through=used[12]))
    await node.close()


async def test_the_record_of_a_close_counts_only_for_the_end_of_the_stream_that_it_names(
    server: NatsServer, tmp_path: Path
) -> None:
    first = await Node.start(server.url)
    await first.publish()
    copy = shutil.copytree(server.store, tmp_path / "copy")
    await first.publish()
    await first.close()
    server.kill()
    [old], [new] = copy.rglob("unmissed-life"), server.store.rglob("unmissed-life")
    shutil.rmtree(old)
    shutil.copytree(new, old)
    roll_back(server, copy)

    second = await Node.start(server.url)

    assert first.seen.latest < second.state.lost
    await second.close()


async def test_the_record_of_a_close_ends_with_the_next_start(server: NatsServer) -> None:
    closed = await Node.start(server.url)
    await closed.publish()
    await closed.close()
    crashed = await Node.start(server.url)
    server.kill()
    server.start()

    node = await Node.start(server.url)

    assert closed.seen.latest < node.state.lost
    for each in (node, crashed):
        await each.close()


async def test_only_the_last_node_that_closes_records_it(server: NatsServer) -> None:
    crashed, closed = await Node.start(server.url), await Node.start(server.url)
    await closed.publish()
    await closed.close()
    server.kill()
    server.start()

    node = await Node.start(server.url)

    assert closed.seen.latest < node.state.lost
    for each in (node, crashed):
        await each.close()


async def test_nodes_that_close_at_the_same_time_leave_a_record(server: NatsServer) -> None:
    nodes = [await Node.start(server.url) for _ in range(4)]
    await asyncio.gather(*(node.close() for node in nodes))
    await restart(server)

    node = await Node.start(server.url)

    assert 0 == node.state.lost
    await node.close()


async def test_a_running_node_vouches_for_what_it_has_seen(server: NatsServer) -> None:
    running = await Node.start(server.url)
    stored = await running.publish()
    server.kill()
    server.start()
    await running.listen_again()

    node = await Node.start(server.url)

    assert (stored.receipt.first, 0) == (node.state.latest, node.state.lost)
    for each in (node, running):
        await each.close()


async def test_a_node_that_starts_finds_by_a_running_one_that_the_store_is_older(
    server: NatsServer, tmp_path: Path
) -> None:
    """It does not wait until the running node has noticed: before that, it could use numbers again."""
    running = await Node.start(server.url)
    await running.publish()
    copy = shutil.copytree(server.store, tmp_path / "copy")
    stored = await running.publish()
    await running.read(running.state.latest, through=stored.receipt.first)
    roll_back(server, copy)
    await running.listen_again()

    node = await Node.start(server.url)

    assert running.state.epoch != node.state.epoch
    assert stored.receipt.first < node.state.first_number
    for each in (node, running):
        await each.close()


async def test_a_server_that_loses_nothing_vouches_for_itself(server: NatsServer) -> None:
    crashed = await Node.start(server.url)
    stored = await crashed.publish()
    server.kill()
    server.start()

    node = await Node.start(f"{server.url}?sync=always")

    assert (stored.receipt.first, 0) == (node.state.latest, node.state.lost)
    for each in (node, crashed):
        await each.close()


async def test_a_key_is_known_after_the_numbers_have_skipped_ahead(server: NatsServer) -> None:
    crashed = await Node.start(server.url)
    batch, single = await crashed.publish(3, key="batch"), await crashed.publish(key="single")
    server.kill()
    server.start()

    node = await Node.start(server.url)
    again = [await node.publish(3, key="batch"), await node.publish(key="single")]

    assert 0 < node.state.lost
    assert [batch.receipt, single.receipt] == [each.receipt for each in again]
    assert [False, False] == [each.new for each in again]
    for each in (node, crashed):
        await each.close()


async def test_a_node_that_expects_other_numbers_cannot_write(server: NatsServer) -> None:
    """As one that was suspended while another one started."""
    crashed = await Node.start(server.url)
    await crashed.publish()
    server.kill()
    server.start()
    node = await Node.start(server.url)

    state = await crashed.look_again()
    stored = await crashed.publish()

    assert state.lost == node.state.lost < stored.receipt.first
    for each in (node, crashed):
        await each.close()


async def test_nodes_that_start_at_the_same_time_after_a_loss_use_one_numbering(server: NatsServer) -> None:
    crashed = await Node.start(server.url)
    await crashed.publish()
    server.kill()
    server.start()

    nodes = await asyncio.gather(*(Node.start(server.url) for _ in range(6)))
    stored = await asyncio.gather(*(node.publish() for node in nodes))

    assert 1 == len({node.state.lost for node in nodes})
    first = nodes[0].state.lost + 1
    assert [*range(first, first + 6)] == sorted(each.receipt.first for each in stored)
    for each in (*nodes, crashed):
        await each.close()


@pytest.mark.parametrize("shift", [-2, 2])
async def test_messages_keep_their_numbers_if_segments_begin_elsewhere_than_planned(
    server: NatsServer, shift: int
) -> None:
    """As in a cluster whose new leader has more or fewer messages than the one that was asked."""
    crashed = await Node.start(server.url)
    first = (await crashed.publish(4)).receipt.first
    server.kill()
    server.start()
    node = await Node.start(server.url)
    later = (await node.publish(4)).receipt.first
    connection = NatsConnection(StreamAddress.of(server.url))
    await connection.open()
    config = (await connection.ask(api_request("STREAM.INFO.unmissed")))["config"]
    begin, end = (f"{sequence}:{later - first - 4}:lossy" for sequence in (first + 4, first + 4 + shift))
    numbers_before = config["metadata"]["unmissed-numbers"]
    config["metadata"]["unmissed-numbers"] = numbers_before.replace(begin, end)
    await connection.ask(api_request("STREAM.UPDATE.unmissed", config))
    await connection.close()

    state = await node.look_again()
    everything = await node.read(first - 1, through=later + 3)
    rest = [await node.read(number, through=later + 3) for number in (first + 1, first + 3, later, later + 2)]

    assert begin in numbers_before
    assert later + 3 == state.latest
    assert [*range(first, first + 4), *range(later, later + 4)] == numbers(everything)
    assert [[first + 2, first + 3], [], [later + 1, later + 2, later + 3], [later + 3]] == [
        [number for number in numbers(each) if number < later or index > 1] for index, each in enumerate(rest)
    ]
    for each in (node, crashed):
        await each.close()
