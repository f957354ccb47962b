"""The upkeep of a log in PostgreSQL, on planted rows: what is trimmed, archived, declared lost, and read again."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import asyncpg
import pytest

from engines import PostgresServer
from support import FIRST
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention, rules_from
from unmissed.core.window import Earlier, Window
from unmissed.logs.codec import decode_draft, encode_draft
from unmissed.logs.engine import Archive
from unmissed.logs.feed import Record
from unmissed.logs.postgres.postgres_archive import read_archive
from unmissed.logs.postgres.schema import create_schema, quoted
from unmissed.logs.postgres.upkeep import Upkeep

pytestmark = pytest.mark.live

START_MS = 1_795_409_482_000
ROOMS: dict[str, Any] = {"topics": ["rooms.1"]}
NEWS: dict[str, Any] = {"topics": ["news"]}
_names = count(1)


@dataclass
class Planted:
    """A schema with planted messages. The tail keeps 20, if they are younger than 100 s."""

    connection: asyncpg.Connection
    name: str
    retention: Retention
    upkeep: Upkeep = field(init=False)
    latest: int = FIRST - 1
    now_ms: int = START_MS

    def __post_init__(self) -> None:
        self.upkeep = self.new_upkeep()

    def new_upkeep(self, **options: Any) -> Upkeep:
        """Return the upkeep of another node."""
        return Upkeep(self.name, self.retention, **{"least_tail": 20, **options})

    async def run(self, statement: str, *arguments: Any) -> list[Any]:
        """Execute a statement, with the name of the schema in place of ``{}``."""
        return list(await self.connection.fetch(statement.format(quoted(self.name)), *arguments))

    async def publish(self, *messages: Mapping[str, Any]) -> None:
        await self.store(*(encode_draft(Draft.of({"type": "m", **each}, max_bytes=100_000)) for each in messages))

    async def store(self, *drafts: bytes, skip: int = 0) -> None:
        """Insert rows as the sequencer does, after numbers that are skipped."""
        after = self.latest if skip else None
        first = self.latest + 1 + skip
        self.latest = first + len(drafts) - 1
        await self.run(
            "INSERT INTO {}.messages SELECT $1 + place - 1, $2, $2, draft, CASE place WHEN 1 THEN $3::bigint END "
            "FROM unnest($4::bytea[]) WITH ORDINALITY AS new (draft, place)",
            *(first, self.now_ms, after, drafts),
        )

    async def trim(self, *, seconds: float = 0) -> None:
        """Do all that is to be done, after some seconds."""
        self.now_ms += round(seconds * 1000)
        while await self.upkeep.step(self.connection, self.now_ms):
            pass

    async def tail(self) -> list[int]:
        return [row["number"] for row in await self.run("SELECT number FROM {}.messages ORDER BY number")]

    async def archive(self, *, before: int | None = None, retention: Retention | None = None) -> Archive:
        lowest = min(await self.tail()) if before is None else before
        return await read_archive(self.connection, self.name, retention or self.retention, before=lowest)

    async def archived(self) -> list[int]:
        return [record.number for record in (await self.archive()).records]


def retention_of(rules: str = "", **limits: Any) -> Retention:
    return Retention(**{"max_messages": 10, "max_age": 100.0, "rules": rules_from(rules), **limits})


@pytest.fixture
async def connection(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_server.url)
    yield connection
    await connection.close()


async def planted(connection: asyncpg.Connection, rules: str = "", **limits: Any) -> Planted:
    name = f"upkeep {next(_names)}"
    await create_schema(connection, name, "log")
    found = Planted(connection, name, retention_of(rules, **limits))
    await found.run("UPDATE {}.life SET epoch = 'e', first_number = $1", FIRST)
    return found


def below(first: int, last: int) -> list[int]:
    """Return these numbers, counted from the first one of the log."""
    return [*range(FIRST + first, FIRST + last + 1)]


async def test_the_newest_messages_stay(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[NEWS] * 24)

    await log.trim()

    assert below(4, 23) == await log.tail()
    assert Archive(lost={"#news": FIRST + 3}, others=0) == await log.archive()


async def test_a_few_too_many_are_not_worth_a_transaction(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[NEWS] * 22)

    await log.trim()

    assert below(0, 21) == await log.tail()


async def test_the_newest_message_stays_however_old_it_is(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish({}, NEWS, {"users": ["alice", "bob"]}, {})

    await log.trim(seconds=1_000)

    assert below(3, 3) == await log.tail()
    lost = {"#news": FIRST + 1, "@alice": FIRST + 2, "@bob": FIRST + 2}
    assert Archive(lost=lost, everyone=FIRST, others=0) == await log.archive()


async def test_what_is_younger_than_the_age_stays(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish({}, {}, {})
    await log.trim(seconds=50)
    await log.publish({}, {})

    await log.trim(seconds=70)

    assert below(3, 4) == await log.tail()


async def test_large_messages_leave_the_tail_by_their_bytes(connection: asyncpg.Connection) -> None:
    log = await planted(connection, max_bytes=10_000)
    for _ in range(3):
        await log.publish({"data": "x" * 2_000})
        await log.trim()
    assert below(0, 2) == await log.tail()

    await log.publish(*[{"data": "x" * 2_000}] * 8)
    await log.trim()

    assert below(3, 10) == await log.tail(), "with at least max_bytes"


async def test_numbers_that_were_skipped_are_no_messages(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[{}] * 15)
    await log.store(b'\n{"type":"m"\n}', skip=1_000_000)
    await log.publish(*[{}] * 7)

    await log.trim()

    assert 20 == len(await log.tail())
    assert FIRST + 2 == (await log.archive()).everyone
    assert 0 == (await log.archive()).unknown


async def test_skipped_numbers_below_the_tail_are_no_loss(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(NEWS, NEWS)
    log.now_ms += 1_000_000
    await log.store(b'\n{"type":"m"\n}', skip=1_000_000)

    await log.trim()

    assert [log.latest] == await log.tail()
    assert Archive(lost={"#news": FIRST + 1}, others=0) == await log.archive()


async def test_a_step_does_a_part(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    log.upkeep = log.new_upkeep(most_rows=10)
    await log.publish(*[{}] * 45)

    assert await log.upkeep.step(connection, log.now_ms)
    assert below(10, 44) == await log.tail()
    await log.trim()
    assert below(25, 44) == await log.tail()


async def test_nothing_happens_while_the_time_is_unknown(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[{}] * 45)

    assert not await log.upkeep.step(connection, -1)
    assert 45 == len(await log.tail())


async def test_the_first_topic_decides_what_is_archived(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h, @*=10/1h")
    await log.publish({"topics": ["rooms.1", "news"]}, {"topics": ["news", "rooms.1"]}, {"users": ["alice"]})
    await log.publish({"users": ["alice", "bob"]}, {}, {})

    await log.trim(seconds=1_000)

    assert [FIRST, FIRST + 2] == await log.archived()
    lost = {"#news": FIRST + 1, "#rooms.1": FIRST + 1, "@alice": FIRST + 3, "@bob": FIRST + 3}
    archive = await log.archive()
    assert lost == archive.lost
    assert (FIRST + 4, 0, 0) == (archive.everyone, archive.others, archive.unknown)
    assert encode_draft(archive.records[0].draft).startswith(b'["#rooms.1","#news"]\n')
    assert START_MS == archive.records[0].unix_ms == archive.records[0].log_ms


async def test_a_rule_keeps_the_newest_of_each_topic(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(*[{"topics": [f"rooms.{number % 2}"]} for number in range(80)])

    await log.trim()

    assert [*below(40, 59)] == await log.archived()
    assert {"#rooms.0": FIRST + 38, "#rooms.1": FIRST + 39} == (await log.archive()).lost


async def test_a_bucket_is_looked_at_when_it_has_grown(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    for _ in range(40):
        await log.publish(*[ROOMS] * 3)
        await log.trim()

    archived = await log.archived()
    assert [*range(archived[0], min(await log.tail()))] == archived
    assert 10 <= len(archived) <= 22
    assert {"#rooms.1": archived[0] - 1} == (await log.archive()).lost


async def test_rules_keep_messages_for_their_age(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h, hall=10/2h")
    await log.publish(ROOMS, {"topics": ["hall"]}, {"key": "k"}, {})
    await log.trim(seconds=200)
    assert below(0, 1) == await log.archived(), "and the value had the age of messages without a rule"

    await log.trim(seconds=3_700)

    assert below(1, 1) == await log.archived()
    assert {"#rooms.1": FIRST} == (await log.archive()).lost
    assert FIRST + 2 == (await log.archive()).everyone


async def test_the_largest_rule_makes_room_in_the_archive(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=100/1h, hall=100/1h", max_bytes=10_000)
    await log.publish({"topics": ["hall"]}, *[{**ROOMS, "data": "x" * 2_000}] * 15, {}, {})

    await log.trim(seconds=120)

    assert [FIRST, *below(7, 15)] == await log.archived()
    assert {"#rooms.1": FIRST + 6} == (await log.archive()).lost


async def test_a_value_is_kept_until_it_is_replaced(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish({"key": "k"}, {"key": "k", **NEWS}, {"key": "k"}, {"key": "l"}, *[{}] * 20)
    await log.trim()
    assert below(1, 3) == await log.archived(), "the same key with other recipients is another value"

    await log.publish({"key": "l"}, {"key": "k", **NEWS, "deleted": True}, *[{}] * 20)
    await log.trim()

    assert [FIRST + 2, FIRST + 24] == await log.archived()
    assert {"#news": FIRST + 25} == (await log.archive()).lost, "a deletion is a message like any other"


async def test_the_order_of_topics_makes_no_other_value(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish({"key": "k", "topics": ["a", "b"]}, {"key": "k", "topics": ["b", "a"]}, *[{}] * 30)

    await log.trim()

    assert [FIRST + 1] == await log.archived()


async def test_a_replaced_piece_is_no_loss(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    piece = {"key": "k", **NEWS, "append": True}
    await log.publish({"key": "k", **NEWS}, piece, {"key": "k", **NEWS}, *[{}] * 30)

    await log.trim()

    archive = await log.archive()
    assert [FIRST + 2] == [record.number for record in archive.records]
    assert ({}, frozenset()) == (archive.lost, archive.partial)


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_value_whose_piece_is_lost_is_partial(connection: asyncpg.Connection, steps: int) -> None:
    log = await planted(connection)
    await log.publish({"key": "k"}, {"key": "l"})
    if steps == 2:
        await log.publish(*[{}] * 30)
        await log.trim()
    await log.publish({"key": "k", "append": True}, *[{}] * 30)

    await log.trim()

    assert below(0, 1) == await log.archived()
    assert frozenset({FIRST}) == (await log.archive()).partial


async def test_a_rule_keeps_pieces_and_a_value_is_partial_without_the_first(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    piece = {"key": "k", **ROOMS, "append": True}
    await log.publish({"key": "k", **ROOMS}, *[piece] * 10, *[{}] * 30)
    await log.trim()
    assert below(0, 10) == (await log.archived())[:11]
    assert frozenset() == (await log.archive()).partial

    await log.publish(*[piece] * 10, *[{}] * 30)
    await log.trim()

    archive = await log.archive()
    assert [FIRST, *below(41, 50)] == [record.number for record in archive.records if record.draft.value]
    assert frozenset({FIRST}) == archive.partial
    assert {"#rooms.1": FIRST + 10} == archive.lost


async def test_messages_without_a_rule_are_archived_if_others_fill_the_tail(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(*[{}] * 12, *[ROOMS] * 20)
    await log.trim()
    assert below(2, 11) == await log.archived()

    await log.publish(*[{}] * 12, *[ROOMS] * 8)
    await log.trim()

    assert [*range(FIRST + 22, FIRST + 32)] == (await log.archived())[-10:]
    await log.publish(*[{}] * 30)
    await log.trim()
    assert FIRST + 61 == (await log.archive()).everyone


async def test_what_is_missing_in_the_tail_is_lost_for_every_client(
    connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    log = await planted(connection)
    await log.publish(*[{}] * 30)
    await log.run("DELETE FROM {}.messages WHERE number = $1", FIRST + 3)

    await log.trim()

    assert FIRST + 3 == (await log.archive()).unknown
    assert [f"messages up to {FIRST + 3} are missing, and count as lost for every client"] == caplog.messages


async def test_what_is_missing_below_the_tail_is_lost_for_every_client(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[{}] * 30)
    await log.trim()
    await log.run("DELETE FROM {}.messages WHERE number <= $1", FIRST + 12)
    assert FIRST + 12 == (await log.archive()).unknown

    await log.publish(*[{}] * 30)
    await log.trim()

    assert FIRST + 12 == (await log.archive()).unknown


@pytest.mark.parametrize("draft", [b"no", b"", b"[7]\n\n", b"\xff\n{}\n", b'{"keys":7,"key":"k"}\n\n'])
async def test_a_damaged_message_is_lost_for_every_client(
    connection: asyncpg.Connection, draft: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(ROOMS)
    await log.store(draft)
    await log.publish(*[{}] * 30)

    await log.trim()

    assert FIRST + 1 == (await log.archive()).unknown
    assert FIRST in await log.archived()
    assert f"message {FIRST + 1} is damaged" in caplog.text


async def test_a_message_that_was_damaged_in_the_archive_is_lost_for_every_client(
    connection: asyncpg.Connection,
) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(ROOMS, ROOMS, *[{}] * 30)
    await log.trim()
    await log.run("UPDATE {}.archive SET draft = 'no' WHERE number = $1", FIRST)
    assert FIRST == (await log.archive()).unknown

    await log.trim(seconds=4_000)

    archive = await log.archive()
    assert (FIRST, {"#rooms.1": FIRST + 1}) == (archive.unknown, archive.lost)


async def test_users_may_have_any_name(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "@*=10/1h")
    names = ["a\0lice", "\n", 'q"uote', "ü", "\u2028"]
    await log.publish(*({"users": [name]} for name in names), *[{}] * 30)
    await log.trim()
    assert below(0, 4) == (await log.archived())[:5]

    await log.trim(seconds=4_000)

    assert {f"@{name}": FIRST + place for place, name in enumerate(names)} == (await log.archive()).lost


async def test_one_mark_counts_for_many_other_keys(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish({"users": [f"user {number}" for number in range(900)]})
    await log.publish({"users": [f"late {number}" for number in range(900)]}, {"topics": ["news", "rooms.1"]})

    await log.publish({}, {})
    await log.trim(seconds=1_000)

    archive = await log.archive()
    assert FIRST == archive.others
    assert FIRST + 1 == archive.lost["@late 0"]
    assert FIRST + 2 == archive.lost["#rooms.1"]
    assert 0 == archive.unknown


async def test_the_lowest_of_too_many_marks_are_forgotten(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1s")
    log.upkeep = log.new_upkeep(most_marks=4)
    await log.publish(*[{"topics": [f"rooms.{number}"]} for number in range(6)])
    await log.publish(*[{"topics": [f"news.{number}"]} for number in range(6)], {}, {})

    await log.trim(seconds=200)
    await log.trim(seconds=10)

    archive = await log.archive()
    assert {*range(FIRST + 2, FIRST + 6), *range(FIRST + 8, FIRST + 12)} == {*archive.lost.values()}
    assert (FIRST + 7, FIRST + 1) == (archive.others, archive.unknown)


async def test_with_other_rules_forgotten_marks_count_for_every_client(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    log.upkeep = log.new_upkeep(most_marks=4)
    await log.publish(*[{"topics": [f"rooms.{number}"]} for number in range(10)], {}, {})
    await log.trim(seconds=200)
    await log.trim(seconds=10)
    assert (FIRST + 5, 0) == ((await log.archive()).others, (await log.archive()).unknown)

    log.retention = retention_of("rooms.*=10/1h")
    assert FIRST + 5 == (await log.archive()).unknown
    log.upkeep = log.new_upkeep()
    await log.publish({}, {})
    await log.trim(seconds=200)

    assert FIRST + 5 == (await log.archive()).unknown
    assert FIRST + 9 == (await log.archive()).lost["#rooms.9"]


async def test_messages_of_a_rule_that_is_gone_have_the_age_of_all_others(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(ROOMS, {}, {})
    await log.trim(seconds=120)
    assert below(0, 0) == await log.archived()

    log.retention = retention_of()
    log.upkeep = log.new_upkeep()
    await log.trim()

    assert [] == await log.archived()
    assert {"#rooms.1": FIRST} == (await log.archive()).lost


async def test_a_new_epoch_begins_with_an_empty_archive(connection: asyncpg.Connection) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish({"key": "k", **ROOMS}, ROOMS, *[{}] * 30)
    await log.trim()

    await log.run("SELECT {}.forget_archive()")
    await log.run("DELETE FROM {}.messages")
    log.latest = FIRST + 1_000_000
    await log.run("UPDATE {}.life SET first_number = $1", log.latest + 1)
    await log.publish(*[{}] * 3)
    assert Archive(others=0) == await log.archive()
    await log.publish(*[{}] * 30)
    await log.trim(seconds=10)

    assert Archive(everyone=log.latest - 20, others=0) == await log.archive()
    assert [] == await log.run("SELECT FROM {}.archive")
    assert [0] == [row["bytes"] for row in await log.run("SELECT bytes FROM {}.shelves")]


async def test_only_one_node_trims_at_a_time(connection: asyncpg.Connection, postgres_server: PostgresServer) -> None:
    log = await planted(connection, "rooms.*=10/1h")
    await log.publish(*[ROOMS] * 40)
    other = await asyncpg.connect(postgres_server.url)

    async with other.transaction():
        assert await other.fetchval(f"SELECT {quoted(log.name)}.may_trim()")
        assert not await log.upkeep.step(connection, log.now_ms)
        assert 40 == len(await log.tail())
    await other.close()
    await log.trim()

    assert 20 == len(await log.tail())


async def test_nodes_that_trim_at_once_lose_nothing(
    connection: asyncpg.Connection, postgres_server: PostgresServer
) -> None:
    log = await planted(connection, "rooms.*=1000/1h")
    others = [await asyncpg.connect(postgres_server.url) for _ in range(3)]
    upkeeps = [log.new_upkeep(most_rows=7) for _ in others]

    async def trim(upkeep: Upkeep, other: asyncpg.Connection) -> None:
        for _ in range(60):
            await upkeep.step(other, log.now_ms)

    async def publish() -> None:
        for _ in range(40):
            await log.publish(*[ROOMS] * 10)

    await asyncio.gather(publish(), *map(trim, upkeeps, others))
    for other in others:
        await other.close()
    await log.publish(*[ROOMS] * 3)
    await log.trim()

    assert 20 == len(await log.tail())
    assert {} == (await log.archive()).lost
    assert below(0, 382) == await log.archived()


async def test_what_is_in_the_tail_is_read_by_a_node_that_continues_above_it(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[{}] * 26)
    await log.store(b"no")
    await log.trim()

    archive = await log.archive(before=log.latest + 1)

    assert below(7, 25) == [record.number for record in archive.records]
    assert (FIRST + 26, FIRST + 6) == (archive.unknown, archive.everyone)


async def test_nothing_above_the_tail_is_reported_as_lost(connection: asyncpg.Connection) -> None:
    log = await planted(connection)
    await log.publish(*[NEWS] * 26)
    before = min(await log.tail())
    await log.publish({}, NEWS)
    await log.trim()

    archive = await log.archive(before=before + 2)

    assert ({"#news": FIRST + 1}, 0) == (archive.lost, archive.everyone)


# The windows of nodes, against the messages that were published


def restored(log: Planted, archive: Archive, tail: Sequence[Record], *, before: int) -> Window:
    """Return the window of a node that starts."""
    window = Window(log.retention, epoch="e", first_number=FIRST)
    others = before - 1 if archive.others is None else archive.others
    messages = [stamp(record) for record in archive.records]
    window.restore(
        Earlier(
            before - 1,
            messages,
            archive.lost,
            archive.everyone,
            others,
            unknown=archive.unknown,
            partial=archive.partial,
        )
    )
    for record in tail:
        window.replay(stamp(record))
    window.expire(log.now_ms / 1000)
    return window


def stamp(record: Record) -> Message:
    return record.message(appended_at=record.log_ms / 1000)


SOME: list[dict[str, Any]] = [
    {},
    ROOMS,
    {"topics": ["rooms.2"]},
    {"topics": ["news", "rooms.1"]},
    {"topics": ["big"]},
    {"users": ["alice"]},
    {"users": ["alice", "bob"]},
]
HOW: list[dict[str, Any]] = [{}, {}, {"key": "k"}, {"key": "k", "append": True}, {"key": "k", "deleted": True}]
READERS = [frozenset(keys) for keys in (["@alice"], ["@bob", "#news"], ["#rooms.1"], ["#rooms.2"], ["#big"], [])]


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 8))])
async def test_a_node_that_starts_has_what_others_have(connection: asyncpg.Connection, seed: int) -> None:
    random = Random(seed)  # repeatable
    rules = random.choice(["", "rooms.*=10/300s, big=12/30s, @*=10/60s"])
    log = await planted(connection, rules, max_bytes=random.choice([20_000, 1_000_000]))
    log.upkeep = log.new_upkeep(most_rows=random.choice([7, 1_000]))
    window = Window(log.retention, epoch="e", first_number=FIRST)
    published: dict[int, Message] = {}
    for _ in range(60):
        log.now_ms += random.choice([0, 100, 5_000, 40_000])
        size = random.choice([1, 1, 500])
        batch = [
            {**random.choice(SOME), **random.choice(HOW), "data": "x" * size} for _ in range(random.randint(1, 15))
        ]
        first = log.latest + 1
        await log.publish(*batch)
        for number, each in enumerate(batch, start=first):
            draft = decode_draft(encode_draft(Draft.of({"type": "m", **each}, max_bytes=100_000)))
            published[number] = stamp(Record(number, log.now_ms, log.now_ms, draft))
            window.append(published[number])
        window.expire(log.now_ms / 1000)
        if random.random() < 0.7:
            await log.upkeep.step(connection, log.now_ms)
        if random.random() < 0.3:
            before = min(await log.tail())
            rows = await log.run("SELECT number, unix_ms, log_ms, draft FROM {}.messages ORDER BY number")
            tail = [Record(row["number"], row["unix_ms"], row["log_ms"], decode_draft(row["draft"])) for row in rows]
            found = restored(log, await log.archive(), tail, before=before)
            assert_same(window, found, published, window_is_full=log.retention.max_bytes < 100_000)


def assert_same(window: Window, found: Window, published: Mapping[int, Message], *, window_is_full: bool) -> None:
    """Compare the window of a node that starts with that of another. Full ones evict in an order of their own."""
    held, expected = {each.sequence_number for each in found}, {each.sequence_number for each in window}
    if not window_is_full:
        assert set() == expected - held, "a message of a node that has run all the time"
    replaced = replaced_numbers(published)
    for keys in READERS:
        lost = found.lost_through(keys)
        for number, message in published.items():
            sees = message.audience.keys is None or bool(message.audience.keys & keys)
            assert not sees or number in held or number in replaced or number <= lost, "a silent loss"
        if lost >= FIRST:
            audience = published[lost].audience
            assert audience.keys is None or audience.keys & keys, "a loss that concerns others"
            assert window_is_full or lost not in expected, "a loss of what others have"
    for message in found:
        if message.value is not None and found.is_whole(message):
            parts = parts_of(message, published)
            assert parts <= held, "a whole value that lacks a part"


def replaced_numbers(published: Mapping[int, Message]) -> set[int]:
    latest: dict[Any, int] = {}
    for number, message in published.items():
        if message.value is not None and not message.value.append:
            latest[message.audience.keys, message.key] = number
    return {
        number
        for number, message in published.items()
        if message.value is not None and number < latest.get((message.audience.keys, message.key), 0)
    }


def parts_of(message: Message, published: Mapping[int, Message]) -> set[int]:
    """Return the numbers of all parts of the value that a message belongs to."""
    parts: set[int] = set()
    for number, each in published.items():
        if each.value is not None and (each.audience.keys, each.key) == (message.audience.keys, message.key):
            parts = {*parts, number} if each.value.append else {number} - {number if each.value.deleted else 0}
    return parts if message.value is not None and not message.value.deleted else set()
