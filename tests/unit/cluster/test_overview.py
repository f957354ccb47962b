"""Topics, nodes and the last hour, of all nodes."""

from collections import Counter
from functools import partial
from typing import Any

from support import ALICE, BOB, connect, managed, nth, until
from unmissed import ConnectionManager, Identity
from unmissed.cluster import overview
from unmissed.cluster.overview import Overview, OwnNode
from unmissed.delivery.history import HistoryKind
from unmissed.testing import ManualClock

Managers = list[ConnectionManager]


def follower(*topics: str) -> Identity:
    return Identity("alice", topics=frozenset(topics))


async def test_a_topic_is_counted_once_on_all_nodes(managers: Managers) -> None:
    one, two, three = managers
    connect(one, follower("news", "sport"))
    connect(two, follower("news"))
    connect(three, follower("news", "music"))

    every = await one.running.cluster.overview.topics(search="", limit=2)
    found = await two.running.cluster.overview.topics(search="S", limit=10)

    assert ({"news": 3, "music": 1}, 3, 3) == (every.connections, every.total, every.matching)
    assert ({"news": 3, "music": 1, "sport": 1}, 3, 3) == (found.connections, found.total, found.matching)


async def test_only_topics_with_the_text_are_listed(manager: ConnectionManager) -> None:
    connect(manager, follower("News", "sport", "newsletter"))
    connect(manager, follower("sport"))
    leaving, _ = connect(manager, follower("old"))
    leaving.drop()

    found = await manager.running.cluster.overview.topics(search="NEWS", limit=10)

    assert ({"News": 1, "newsletter": 1}, 3, 2) == (found.connections, found.total, found.matching)


async def test_a_node_that_follows_many_topics_names_the_largest(manager: ConnectionManager) -> None:
    """Then the numbers of topics are those of the nodes, added up."""
    running = manager.running
    measured = partial(running.measures.report, counters={}, gauges={})
    own = OwnNode("here", running.connections, running.history, dict, measured)
    connect(manager, follower("news"))
    there = {"connections": {"news": 5, "sport": 4}, "total": 20_000, "matching": 15_000}

    async def ask(kind: str, content: Any) -> dict[str, Any]:
        assert ("topics", "") == (kind, content)
        return {"there": there}

    found = await Overview(own, unix_time=float, ask=ask).topics(search="", limit=1)

    assert ({"news": 6}, 20_000, 15_000) == (found.connections, found.total, found.matching)
    assert overview.MAX_COUNTED_TOPICS < 20_000


async def test_every_node_says_how_it_is(managers: Managers) -> None:
    one, two, _ = managers
    connect(one)
    connect(two)
    slow, _ = connect(two, BOB)
    slow.pause()
    await one.emit("a")
    await until(lambda: len({manager.window.latest for manager in managers}) == 1)
    two.running.draining = True

    found = await one.running.cluster.overview.nodes(one.running.cluster.nodes.others)

    assert {manager.running.node_id for manager in managers} == set(found)
    facts = found[two.running.node_id]
    assert facts is not None
    assert (2, 1, one.window.latest, True, None) == tuple(
        facts[name] for name in ("connections", "behind", "latest", "draining", "problem")
    )


async def test_every_node_says_what_it_has_measured(managers: Managers) -> None:
    one, two, _ = managers
    connect(two, since=nth(7))[0].drop(4_999)
    await two.emit("a")

    found = await one.running.cluster.overview.measures()

    assert {manager.running.node_id for manager in managers} == set(found)
    measures = found[two.running.node_id]
    assert (1, 0) == (measures.counters["published"], found[one.running.node_id].counters["published"])
    assert ([("websocket", "reset", 1)], {"other": 1}) == (
        [tuple(each) for each in measures.recoveries],
        measures.closes,
    )
    assert {one.running.node_id} == set(one.running.cluster.overview.measures_here())


async def test_a_node_that_does_not_answer_is_known_by_its_id(manager: ConnectionManager) -> None:
    found = await manager.running.cluster.overview.nodes(["silent"])

    assert found["silent"] is None
    assert {"silent", manager.running.node_id} == set(found)


async def test_the_last_hour_of_all_nodes_is_one_history(managers: Managers) -> None:
    one, two, three = managers
    for manager, code in ((one, 1000), (two, 4_999), (three, 1006), (one, 1006)):
        connect(manager, ALICE)[0].drop(code, "it ends")

    past = await two.running.cluster.overview.past(limit=3)
    closes = await three.running.cluster.overview.past(limit=9, kind="close")
    gaps = await three.running.cluster.overview.past(limit=9, kind="gap")

    counts = Counter[int | None]()
    for minute in past.minutes:
        counts[minute.code] += minute.count
    assert {1000: 1, None: 1, 1006: 2} == counts
    assert [
        (one.running.node_id, 1006),
        (three.running.node_id, 1006),
        (two.running.node_id, 4_999),
    ] == [(event.node_id, event.entry.code) for event in past.events]
    assert (4, 0) == (len(closes.events), len(gaps.events))
    assert {HistoryKind.CLOSE} == {event.entry.kind for event in closes.events}


async def test_the_minutes_of_a_node_are_those_of_the_wall_clock() -> None:
    clock = ManualClock(1_796_000_017.0)
    async with managed(clock) as manager:
        for seconds in (0, 50, 60):
            clock.advance(seconds)
            connect(manager, since=nth(7))[0].drop()

        past = await manager.running.cluster.overview.past(limit=9)

    assert [(0, "reset", None, 1), (0, "close", 1006, 1)] == [
        (each.time % 60, each.kind, each.code, each.count) for each in past.minutes[:2]
    ]
    assert 6 == sum(each.count for each in past.minutes)
    assert 3 == len({each.time for each in past.minutes})
