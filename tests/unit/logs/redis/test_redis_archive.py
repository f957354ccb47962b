"""The archive in Redis: what it does if a part of it is missing, and how it stays small."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from engines import RedisServer
from places import Place
from unit.logs.test_base import RULES, about, publish_others, ruled, verdicts
from unmissed.core.messages import Draft
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Outcome
from unmissed.logs.engine import Archive, Seen
from unmissed.logs.redis.engine import RedisEngine
from unmissed.logs.redis.redis_clients import client_factory
from unmissed.logs.writer import Stored, Write

pytestmark = pytest.mark.live

PREFIX = "{unmissed}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a Redis of these tests, which is emptied for each."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    """Return a client of the server, which is empty."""
    with Redis(port=server.port) as redis:
        redis.flushall()
        yield redis


@pytest.fixture
async def place(server: RedisServer, redis: Redis) -> AsyncIterator[Place]:  # noqa: ARG001  # it empties the server
    """Return where the log is."""
    place = Place(server.url)
    yield place
    await place.close_all()


class Node:
    """An engine that publishes without a window."""

    def __init__(self, server: RedisServer, retention: Retention) -> None:
        self.engine = RedisEngine(
            client_factory(server.url, tls={}), shown="redis", name="unmissed", retention=retention, first_number=None
        )

    async def publish(self, *drafts: Draft) -> int:
        """Publish a batch, and return the number of its first message."""
        state = await self.engine.state(None)
        write = Write(drafts, None, b"", asyncio.get_running_loop().create_future())
        [stored] = await self.engine.write([write], Seen(state.epoch, state.latest, 0))
        assert isinstance(stored, Stored)
        return stored.receipt.first

    async def archive(self) -> Archive:
        """Return the whole archive."""
        return await self.engine.archive(before=(await self.engine.state(None)).latest + 1)


@asynccontextmanager
async def node_of(server: RedisServer, retention: Retention) -> AsyncIterator[Node]:
    node = Node(server, retention)
    await node.engine.connect()
    try:
        yield node
    finally:
        await node.engine.close()


def data_of(archive: Archive) -> list[int]:
    return [record.message(appended_at=0.0).as_dict()["data"] for record in archive.records]


@pytest.fixture
async def node(server: RedisServer, redis: Redis) -> AsyncIterator[Node]:  # noqa: ARG001  # it empties the server
    """Return an engine with the rules of the contract."""
    async with node_of(server, RULES) as node:
        yield node


PARTS = ["values", "pieces", "shelves", "lost", "shelf:#rooms.*", "shelf:@*"]


@pytest.mark.parametrize("publishes", [False, True], ids=["restart at once", "publish first"])
@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_archive_that_is_missing_is_a_gap_for_every_client(
    place: Place, redis: Redis, part: str, *, publishes: bool
) -> None:
    log, window = await place.open(retention=RULES)
    start = window.latest
    published = [(await log.publish([about(1, topics=["rooms.a"])])).receipt.first]
    published.append((await log.publish([about(2, users=["alice"], key="cart")])).receipt.first)
    await publish_others(log)

    assert 1 == redis.delete(f"{PREFIX}:{part}")
    if publishes:
        batch = [about(3, topics=["rooms.a"]), about(4, users=["alice"], key="other")]
        first = (await log.publish(batch)).receipt.first
        published += [first, first + 1]
        await publish_others(log)
    await place.close(log)
    _, after = await place.open(retention=RULES)

    for keys in ({"#rooms.a"}, {"@alice"}, {"@carol"}):
        assert [Outcome.GAP] == verdicts(after, [start], keys)
        assert [Outcome.COMPLETE] == verdicts(after, [after.latest], keys)
    lost = {*published} - {message.sequence_number for message in after}
    assert not [number for number in lost if after.lost_through(frozenset({"#rooms.a"})) < number]


@pytest.mark.parametrize("publishes", [False, True], ids=["restart at once", "publish first"])
async def test_a_bucket_that_is_missing_is_a_gap_for_its_followers_alone(
    place: Place, redis: Redis, *, publishes: bool
) -> None:
    log, window = await place.open(retention=RULES)
    start = window.latest
    await log.publish([about(1, topics=["rooms.a"]), about(2, topics=["rooms.b"])])
    await publish_others(log)

    assert 1 == redis.delete(f"{PREFIX}:bucket:#rooms.a")
    if publishes:
        await log.publish([about(3, topics=["rooms.a"])])
        await publish_others(log)
    await place.close(log)
    _, after = await place.open(retention=RULES)

    assert [Outcome.GAP] == verdicts(after, [start], {"#rooms.a"})
    assert [Outcome.COMPLETE] == verdicts(after, [start], {"#rooms.b"})


async def test_a_message_in_the_archive_that_cannot_be_read_is_a_gap_and_logged(
    place: Place, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    log, window = await place.open(retention=RULES)
    start = window.latest
    await log.publish([about(1, topics=["rooms.a"]), about(2, topics=["rooms.a"])])
    await publish_others(log)
    await place.close(log)

    redis.lset(f"{PREFIX}:bucket:#rooms.a", 0, f"{start + 1} 1 1 no message")
    _, after = await place.open(retention=RULES)

    assert 1 == len(ruled(after))
    assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(after, [start, start + 1], {"#rooms.a"})
    assert f"message {start + 1} in the archive cannot be read: skipped" in caplog.messages


async def test_an_archive_of_an_epoch_that_has_ended_is_not_read_and_begun_anew(node: Node, redis: Any) -> None:
    await node.publish(about(1, topics=["rooms.a"]), about(2, users=["alice"], key="cart"))
    redis.delete(f"{PREFIX}:life")

    await node.engine.state(None)
    between = await node.archive()
    await node.publish(about(3, topics=["rooms.b"]))
    after = await node.archive()

    assert [] == data_of(between)
    assert [3] == data_of(after)
    assert 0 == redis.exists(f"{PREFIX}:bucket:#rooms.a")


async def test_a_bucket_has_no_more_messages_than_its_rule_keeps(node: Node, redis: Any) -> None:
    first = await node.publish(*(about(number, topics=["rooms.a"]) for number in range(25)))

    assert 10 == redis.llen(f"{PREFIX}:bucket:#rooms.a")
    assert first + 14 == (await node.archive()).lost["#rooms.a"]


async def test_a_rule_that_keeps_fewer_messages_shortens_buckets_in_steps(
    server: RedisServer, node: Node, redis: Redis
) -> None:
    async with node_of(server, Retention(rules=(Rule("rooms.*", 100, 3_600.0), RULES.rules[1]))) as wide:
        await wide.publish(*(about(number, topics=["rooms.a"]) for number in range(100)))

    await node.publish(*(about(number, topics=["rooms.a"]) for number in range(90)))

    assert 10 == redis.llen(f"{PREFIX}:bucket:#rooms.a")


def memory(redis: Any) -> int:
    """Return the bytes of all keys but those of the tail."""
    names = [key for key in redis.keys("*") if key.split(b":")[1] not in (b"life", b"messages", b"receipt")]
    return sum(redis.memory_usage(name) for name in names)


@pytest.mark.parametrize(
    "flood",
    [
        lambda n: about(n, topics=[f"rooms.{n}"], text="x" * 800),
        lambda n: about(n, topics=["rooms.a"], key=f"key-{n}", text="x" * 800),
    ],
    ids=["buckets", "values"],
)
async def test_the_rule_that_takes_most_bytes_makes_room(
    server: RedisServer, redis: Redis, flood: Callable[[int], Draft]
) -> None:
    async with node_of(server, Retention(max_bytes=200_000, rules=RULES.rules)) as node:
        cart = await node.publish(about(-1, users=["alice"], key="cart"))
        for first in range(0, 1_000, 50):
            last = await node.publish(*(flood(number) for number in range(first, first + 50)))
        archive = await node.archive()

    assert cart == archive.records[0].number
    assert 100_000 < sum(len(record.draft.tail) for record in archive.records) < 200_000
    assert 400_000 > memory(redis)
    assert cart < max(archive.lost.values()) < last + 50
    assert "@alice" not in archive.lost


async def test_values_that_are_replaced_take_no_more_room(node: Node, redis: Any) -> None:
    await node.publish(*(about(0, users=["alice"], key=f"key-{number}") for number in range(100)))
    before = memory(redis), redis.hgetall(f"{PREFIX}:shelves")
    for _ in range(20):
        await node.publish(*(about(0, users=["alice"], key=f"key-{number}") for number in range(100)))

    assert before[1] == redis.hgetall(f"{PREFIX}:shelves")
    assert memory(redis) < 1.1 * before[0]


async def test_values_without_a_rule_are_archived_as_long_as_other_messages(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_messages=20))
    await log.publish([about(1, topics=["lobby"], key="topic"), about(2, key="banner")])
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=Retention(max_messages=20))

    assert [1, 2] == [message.as_dict()["data"] for message in after if message.key is not None]


async def test_without_rules_and_keys_there_is_no_archive(server: RedisServer, redis: Any) -> None:
    async with node_of(server, Retention()) as node:
        await node.publish(about(1), about(2, topics=["lobby"]), about(3, users=["alice"]))

    assert {b"life", b"messages", b"receipt"} == {key.split(b":")[1] for key in redis.keys("*")}


def bytes_of(redis: Any) -> tuple[int, Sequence[int]]:
    """Return the bytes that the shelves count, and those that their members count."""
    shelves = redis.hgetall(f"{PREFIX}:shelves")
    return sum(map(int, shelves.values())), [*map(int, redis.hgetall(f"{PREFIX}:bytes").values())]


async def test_the_bytes_are_counted_exactly(node: Node, redis: Any) -> None:
    for number in range(40):
        await node.publish(
            about(number, topics=["rooms.a"]),
            about(number, topics=[f"rooms.{number % 3}"], key="text", append=number % 4 > 0),
            about(number, users=["alice"], key=f"cart-{number % 5}", deleted=number % 7 == 0),
        )
    stored = sum(len(entry) for key in redis.keys(f"{PREFIX}:bucket:*") for entry in redis.lrange(key, 0, -1))
    stored += sum(len(each) for name, each in redis.hgetall(f"{PREFIX}:values").items() if name[:1] != b"e")
    stored += 20 * (redis.hlen(f"{PREFIX}:pieces") - 1)

    total, members = bytes_of(redis)
    assert (stored, stored) == (total, sum(members))
