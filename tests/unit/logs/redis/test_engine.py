"""Redis: restarts with and without persistence, old copies, and what a node sees of them."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis

from engines import RedisSentinel, RedisServer
from places import Place
from support import until
from unit.logs.test_base import RecordingListener, drafts, numbers, payloads, until_reached
from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome
from unmissed.logs.base import Log
from unmissed.logs.redis.engine import RedisEngine
from unmissed.logs.redis.redis_clients import client_factory
from unmissed.logs.shared_log import SharedLog

pytestmark = pytest.mark.live


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis of this test alone, which keeps everything over a restart."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis that keeps nothing over a restart."""
    with RedisServer(tmp_path, persistent=False) as server:
        yield server


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


async def until_available(log: Log) -> None:
    await until(lambda: log.unavailable is None)


async def until_unavailable(log: Log) -> str:
    await until(lambda: log.unavailable)
    return str(log.unavailable)


async def test_a_restart_that_kept_everything_continues_the_epoch(server: RedisServer, places: list[Place]) -> None:
    log, window = await at(server.url, places).open()
    listener = RecordingListener()
    log.subscribe(listener)
    first = await log.publish(drafts(3), idempotency_key="key")
    epoch = window.epoch

    server.kill()
    waiting = asyncio.ensure_future(log.publish(drafts(1)))
    await until_unavailable(log)
    server.start()
    second = await waiting
    again = await log.publish(drafts(3), idempotency_key="key")

    assert epoch == window.epoch == second.receipt.epoch
    assert first.receipt.first + 3 < second.receipt.first == window.latest
    assert Outcome.COMPLETE is window.locate(first.receipt.first - 1).outcome
    assert 4 == len(window)
    assert first.receipt == again.receipt
    assert "restart" not in listener.calls
    await until_available(log)


async def test_a_restart_that_lost_everything_begins_an_epoch_with_higher_numbers(
    forgetful: RedisServer, places: list[Place]
) -> None:
    log, window = await at(forgetful.url, places).open()
    listener = RecordingListener()
    log.subscribe(listener)
    await log.publish(drafts(3))
    epoch, latest = window.epoch, window.latest

    forgetful.kill()
    forgetful.start()
    publication = await log.publish(drafts(1, of="new"))

    assert "restart" in listener.calls
    assert epoch != window.epoch == publication.receipt.epoch
    assert latest + 1 < window.first_number == publication.receipt.first
    assert Outcome.RESET is window.locate(latest).outcome
    assert [publication.messages[0].payload] == payloads(window)


async def test_a_store_that_is_emptied_begins_an_epoch(server: RedisServer, places: list[Place]) -> None:
    log, window = await at(server.url, places).open()
    await log.publish(drafts(3))
    epoch, latest = window.epoch, window.latest

    with Redis(port=server.port) as redis:
        redis.flushall()
    publication = await log.publish(drafts(1))

    assert epoch != window.epoch
    assert latest + 1 < publication.receipt.first


async def test_an_old_copy_that_takes_over_uses_no_number_again(server: RedisServer, places: list[Place]) -> None:
    """A node that has seen less than the others publishes first, after a failover to a copy that lost the newest."""
    ahead_log, ahead = await at(server.url, places).open()
    behind_place = at(server.url, places)
    behind_log, _ = await behind_place.open()
    await ahead_log.publish(drafts(5))
    await behind_place.close(behind_log)
    copy = server.folder.with_name("copy")
    shutil.copytree(server.folder, copy)
    await ahead_log.publish(drafts(5, of="lost "))
    lost = ahead.latest

    server.kill()
    shutil.rmtree(server.folder)
    shutil.copytree(copy, server.folder)
    server.start()
    behind_log, behind = await behind_place.open()
    publication = await behind_log.publish(drafts(1, of="new"))
    await until_reached(ahead, publication.receipt.first)

    assert lost + 1 < publication.receipt.first
    assert ahead.epoch == behind.epoch == publication.receipt.epoch
    assert payloads(ahead) == payloads(behind)
    for window in (ahead, behind):
        assert Outcome.RESET is window.locate(lost).outcome


async def test_a_new_epoch_in_which_nothing_is_published_reaches_every_node(
    server: RedisServer, places: list[Place]
) -> None:
    place = at(server.url, places)
    log, window = await place.open()
    await log.publish(drafts(3))
    before = window.epoch, window.latest

    with Redis(port=server.port) as redis:
        redis.flushall()
    _, other = await place.open()
    await until(lambda: window.epoch != before[0])

    assert window.epoch == other.epoch
    assert before[1] < window.first_number - 1


async def test_numbers_with_other_messages_than_a_node_has_seen_end_the_epoch(
    server: RedisServer, places: list[Place]
) -> None:
    """A node was frozen while an old copy took over, and more was published since than it had seen."""
    log, window = await at(server.url, places).open()
    await log.publish(drafts(5))
    epoch, latest = window.epoch, window.latest

    with Redis(port=server.port) as redis:
        [(entry_id, fields)] = redis.xrevrange("{unmissed}:messages", count=1)
        redis.xtrim("{unmissed}:messages", minid=latest + 1, approximate=False)
        redis.delete("{unmissed}:messages")
        redis.xadd("{unmissed}:messages", {**fields, b"ms": b"1"}, id=entry_id)
        redis.client_kill_filter(_type="normal", skipme=True)
    publication = await log.publish(drafts(1))

    assert epoch != publication.receipt.epoch == window.epoch
    assert latest + 1 < publication.receipt.first


