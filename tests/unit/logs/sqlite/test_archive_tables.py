"""The archive of a file: what a start reads is what the window retained before, with the same verdicts."""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from places import Place
from support import nth
from unit.logs.test_base import numbers
from unmissed.core.audience import keys_of, visible
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Outcome, Window
from unmissed.logs.codec import encode_message
from unmissed.logs.sqlite.archive_tables import ANY_LOST, ARCHIVE_SCHEMA, EVERYONE_LOST, OTHERS_LOST, ArchiveTables
from unmissed.testing import ManualClock

ROOMS = Rule("rooms.*", 10, 3_600.0)
RETENTION = Retention(max_messages=20, rules=(ROOMS, Rule("rooms.vip", 30, 7_200.0), Rule("@*", 12, 3_600.0)))


def draft(**fields: Any) -> Draft:
    return Draft.of({"type": "chat", **fields}, max_bytes=10_000)


def message(number: int, **fields: Any) -> Message:
    return draft(**fields).stamp(nth(number), timestamp="2026-11-30T00:53:20.000Z", now=0.0)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(ARCHIVE_SCHEMA)
        yield connection


def added(archive: ArchiveTables, messages: Sequence[Message], *, log_ms: int = 0) -> None:
    for each in messages:
        archive.add(each, encode_message(each), unix_ms=0, log_ms=log_ms)


def stored(archive: ArchiveTables) -> list[int]:
    return [number - nth(0) for number, *_ in archive.rows(2**60)]


def test_messages_with_a_rule_or_a_key_are_archived(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)

    kept = [
        archive.keeps(message(1, **fields))
        for fields in ({}, {"topics": ["a"]}, {"topics": ["a", "rooms.1"]}, {"users": ["a", "b"]})
    ]
    assert [False] * 4 == kept
    assert all(
        archive.keeps(message(1, **fields))
        for fields in ({"topics": ["rooms.1", "a"]}, {"users": ["a"]}, {"key": "cart"}, {"key": "cart", "append": True})
    )


def test_a_value_whose_piece_is_lost_is_partial(connection: sqlite3.Connection) -> None:
    archive, room = ArchiveTables(connection, RETENTION), {"topics": ["rooms.1"]}
    added(archive, [message(1, key="k", **room), message(2, key="k", append=True, **room), message(3, key="l", **room)])

    added(archive, [message(n, **room) for n in range(4, 44)])
    archive.trim(0, most=500)

    assert [1, 3] == [n for n in stored(archive) if n < 4]
    assert {nth(1)} == archive.partial()
    added(archive, [message(50, key="k", **room)])
    assert not archive.partial()


def test_a_value_removes_the_earlier_one_and_its_pieces_and_loses_nothing(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)
    value = {"topics": ["rooms.1"], "key": "cart"}

    added(archive, [message(1, **value), message(2, **value, append=True), message(3, **value, append=True)])
    added(archive, [message(4, topics=["rooms.2"], key="cart"), message(5, **value), message(6, **value, deleted=True)])

    assert [4, 6] == stored(archive)
    assert {} == archive.marks()


def test_a_full_bucket_loses_its_oldest_for_the_keys_of_their_audience(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)
    added(archive, [message(1, topics=["rooms.1", "b"], users=["bob"]), message(2, topics=["rooms.2"])])
    added(archive, [message(number, topics=["rooms.1"]) for number in range(3, 30)])

    archive.trim(0, most=500)

    assert [2, *range(20, 30)] == stored(archive)
    assert {"#rooms.1": nth(19), "#b": nth(1), "@bob": nth(1)} == archive.marks()


def test_values_do_not_count_for_a_bucket(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)

    added(archive, [message(number, topics=["rooms.1"], key=f"{number}") for number in range(1, 100)])
    archive.trim(0, most=500)

    assert 99 == len(stored(archive))


def test_a_sweep_removes_what_is_as_old_as_its_rule_allows_in_steps(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)
    for number in range(1, 101):
        added(archive, [message(number, topics=["rooms.vip" if number % 2 else "rooms.1"], key=f"{number}")])
    archive.begin_sweep()

    left = []
    for _ in range(4):
        archive.trim(3_600_000, most=30)
        left.append(len(stored(archive)))

    assert [85, 70, 55, 50] == left
    assert {"#rooms.1": nth(100)} == archive.marks()


def test_too_many_bytes_are_taken_from_the_largest_rule(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, Retention(max_bytes=20_000, rules=RETENTION.rules))
    added(archive, [message(number, topics=["rooms.vip"], key=f"{number}") for number in range(1, 5)])
    added(archive, [message(number, topics=[f"rooms.{number}"], key="a") for number in range(5, 100)])

    archive.trim(0, most=500)

    left = stored(archive)
    assert [1, 2, 3, 4, *range(left[4], 100)] == left
    assert 20 < len(left) < 50


def test_marks_of_too_many_keys_count_for_all_without_a_rule_or_for_every_client(
    connection: sqlite3.Connection,
) -> None:
    archive = ArchiveTables(connection, Retention(rules=(ROOMS,)))
    without = [message(number, topics=[f"a{number}"]) for number in range(1, 40)]
    within = [message(number, topics=[f"rooms.{number}"]) for number in range(100, 110)]

    archive.lose((each.sequence_number, encode_message(each)) for each in [*without, *within, message(50)])
    archive.forget_marks(most=20)
    marks = dict(archive.marks())

    assert (nth(50), nth(19)) == (marks.pop(EVERYONE_LOST), marks.pop(OTHERS_LOST))
    assert {f"#a{number}" for number in range(20, 40)} | {f"#rooms.{number}" for number in range(100, 110)} == {*marks}
    archive.forget_marks(most=5)
    assert (nth(34), nth(104)) == (archive.marks()[OTHERS_LOST], archive.marks()[ANY_LOST])


