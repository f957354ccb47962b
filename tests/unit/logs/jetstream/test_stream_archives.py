"""Reading what the server keeps beyond the tail."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engines import NatsServer
from places import Place
from unit.logs.test_base import about, publish_others, verdicts
from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Outcome
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.archive_streams import archive_streams
from unmissed.logs.jetstream.engine import JetStreamEngine
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import api_request, error_code
from unmissed.logs.jetstream.stream import StreamInfo
from unmissed.logs.jetstream.stream_archives import StreamArchives

pytestmark = pytest.mark.live

RULES = Retention(max_messages=20, rules=(Rule("rooms.*", 10, 3_600.0),))


@pytest.fixture
def place(nats_server: NatsServer) -> Place:
    """Return a place without a log."""
    return Place(f"{nats_server.url}?name=test-{secrets.token_hex(8)}")


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(StreamAddress.of(place.url))
    await connection.open()
    yield connection
    await connection.close()


async def delete_stream(place: Place) -> None:
    """Delete the stream alone. The server fills the archives again about ten seconds after there is a new one."""
    async with connected(place) as connection:
        answer = await connection.ask(api_request(f"STREAM.DELETE.{StreamAddress.of(place.url).name}"))
    assert None is error_code(answer)


async def test_an_archive_that_is_not_filled_in_time_is_the_reason_why_the_log_is_unavailable(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    await place.close(log)
    await delete_stream(place)
    log, window = await place.open(retention=RULES)
    await log.publish([about(1, topics=["rooms.a"])])
    address = StreamAddress.of(place.url)

    async with connected(place) as connection:
        answer = await connection.ask(api_request(f"STREAM.INFO.{address.name}"))
        stream = StreamInfo.of(answer, address, RULES)
        archives = StreamArchives(connection, stream, address, RULES, before=window.latest, lag_seconds=0.0)
        with pytest.raises(LogUnavailable, match=f"{address.name}-.* has not received in 0 s"):
            await archives.read()
    await place.close_all()


@pytest.mark.nightly
async def test_messages_of_an_earlier_epoch_are_not_read(place: Place) -> None:
    log, first = await place.open(retention=RULES)
    await log.publish([about(1, topics=["rooms.a"]), about(2, topics=["rooms.a"], key="cart")])
    await publish_others(log)
    await place.close(log)
    # A node that starts waits until the archives are filled.
    log, filled = await place.open(retention=RULES)
    await place.close(log)
    await delete_stream(place)

    log, second = await place.open(retention=RULES)
    await publish_others(log)
    await place.close(log)
    _, third = await place.open(retention=RULES)

    assert {"#lobby", "#rooms.a"} == {message.audience.first for message in filled}
    assert first.epoch != second.epoch == third.epoch
    assert {"#lobby"} == {message.audience.first for message in third}
    await place.close_all()


async def test_all_nodes_file_by_the_rules_of_the_one_that_started_last(place: Place) -> None:
    """As while nodes with other rules are deployed one after the other."""
    old, before = await place.open(retention=Retention(max_messages=20))
    await old.publish([about(1, topics=["rooms.a"])])
    new, _ = await place.open(retention=RULES)

    start = (await old.publish([about(2, topics=["rooms.a"])])).receipt.first - 1
    await publish_others(new)
    await place.close_all()
    _, after = await place.open(retention=RULES)

    assert ["2"] == [str(message.as_dict()["data"]) for message in after if message.audience.first == "#rooms.a"]
    assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(after, [before.first_number - 1, start], {"#rooms.a"})
    await place.close_all()


async def test_a_node_waits_until_the_server_has_filled_the_archives(place: Place) -> None:
    """Publishing as much as the tail has takes the server longer than a node needs to start."""
    log, before = await place.open(retention=RULES)
    for round_ in range(5):
        await log.publish([about(number, topics=["rooms.a"], key=f"{round_} {number}") for number in range(500)])

    _, after = await place.open(retention=RULES)

    assert 2_500 == len(before) == len(after)
    await place.close_all()


async def test_what_an_archive_has_no_room_for_is_lost_for_every_client(place: Place) -> None:
    small = Retention(max_messages=20, max_bytes=20_000, rules=(Rule("rooms.*", 10_000, 3_600.0),))
    log, window = await place.open(retention=small)
    for number in range(0, 600, 100):
        await log.publish([about(each, topics=["rooms.a"]) for each in range(number, number + 100)])
    engine = JetStreamEngine(StreamAddress.of(place.url), retention=small)
    await engine.connect()
    await engine.state(None)

    archive = await engine.archive(before=window.latest)

    assert window.first_number < archive.unknown == archive.records[0].number - 1
    await engine.close()
    await place.close_all()


async def test_a_value_whose_pieces_are_no_longer_kept_is_not_whole(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    text = {"topics": ["rooms.a"], "key": "text"}
    await log.publish([about(1, **text), about(2, append=True, **text), about(3, topics=["rooms.a"], key="cart")])
    await log.publish([about(number, topics=["rooms.a"]) for number in range(20)])
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert ["text", "cart"] == [message.key for message in after if message.key is not None]
    assert ["cart"] == [message.key for message in after if message.key is not None and after.is_whole(message)]
    await place.close_all()


async def test_the_tail_is_left_to_the_reader_of_the_tail(place: Place) -> None:
    log, window = await place.open(retention=RULES)
    await log.publish([about(number, topics=["rooms.a"]) for number in range(6)])
    engine = JetStreamEngine(StreamAddress.of(place.url), retention=RULES)
    await engine.connect()
    await engine.state(None)

    archive = await engine.archive(before=window.first_number + 2)

    assert [window.first_number, window.first_number + 1] == [record.number for record in archive.records]
    await engine.close()
    await place.close_all()


async def test_values_alone_are_kept_without_rules(place: Place) -> None:
    plain = Retention(max_messages=20)
    log, _ = await place.open(retention=plain)
    await log.publish([about(1, topics=["a"], key="cart"), about(2, topics=["a"], key="cart"), about(3, topics=["a"])])
    await asyncio.gather(*(log.publish([about(4, topics=["b"])]) for _ in range(100)))
    await place.close(log)

    _, after = await place.open(retention=plain)

    assert [2] == [message.as_dict()["data"] for message in after if message.audience.first == "#a"]
    assert ["values"] == [
        config["name"].rpartition("-")[2] for config in archive_streams(StreamAddress.of(place.url), plain)
    ]
    await place.close_all()
