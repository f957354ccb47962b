"""Row 28: the clock of a server jumps, or several clocks differ: keys, ages and gaps do not change."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from redis import Redis

from engines import NatsServer, RedisServer
from places import Place
from unit.logs.test_base import drafts, payloads
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome
from unmissed.logs.jetstream.packets import encode_body

pytestmark = pytest.mark.live

HOUR_MS = 3_600_000


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis of this test alone."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Return an empty place on the server that the test names."""
    server: RedisServer | NatsServer = request.getfixturevalue(request.param)
    place = Place(f"{server.url}?name={secrets.token_hex(8)}")
    yield place
    await place.close_all()


on_redis = pytest.mark.parametrize("place", ["redis_server"], indirect=True)
on_nats = pytest.mark.parametrize("place", ["nats_server"], indirect=True)


def set_forward(server: RedisServer, *, milliseconds: int) -> None:
    """Do to the keys what a clock does that is set forward: they expire so much earlier."""
    with Redis(port=server.port) as redis:
        for key in redis.scan_iter():
            if (left := redis.pttl(key)) > 0:
                redis.pexpire(key, left - milliseconds)
            elif key.endswith(b":life"):
                redis.hincrby(key, "clock", -milliseconds)


@on_redis
@pytest.mark.parametrize("jump", [HOUR_MS, -HOUR_MS], ids=["forward", "back"])
async def test_a_jump_of_the_clock_of_redis_is_no_gap_and_forgets_no_key(
    place: Place, redis_server: RedisServer, jump: int
) -> None:
    log, window = await place.open()
    first = await log.publish(drafts(2), idempotency_key="key")

    set_forward(redis_server, milliseconds=jump)
    later = await log.publish(drafts(1))
    starting, other = await place.open()
    starting.expire()
    again = await starting.publish(drafts(2), idempotency_key="key")

    assert first.receipt == again.receipt
    assert first.receipt.first + 2 == later.receipt.first
    assert payloads(window) == payloads(other)
    assert Outcome.COMPLETE is other.locate(other.first_number - 1).outcome


@on_redis
async def test_a_jump_of_the_clock_of_redis_while_no_node_runs_is_a_gap_and_forgets_no_key(
    place: Place, redis_server: RedisServer
) -> None:
    """Nobody knows whether an hour has passed. The key is kept, since that is safe."""
    log, _ = await place.open()
    first = await log.publish(drafts(2), idempotency_key="key")
    await place.close(log)

    set_forward(redis_server, milliseconds=HOUR_MS)
    log, window = await place.open()
    log.expire()
    again = await log.publish(drafts(2), idempotency_key="key")

    assert first.receipt == again.receipt
    assert (0, Outcome.GAP) == (len(window), window.locate(first.receipt.first).outcome)
    assert Outcome.COMPLETE is window.locate(first.receipt.first + 1).outcome


@on_redis
async def test_the_time_in_which_no_node_runs_counts(place: Place, redis_server: RedisServer) -> None:
    log, _ = await place.open()
    await log.publish(drafts(1))
    await place.close(log)
    set_forward(redis_server, milliseconds=600_000)

    ages = []
    for max_age in (599.0, 700.0):
        log, window = await place.open(retention=Retention(max_age=max_age))
        log.expire()
        ages.append(len(window))
        await place.close(log)

    assert [0, 1] == ages


@on_nats
async def test_messages_from_before_a_jump_of_the_clock_of_nats_are_no_gap(place: Place) -> None:
    """The server stamped the first two before its clock was set forward by an hour, and the last one after it."""
    log, window = await place.open()
    await place.close(log)
    client = await nats.connect(place.url.partition("?")[0])
    now_ms = int(time.time() * 1000)
    for late, name in ((HOUR_MS, "one"), (HOUR_MS, "two"), (0, "three")):
        body = encode_body(
            drafts(1, of=name)[0],
            unix_ms=now_ms - late,
            log_ms=now_ms - HOUR_MS,
            place=1,
            receipt=f"- {name}".encode(),
        )
        await client.request(f"{place.url.partition('=')[2]}.{window.epoch}.{name}.0.-.-", body)
    await client.close()

    log, window = await place.open()
    log.expire()

    assert 3 == len(window)
    assert Outcome.COMPLETE is window.locate(window.first_number - 1).outcome