def test_a_damaged_message_is_lost_for_every_client(connection: sqlite3.Connection) -> None:
    archive = ArchiveTables(connection, RETENTION)

    archive.lose([(nth(7), b"[1]\nno")])

    assert {ANY_LOST: nth(7)} == archive.marks()


def test_counts_are_those_of_the_tables(connection: sqlite3.Connection) -> None:
    added(ArchiveTables(connection, RETENTION), [message(number, topics=["rooms.1"]) for number in range(1, 19)])
    again = ArchiveTables(connection, RETENTION)

    added(again, [message(19, topics=["rooms.1"]), message(20, topics=["rooms.1"])])
    again.trim(0, most=500)

    assert [*range(11, 21)] == stored(again)


# Restarts of a log


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(f"sqlite:{tmp_path}/log.db?synchronous=normal")
    yield place
    await place.close_all()


TOPICS = ("rooms.1", "rooms.2", "rooms.vip", "news")
KEYS = [keys_of(user, topics) for user in ("alice", "carol") for topics in ([], *([topic] for topic in TOPICS), TOPICS)]


def any_draft(random: Random) -> Draft:
    fields: dict[str, Any] = {"data": random.randrange(1_000_000)}
    if random.random() < 0.7:
        fields["topics"] = random.sample(TOPICS, random.choice([1, 1, 2]))
    if random.random() < 0.3:
        fields["users"] = random.sample(["alice", "bob"], random.choice([1, 1, 2]))
    if random.random() < 0.4:
        fields |= random.choice([{}, {}, {"append": True}, {"deleted": True}]) | {"key": random.choice("abc")}
    return draft(**fields)


def lost_through(window: Window) -> list[int]:
    return [window.lost_through(keys) for keys in KEYS]


def unreplaced(published: Sequence[Message]) -> list[Message]:
    """Return what was published, without what later messages of a key have replaced."""
    left: dict[int, Message] = {}
    for each in published:
        if each.value is not None and not each.value.append:
            left = {n: m for n, m in left.items() if (m.audience, m.key) != (each.audience, each.key)}
        left[each.sequence_number] = each
    return [*left.values()]


def lost(published: Sequence[Message], window: Window) -> list[int]:
    """Return for each of the keys the highest number of a message that is neither retained nor replaced."""
    retained = {*numbers([*window])}
    missing = [each for each in unreplaced(published) if each.sequence_number not in retained]
    return [
        max((each.sequence_number for each in missing if visible(each.audience, keys)), default=window.first_number - 1)
        for keys in KEYS
    ]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
async def test_a_restart_loses_nothing_and_declares_no_other_gap(place: Place, seed: int) -> None:
    """It may retain more: a message that was evicted because of pieces which were replaced later."""
    random = Random(seed)
    published: list[Message] = []
    clocks = {"clock": ManualClock(5_000.0), "wall_clock": ManualClock(1_796_000_000.0)}
    log, window = await place.open(retention=RETENTION, **clocks)
    for _ in range(8):
        for _ in range(random.randrange(60)):
            published += (await log.publish([any_draft(random) for _ in range(random.choice([1, 1, 5]))])).messages
        for clock in clocks.values():
            clock.advance(random.choice([1, 600]))
        log.expire()
        before, retained, declared = window.latest, numbers([*window]), lost_through(window)
        await place.close(log)

        log, window = await place.open(retention=RETENTION, **clocks)
        log.expire()

        assert before == window.latest
        assert {*retained} <= {*numbers([*window])} <= {*numbers(unreplaced(published))}
        assert all(
            least <= after <= most
            for least, after, most in zip(lost(published, window), lost_through(window), declared, strict=True)
        )


async def test_what_was_archived_by_a_rule_that_is_gone_is_lost_for_its_clients_alone(place: Place) -> None:
    log, window = await place.open(retention=RETENTION)
    await log.publish([draft(topics=["rooms.1"])])
    first = window.latest
    await log.publish([draft() for _ in range(400)])
    await place.close(log)

    log, window = await place.open(retention=Retention(max_messages=20))

    assert 20 == len(window)
    assert Outcome.GAP is window.locate(first - 1, keys=keys_of("alice", ["rooms.1"])).outcome
    assert first == window.lost_through(keys_of("alice", ["rooms.1"]), everyone=False)
    assert first > window.lost_through(keys_of("alice", ["news"]), everyone=False)


async def test_what_the_tail_holds_is_kept_by_a_rule_that_is_new(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_messages=20))
    published = await log.publish([draft(topics=["rooms.1"]) for _ in range(5)])
    await place.close(log)
    log, _ = await place.open(retention=RETENTION)
    await log.publish([draft() for _ in range(400)])
    await place.close(log)

    _, window = await place.open(retention=RETENTION)

    assert published.messages == tuple([*window][:5])
    assert published.receipt.first > window.lost_through(keys_of("a", ["rooms.1"]), everyone=False)


async def test_a_damaged_message_of_the_archive_is_a_gap_for_every_client(place: Place, tmp_path: Path) -> None:
    log, window = await place.open(retention=RETENTION)
    number = (await log.publish([draft(topics=["rooms.1"])])).receipt.first
    await log.publish([draft(topics=["rooms.2"]) for _ in range(400)])
    await place.close(log)
    with closing(sqlite3.connect(tmp_path / "log.db")) as file, file:
        file.execute("UPDATE archive SET message = 'no' WHERE number = ?", (number,))

    _, window = await place.open(retention=RETENTION)

    assert Outcome.GAP is window.locate(number - 1, keys=keys_of("alice")).outcome
