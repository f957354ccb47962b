"""The relay: from an outbox to a log, once and in order."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from engines import PostgresServer
from support import until
from unmissed.core.errors import ConfigurationError, InvalidMessage, LogUnavailable, TooManyRequests
from unmissed.core.messages import Draft
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.schema import create_schema
from unmissed.transactions.relay import Relay

pytestmark = pytest.mark.live


class RecordingLog:
    """A log that keeps what it was given, by idempotency key."""

    def __init__(self, *failures: Exception) -> None:
        self.batches: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.failures = deque(failures)
        """Raised one after another once the messages are stored."""
        self.refused = ""
        """The type of messages that it refuses."""

    async def publish(self, drafts: Sequence[Draft], key: str) -> None:
        self.calls.append(key)
        types = [draft.stamp(1, timestamp="", now=0.0).type for draft in drafts]
        if self.refused in types:
            raise InvalidMessage("no room for it in any log")
        assert types == self.batches.setdefault(key, types)
        if self.failures:
            raise self.failures.popleft()

    @property
    def types(self) -> list[str]:
        return [name for batch in self.batches.values() for name in batch]


class OutboxPlace:
    """An outbox of its own, and a connection of an application."""

    def __init__(self, server: PostgresServer, name: str, connection: Any) -> None:
        self._url = server.url
        self.name = name
        self.connection = connection

    @asynccontextmanager
    async def relay(self, log: RecordingLog, *, options: str = "", max_messages: int = 500) -> AsyncIterator[Relay]:
        address = DatabaseAddress.of(f"{self._url}?name={self.name}{options}", setting="UNMISSED_OUTBOX_URL")
        relay = Relay(address, publish=log.publish, max_messages=max_messages, max_message_bytes=65_536)
        await relay.start()
        yield relay
        await relay.stop()

    async def publish(self, *types: str) -> None:
        await self.connection.execute(f'SELECT "{self.name}".publish(type) FROM unnest($1::text[]) AS type', types)

    async def left(self) -> int:
        count: int = await self.connection.fetchval(f'SELECT count(*) FROM "{self.name}".outbox')
        return count

    async def until_empty(self) -> None:
        while await self.left():
            await asyncio.sleep(0.01)


@pytest.fixture
async def place(postgres_server: PostgresServer) -> AsyncIterator[OutboxPlace]:
    connection = await asyncpg.connect(postgres_server.url)
    name = f"outbox-{secrets.token_hex(8)}"
    await create_schema(connection, name, "outbox")
    yield OutboxPlace(postgres_server, name, connection)
    await connection.close()


async def test_messages_are_moved_in_order(place: OutboxPlace) -> None:
    log = RecordingLog()
    names = [f"n{number}" for number in range(250)]
    await place.publish(*names)

    async with place.relay(log):
        await place.until_empty()
        await place.publish("later")
        await until(lambda: "later" in log.types)

    assert [*names, "later"] == log.types
    assert 100 == max(map(len, log.batches.values()))


async def test_a_batch_fits_into_the_log(place: OutboxPlace) -> None:
    log = RecordingLog()
    await place.publish(*(f"n{number}" for number in range(25)))

    async with place.relay(log, max_messages=10):
        await place.until_empty()

    assert 10 == max(map(len, log.batches.values()))


async def test_a_batch_whose_answer_is_lost_is_repeated_under_the_same_key(place: OutboxPlace) -> None:
    log = RecordingLog(LogUnavailable("the answer was lost"))
    await place.publish("a", "b")

    async with place.relay(log) as relay:
        await until(lambda: relay.problem)
        await place.publish("c")
        await place.until_empty()
        await until(lambda: relay.problem is None)

    assert ["a", "b", "c"] == log.types
    assert 3 == len(log.calls)
    assert 2 == len(set(log.calls))


async def test_a_node_that_goes_on_after_a_crash_repeats_the_same_batch(place: OutboxPlace) -> None:
    log = RecordingLog(TooManyRequests("as if the node had ended here", retry_after=1.0))
    await place.publish("a", "b")

    async with place.relay(log):
        await until(lambda: log.calls)
    await place.publish("c")
    async with place.relay(log):
        await place.until_empty()

    assert ["a", "b", "c"] == log.types


async def test_two_nodes_move_each_message_once(place: OutboxPlace) -> None:
    log = RecordingLog()

    async with place.relay(log) as first, place.relay(log) as second:
        for number in range(30):
            await place.publish(f"n{number}")
            first.wake()
            second.wake()
        await place.until_empty()

    assert [f"n{number}" for number in range(30)] == log.types


async def test_a_message_that_no_log_takes_holds_up_no_other(
    place: OutboxPlace, caplog: pytest.LogCaptureFixture
) -> None:
    log = RecordingLog()
    log.refused = "bad"
    await place.publish("a", "bad", "b")

    async with place.relay(log):
        await place.until_empty()

    assert ["a", "b"] == log.types
    assert "is removed: no room for it in any log" in caplog.text


async def test_a_row_that_is_no_message_is_removed(place: OutboxPlace, caplog: pytest.LogCaptureFixture) -> None:
    log = RecordingLog()
    await place.connection.execute(f"INSERT INTO \"{place.name}\".outbox (draft) VALUES ('no')")
    await place.publish("a")

    async with place.relay(log):
        await place.until_empty()

    assert ["a"] == log.types
    assert "cannot be published" in caplog.text


async def test_a_node_that_is_woken_does_not_wait_for_its_next_look(place: OutboxPlace) -> None:
    log = RecordingLog()

    async with place.relay(log, options="&poll=9999") as relay:
        await until(lambda: relay.problem is None)
        await place.publish("woken")
        relay.wake()
        await until(lambda: log.types)

    assert ["woken"] == log.types


async def test_an_outbox_that_is_dropped_is_created_again(place: OutboxPlace) -> None:
    log = RecordingLog()

    async with place.relay(log):
        await place.connection.execute(f'DROP SCHEMA "{place.name}" CASCADE')
        exists = "SELECT count(*) FROM pg_tables WHERE schemaname = $1"
        while not await place.connection.fetchval(exists, place.name):
            await asyncio.sleep(0.01)
        await place.publish("again")
        await until(lambda: log.types)

    assert ["again"] == log.types


async def test_the_schema_of_a_log_is_no_outbox(place: OutboxPlace, postgres_server: PostgresServer) -> None:
    name = f"log-{secrets.token_hex(8)}"
    await create_schema(place.connection, name, "log")

    with pytest.raises(ConfigurationError, match="is of a log, not of an outbox"):
        async with OutboxPlace(postgres_server, name, place.connection).relay(RecordingLog()):
            pass
