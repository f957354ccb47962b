"""The connections to all nodes, filtered, sorted and in pages."""

import asyncio
import dataclasses
import random
from typing import Any

import pytest

from support import ALICE, BOB, connect, pause_over
from unmissed import ConnectionManager, Identity
from unmissed.cluster.listing import ConnectionInfo, ConnectionQuery, Sort, UnixTime
from unmissed.testing import ManualClock

Managers = list[ConnectionManager]


def ids_of(pages: list[list[ConnectionInfo]]) -> list[str]:
    return [info.connection_id for page in pages for info in page]


async def test_connections_of_every_node_are_listed_in_pages(managers: Managers) -> None:
    ids = sorted(connect(manager, identity)[1].id for manager in managers for identity in (ALICE, BOB))

    one, two, three = (manager.running.cluster.listing for manager in managers)
    first = await one.page(ConnectionQuery(limit=4))
    second = await two.page(ConnectionQuery(limit=4, after=first.connections[-1].place("id")))
    of_bob = await three.page(ConnectionQuery(limit=1, user_id="bob"))

    assert ids == ids_of([first.connections, second.connections])
    assert [(6, 6), (6, 6), (6, 3)] == [(page.total, page.matching) for page in (first, second, of_bob)]
    assert ["bob"] == [info.user_id for info in of_bob.connections]
    assert {manager.running.node_id for manager in managers} == {each.partition(".")[0] for each in ids}


@pytest.mark.parametrize("sort", ["user", "connected_at"])
async def test_the_connections_of_every_node_are_in_one_order(managers: Managers, sort: Sort) -> None:
    """Also if each page is asked of another node."""
    opened = [connect(managers[n % 3], Identity(f"user-{(7 * n) % 9}"))[1] for n in range(9)]
    query, seen = ConnectionQuery(limit=2, sort=sort, descending=True), list[ConnectionInfo]()

    for manager in (managers * 2)[:5]:
        page = (await manager.running.cluster.listing.page(query)).connections
        seen += page
        query = dataclasses.replace(query, after=page[-1].place(sort))

    assert {each.id for each in opened} == {info.connection_id for info in seen}
    places = [info.place(sort) for info in seen]
    assert (9, sorted(places, reverse=True)) == (len(seen), places)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["id", "user", "lag", "connected_at"])
async def test_pages_show_each_connection_once_while_others_come_and_go(
    manager: ConnectionManager, clock: ManualClock, sort: Sort, *, descending: bool
) -> None:
    """Also where many have the same value."""
    dice = random.Random(1)
    for n in range(300):
        clock.advance(dice.choice((0.0, 0.25)))
        socket, _ = connect(manager, Identity(f"user-{dice.randrange(9)}"))
        if n % 3:
            socket.pause()
        if n % 50 == 0:
            await manager.emit("a")
    await pause_over()
    stay = {each.id for each in manager.connections}
    query, seen = ConnectionQuery(limit=7, sort=sort, descending=descending), list[ConnectionInfo]()

    while page := (await manager.running.cluster.listing.page(query)).connections:
        seen += page
        query = dataclasses.replace(query, after=page[-1].place(sort))
        clock.advance(0.3)
        connect(manager, Identity(f"user-{dice.randrange(9)}"))[0].drop()

    ids = [each.connection_id for each in seen]
    assert stay == set(ids)
    assert len(ids) == len(stay)
    places = [each.place(sort) for each in seen]
    assert sorted(places, reverse=descending) == places


async def test_a_wall_clock_that_is_slewed_moves_no_connection(manager: ConnectionManager) -> None:
    """Two readings of two clocks never differ by the same."""
    clock, wall_clock = ManualClock(1_000.0), ManualClock(1_796_000_000.0)
    unix_time = UnixTime(clock=clock, wall_clock=wall_clock)
    before = unix_time(900.0)
    wall_clock.advance(0.9)

    slewed = unix_time(900.0)
    wall_clock.advance(3_600)

    assert (1_795_999_900.0, before, before + 3_600.9) == (before, slewed, unix_time(900.0))
    assert manager.ready


@pytest.mark.parametrize(
    ("search", "users"),
    [
        ("", ["alice", "bob", "Zo\u00eb"]),
        ("LIC", ["alice"]),
        ("zo\u00cb", ["Zo\u00eb"]),
        ("orders.4", ["alice", "bob"]),
        ("ORDERS.43", ["bob"]),
        ("192.0.2", ["bob"]),
        ("nobody", []),
    ],
)
async def test_a_search_looks_at_users_addresses_and_topics(
    manager: ConnectionManager, search: str, users: list[str]
) -> None:
    connect(manager, Identity("alice", topics=frozenset({"orders.42", "News"})))
    connect(manager, Identity("bob", topics=frozenset({"orders.43"})), client="192.0.2.7")
    connect(manager, Identity("Zo\u00eb"))

    page = await manager.running.cluster.listing.page(ConnectionQuery(limit=9, sort="user", search=search.casefold()))

    assert sorted(users) == [info.user_id for info in page.connections]
    assert (3, len(users)) == (page.total, page.matching)


async def test_a_search_finds_a_connection_by_a_part_of_its_id(manager: ConnectionManager) -> None:
    connect(manager)
    _, wanted = connect(manager)

    page = await manager.running.cluster.listing.page(ConnectionQuery(limit=9, search=wanted.id[4:].casefold()))

    assert wanted.id in ids_of([page.connections])
    assert 1 == page.matching


async def test_all_filters_must_match(manager: ConnectionManager) -> None:
    follower = frozenset({"news"})
    _, wanted = connect(manager, Identity("alice", topics=follower), client="192.0.2.7")
    for identity, client in (
        (Identity("alice", topics=follower), "198.51.100.1"),
        (Identity("alice"), "192.0.2.7"),
        (Identity("bob", topics=follower), "192.0.2.7"),
    ):
        connect(manager, identity, client=client)

    query = ConnectionQuery(limit=9, user_id="alice", topic="news", search="192.0.2")
    page = await manager.running.cluster.listing.page(query)
    followers = await manager.running.cluster.listing.page(ConnectionQuery(limit=9, topic="news"))

    assert ([wanted.id], 4, 1) == (ids_of([page.connections]), page.total, page.matching)
    assert 3 == followers.matching


async def test_the_topics_of_a_connection_are_counted_and_the_first_are_listed(manager: ConnectionManager) -> None:
    topics = [f"rooms.{n:04}" for n in range(1_000)]
    connect(manager, Identity("alice", topics=frozenset(topics)))

    [info] = (await manager.running.cluster.listing.page(ConnectionQuery(limit=1))).connections

    assert (topics[:20], 1_000) == (info.topics, info.total_topics)


async def test_the_question_of_another_node_comes_as_json() -> None:
    query = ConnectionQuery(limit=5, sort="lag", after=(17, "node.1"), search="a")

    assert query == ConnectionQuery.of({**dataclasses.asdict(query), "after": [17, "node.1"]})


@pytest.mark.long
@pytest.mark.parametrize("search", ["", "room-9"])
async def test_ten_thousand_connections_are_listed_in_slices(manager: ConnectionManager, search: str) -> None:
    """Other work of the event loop goes on in between."""
    for n in range(10_000):
        connect(manager, Identity(f"user-{n % 977}", topics=frozenset({f"room-{n % 97}", "news"})))
    query: Any = {"limit": 1_001, "search": search}
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    for sort in ("id", "user", "lag", "connected_at"):
        page = await manager.running.cluster.listing.page(ConnectionQuery(sort=sort, **query))
    beside.cancel()

    assert min(1_001, page.matching) == len(page.connections)
    assert turns >= 4