async def test_what_is_published_while_connections_break_is_stored_once(
    server: RedisServer, places: list[Place]
) -> None:
    log, window = await at(server.url, places).open()

    async def publish(name: int) -> None:
        await log.publish(drafts(1, of=f"{name}-"))

    with Redis(port=server.port) as redis:
        for _ in range(20):
            publishes = [asyncio.ensure_future(publish(name)) for name in range(10)]
            await asyncio.sleep(0)  # Until they are on their way.
            redis.client_kill_filter(_type="normal", skipme=True)
            async with asyncio.timeout(10):
                await asyncio.gather(*publishes)

    assert 200 == len(window)
    assert [*range(window.first_number, window.first_number + 200)] == numbers(
        [*window.messages_after(window.first_number - 1)]
    )


async def test_a_node_that_fell_behind_the_stored_messages_declares_the_gap(
    server: RedisServer, places: list[Place]
) -> None:
    place = at(server.url, places)
    slow_log, behind = await place.open(retention=Retention(max_messages=100))
    fast_log, ahead = await place.open(retention=Retention(max_messages=100))
    ready = asyncio.Event()

    class SlowListener(RecordingListener):
        async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:  # noqa: ARG002
            await ready.wait()

    slow_log.subscribe(SlowListener())
    for _ in range(10):
        await fast_log.publish(drafts(100))
    ready.set()
    await until_reached(behind, ahead.latest)

    assert ahead.latest == behind.latest
    assert payloads(ahead) == payloads(behind)
    assert Outcome.GAP is behind.locate(behind.first_number).outcome


async def test_holes_of_a_damaged_stream_are_skipped(server: RedisServer, places: list[Place]) -> None:
    place = at(server.url, places)
    log, window = await place.open()
    first = (await log.publish(drafts(6))).receipt.first
    await place.close(log)
    with Redis.from_url(server.url) as redis:
        assert 2 == redis.xdel("{unmissed}:messages", f"{first + 1}-0", f"{first + 4}-0")

    log, window = await place.open()
    await log.publish(drafts(1))

    assert [first + 5, first + 6] == numbers([*window])
    assert Outcome.GAP is window.locate(first).outcome
    assert Outcome.COMPLETE is window.locate(first + 4).outcome


async def test_a_server_that_is_away_is_told_without_its_password(server: RedisServer, places: list[Place]) -> None:
    with Redis(port=server.port) as redis:
        redis.config_set("requirepass", "secret-word")
    url = f"redis://:secret-word@127.0.0.1:{server.port}/0"
    log, window = await at(url, places).open()
    await log.publish(drafts(1))

    server.kill()
    reason = await until_unavailable(log)

    assert f"redis://127.0.0.1:{server.port}/0: " in reason
    assert "secret-word" not in reason
    assert 1 == len(window)
    server.start()
    with Redis(port=server.port) as redis:
        redis.config_set("requirepass", "secret-word")
    await until_available(log)


async def test_a_wrong_password_is_refused_at_the_start(server: RedisServer, places: list[Place]) -> None:
    with Redis(port=server.port) as redis:
        redis.config_set("requirepass", "secret-word")

    with pytest.raises(ConfigurationError, match="refuses the login") as refusal:
        await at(f"redis://:wrong-word@127.0.0.1:{server.port}", places).open()

    assert "wrong-word" not in str(refusal.value)


async def test_a_server_without_memory_refuses_messages_and_keeps_those_it_has(
    server: RedisServer, places: list[Place]
) -> None:
    log, window = await at(server.url, places).open()
    await log.publish(drafts(1))

    with Redis(port=server.port) as redis:
        redis.config_set("maxmemory", 1)
        waiting = asyncio.ensure_future(log.publish(drafts(1)))
        reason = await until_unavailable(log)
        redis.config_set("maxmemory", 0)
    publication = await waiting

    assert "memory" in reason
    assert window.first_number + 1 == publication.receipt.first


@pytest.mark.long
async def test_a_sentinel_leads_to_the_next_master(tmp_path: Path, places: list[Place]) -> None:
    with RedisSentinel(tmp_path) as sentinel:
        log, window = await at(sentinel.url, places).open()
        await log.publish(drafts(3))
        sentinel.until_replicated()
        epoch = window.epoch

        sentinel.master.kill()
        async with asyncio.timeout(30):
            publication = await log.publish(drafts(1))

        assert epoch == publication.receipt.epoch
        assert window.first_number + 3 < publication.receipt.first
        assert Outcome.COMPLETE is window.locate(window.first_number).outcome


async def test_nothing_that_answers_is_refused_at_the_start() -> None:
    url = "redis://127.0.0.1:1"
    connect = client_factory(url, tls={})
    engine = RedisEngine(connect, shown=url, name="unmissed", retention=Retention(), first_number=None)

    with pytest.raises(ConfigurationError, match=re.escape("redis://127.0.0.1:1: ")):
        await SharedLog(engine, open_seconds=0.2).open()
