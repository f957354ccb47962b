"""Following topics: from the position on, or with their past."""

import asyncio
import json
from typing import Any, cast

import pytest

from support import connect, flushed, managed, nth, nths, shape, until
from unmissed import Connection, ConnectionManager, Identity
from unmissed.core.audience import MAX_TOPICS
from unmissed.testing import FakeSocket, ManualClock

ALICE = Identity("alice", topics=frozenset({"news", "orders.alice", "rooms.*"}))


def ask(socket: FakeSocket, kind: str, *topics: str, **more: Any) -> dict[str, Any]:
    """Send a frame, and return the last frame of the server."""
    socket.receive(json.dumps({"type": kind, "topics": topics, **more}))
    return socket.frames[-1]


async def test_a_connection_follows_what_it_asked_for_or_all_that_is_granted_by_name(
    manager: ConnectionManager,
) -> None:
    default, chosen, nothing = (
        connect(manager, ALICE),
        connect(manager, ALICE, topics=["rooms.1"]),
        connect(manager, ALICE, topics=[]),
    )

    assert ["news", "orders.alice"] == default[0].frames[0]["topics"]
    assert ["rooms.1"] == chosen[0].frames[0]["topics"]
    assert "topics" not in nothing[0].frames[0]
    await manager.emit("a", topics=["news", "rooms.1"])
    await manager.emit("b", topics=["rooms.2"])
    await manager.emit("c", topics=["orders.bob"], users=["alice"])
    await flushed(manager)
    assert [nths(1, 3), nths(1, 3), nths(3)] == [numbers(socket) for socket, _ in (default, chosen, nothing)]


async def test_a_topic_is_followed_from_the_position_on(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, ALICE, topics=[])
    await manager.emit("before", topics=["news"])
    await flushed(manager)

    answer = ask(socket, "follow", "news", "rooms.1")

    assert {"type": "following", "added": ["news", "rooms.1"], "removed": [], "sequence_number": nth(1)} == answer
    await manager.emit("after", topics=["news"])
    await flushed(manager)
    assert nths(2) == numbers(socket)


@pytest.mark.parametrize("more", [{}, {"since": 0}])
@pytest.mark.parametrize("kind", ["follow", "unfollow"])
async def test_the_answer_has_the_id_of_the_frame(manager: ConnectionManager, kind: str, more: dict[str, int]) -> None:
    socket, _ = connect(manager, ALICE, topics=[])

    answer = ask(socket, kind, "news", id="f1", **more)

    assert ("following", "f1") == (answer["type"], answer["id"])


async def test_a_refused_topic_is_told_with_the_id_of_the_frame(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, ALICE, topics=[])

    answer = ask(socket, "follow", "secret", id="f1")

    assert ("error", "f1", 4403) == (answer["type"], answer["id"], answer["code"])


async def test_frames_with_an_id_may_be_refused_without_an_end_of_the_connection(manager: ConnectionManager) -> None:
    socket, connection = connect(manager, ALICE, topics=[])

    answers = [ask(socket, "follow", "no name", id=f"f{number}")["id"] for number in range(5)]

    assert [f"f{number}" for number in range(5)] == answers
    assert not connection.closing


async def test_the_answer_tells_the_position_of_a_client_that_is_behind(manager: ConnectionManager) -> None:
    """With another number, a client that reconnects at that moment would lose what it has not read."""
    socket, connection = connect(manager, ALICE, topics=[])
    socket.pause()
    await manager.emit("everyone")
    await manager.emit("topic", topics=["news"])

    socket.receive('{"type":"follow","topics":["news"]}')
    socket.resume()

    assert nth(2) == connection.position
    assert [("following", nth(0)), ("everyone", nth(1)), ("topic", nth(2))] == shape(socket)[1:]


async def test_an_unfollowed_topic_is_silent(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, ALICE)

    answer = ask(socket, "unfollow", "news", "never.followed")

    assert {"type": "following", "added": [], "removed": ["news"], "sequence_number": nth(0)} == answer
    await manager.emit("a", topics=["news"])
    await flushed(manager)
    assert [] == numbers(socket)


async def test_the_past_from_0_is_the_past_from_the_start_of_the_epoch(clock: ManualClock) -> None:
    """What was evicted was for others: neither way of saying where the epoch starts may declare a gap."""
    first = 1_796_000_000_000_001
    async with managed(clock, max_messages=2, first_number=first) as manager:
        for _ in range(3):
            await manager.emit("noise")
        await manager.emit("a", topics=["news"])
        sockets = [connect(manager, ALICE, topics=[])[0] for _ in range(2)]

        answers = [
            ask(socket, "follow", "news", since=since)["outcome"]
            for socket, since in zip(sockets, (0, first - 1), strict=True)
        ]

        assert ["complete", "complete"] == answers
        assert [[first + 3], [first + 3]] == [numbers(socket) for socket in sockets]


async def test_an_answer_is_no_larger_than_what_it_changes(manager: ConnectionManager) -> None:
    """A frame of 30 bytes must not be answered with the names of a thousand topics."""
    socket, _ = connect(manager, ALICE, topics=[f"rooms.{'x' * 180}.{number}" for number in range(200)])

    for kind in ("follow", "unfollow"):
        ask(socket, kind)

    assert max(map(len, socket.payloads[1:])) < 100


@pytest.mark.parametrize("topic", ["sport", "orders.bob", "room"])
async def test_a_topic_that_is_not_granted_is_refused_and_nothing_changes(
    manager: ConnectionManager, topic: str
) -> None:
    socket, connection = connect(manager, ALICE)

    for _ in range(5):
        answer = ask(socket, "follow", "rooms.1", topic)

    assert ("error", 4403) == (answer["type"], answer["code"])
    assert f"the topic {topic} is not granted" in answer["detail"]
    assert {"news", "orders.alice"} == connection.topics
    assert socket.closed_with is None


async def test_too_many_topics_are_refused(manager: ConnectionManager) -> None:
    socket, connection = connect(manager, ALICE, topics=[f"rooms.{number}" for number in range(MAX_TOPICS)])

    assert "unfollow some" in ask(socket, "follow", "news")["detail"]
    assert MAX_TOPICS == len(connection.topics)
    assert "following" == ask(socket, "follow", "rooms.1")["type"]


@pytest.mark.parametrize(
    "more",
    [
        {"topics": "news"},
        {"topics": None},
        {"topics": [1]},
        {"topics": ["a b"]},
        {"since": -1},
        {"since": 1.5},
        {"since": True},
        {"since": "1"},
        {"since": 2**53},
        {"epoch": 1, "since": 0},
    ],
)
async def test_a_frame_that_makes_no_sense_is_refused(manager: ConnectionManager, more: dict[str, Any]) -> None:
    socket, connection = connect(manager, ALICE, topics=[])

    socket.receive(json.dumps({"type": "follow", "topics": ["news"], **more}))

    assert ("error", 4400) == (socket.frames[-1]["type"], socket.frames[-1]["code"])
    assert not connection.topics


async def test_the_past_of_a_topic_comes_first_and_only_what_was_not_visible_before(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, ALICE, topics=["rooms.1"])
    await manager.emit("1", topics=["news"])
    await manager.emit("2", topics=["news", "rooms.1"])
    await manager.emit("3")
    await manager.emit("4", topics=["news"], users=["alice"])
    await manager.emit("5", topics=["news"])
    await flushed(manager)
    before = len(socket.frames)

    ask(socket, "follow", "news", "rooms.1", since=0)
    await manager.emit("6", topics=["news"])
    await flushed(manager)

    frames = shape(socket)[before:]
    assert [("1", nth(1)), ("5", nth(5)), ("following", nth(5)), ("6", nth(6))] == frames
    assert "complete" == socket.frames[before + 2]["outcome"]


@pytest.mark.parametrize(
    ("since", "epoch", "outcome"),
    [(nth(1), None, "gap"), (nth(10_000), None, "reset"), (10_000, None, "reset"), (nth(4), "other", "reset")],
)
async def test_the_outcome_of_the_past_is_told(
    manager: ConnectionManager, since: int, epoch: str | None, outcome: str
) -> None:
    socket, _ = connect(manager, ALICE, topics=[])
    for _ in range(manager.settings.max_messages + 2):
        await manager.emit("a", topics=["news"])
    await flushed(manager)

    answer = ask(socket, "follow", "news", since=since, epoch=epoch)

    assert outcome == answer["outcome"]
    assert manager.settings.max_messages == len(numbers(socket))


async def test_what_others_lost_is_no_gap_in_the_past_of_a_topic(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, ALICE, topics=[])
    await manager.emit("a", topics=["rooms.1"])
    for _ in range(manager.settings.max_messages):
        await manager.emit("b")
    await flushed(manager)

    assert "complete" == ask(socket, "follow", "news", since=0)["outcome"]


async def test_the_past_includes_what_a_followed_topic_said_before_it_was_followed(manager: ConnectionManager) -> None:
    await manager.emit("both", topics=["news", "rooms.1"])
    connected_later, _ = connect(manager, ALICE, topics=["news"])
    followed_later, _ = connect(manager, ALICE, topics=[], since=0)
    ask(followed_later, "follow", "news")
    await manager.emit("seen", topics=["news", "rooms.1"])
    await flushed(manager)
    assert [nths(2), nths(2)] == [numbers(connected_later), numbers(followed_later)]

    for socket in (connected_later, followed_later):
        ask(socket, "follow", "rooms.1", since=0)
        assert nths(2, 1) == numbers(socket)


@pytest.mark.parametrize("topic", ["rooms.1", "news"])
async def test_messages_for_everyone_are_no_part_of_the_past_of_a_topic(topic: str, clock: ManualClock) -> None:
    async with managed(clock, max_messages=2) as manager:
        socket, _ = connect(manager, ALICE, topics=["news"])
        for _ in range(5):
            await manager.emit("everyone")
        await flushed(manager)

        answer = ask(socket, "follow", topic, since=nth(1))

        assert "complete" == answer["outcome"]
        assert nths(1, 2, 3, 4, 5) == numbers(socket)


async def test_a_client_that_follows_and_unfollows_leaves_nothing_behind(clock: ManualClock) -> None:
    async with managed(clock, client_burst=90) as manager:
        socket, connection = connect(manager, ALICE, topics=[])
        for number in range(90):
            kind = "unfollow" if number % 2 else "follow"
            ask(socket, kind, f"rooms.{number // 2}")

        assert not connection.topics
        assert not connection.closing
        assert not cast("Any", connection.reader)._delivered_from  # noqa: SLF001


async def test_a_long_past_waits_for_the_client_and_what_is_evicted_meanwhile_is_a_gap(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket = await with_a_long_past(manager)

    socket.receive('{"type":"follow","topics":["news"],"since":0}')
    assert nths(1, 2) == numbers(socket)
    socket.receive('{"type":"follow","topics":["rooms.1"]}')
    clock.advance(manager.settings.max_age)
    manager.running.check()
    for _ in range(10):
        socket.resume()

    assert nths(1, 2) == numbers(socket)
    kinds = [frame["type"] for frame in socket.frames if frame["type"] != "a"]
    assert ["connected", "error", "following"] == [kind for kind in kinds if kind != "heartbeat"]
    answer = next(frame for frame in socket.frames if frame["type"] == "following")
    assert (nth(4), "gap") == (answer["sequence_number"], answer["outcome"])


async def test_a_past_that_was_sent_before_is_gone_through_in_steps_that_let_others_run(clock: ManualClock) -> None:
    async with managed(clock, max_messages=20_000, first_number=1_796_000_000_000_001) as manager:
        for _ in range(20):
            await manager.publish_batch([{"type": "a", "topics": ["rooms.1", "rooms.2"]}] * 1_000)
        await flushed(manager)
        socket, _ = connect(manager, ALICE, topics=["rooms.1"], since=0)
        await flushed(manager)
        assert 20_000 == len(numbers(socket))

        socket.receive('{"type":"follow","topics":["rooms.2"],"since":0}')
        socket.receive('{"type":"ping"}')
        assert "pong" == socket.frames[-1]["type"]
        await until(lambda: socket.payloads[-1].startswith(b'{"type":"following"'))

        assert "complete" == socket.frames[-1]["outcome"]
        assert 20_000 == len(numbers(socket))


async def test_unfollowing_ends_the_past(manager: ConnectionManager) -> None:
    socket = await with_a_long_past(manager)

    socket.receive('{"type":"follow","topics":["news"],"since":0}')
    socket.receive('{"type":"unfollow","topics":["news"]}')
    for _ in range(10):
        socket.resume()

    assert nths(1, 2) == numbers(socket)
    changes = [(frame["added"], frame["removed"]) for frame in socket.frames if frame["type"] == "following"]
    assert [([], ["news"]), ([], [])] == changes


async def test_answers_that_wait_for_the_past_come_right_after_it(manager: ConnectionManager) -> None:
    socket, _ = await with_an_answer_after_the_past(manager)

    socket.resume()
    await turns()

    assert ["connected", *["a"] * 4, "following", "published"] == [frame["type"] for frame in socket.frames]


async def test_a_connection_that_is_closed_during_the_past_is_closed_at_its_end(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, connection = await with_an_answer_after_the_past(manager)
    clock.advance(manager.settings.heartbeat_seconds)
    manager.running.check()

    manager.disconnect(connection.id, code=1000, reason="done")
    socket.resume()
    await turns()

    assert (1000, "done") == socket.closed_with


async def test_what_a_client_has_seen_elsewhere_is_not_sent_again_however_far_its_connection_is_behind(
    clock: ManualClock,
) -> None:
    async with managed(clock, max_messages=10_000) as manager:
        for _ in range(5):
            await manager.publish_batch([{"type": "a"}] * 1_000)
        await manager.publish_batch([{"type": "a", "topics": ["news"]}] * 500)
        socket, _ = connect(manager, ALICE, topics=[], since=nth(0))

        socket.receive(json.dumps({"type": "follow", "topics": ["news"], "since": nth(5_500)}))
        await until(lambda: any(frame["type"] == "following" for frame in socket.frames))
        await flushed(manager)

        assert nths(*range(1, 5_001)) == numbers(socket)


async def with_an_answer_after_the_past(manager: ConnectionManager) -> tuple[FakeSocket, Connection]:
    """Return a client that takes nothing, and to which two chunks of news and then an answer are to be sent."""
    for _ in range(4):
        await manager.emit("a", "x" * 50_000, topics=["news"])
    socket, connection = connect(manager, ALICE, topics=[])
    socket.pause()
    socket.receive(json.dumps({"type": "follow", "topics": ["news"], "since": 0}))
    connection.send_frame(b'{"type":"published"}', after=nth(4))
    return socket, connection


async def turns() -> None:
    """Let the event loop do all that it does at once."""
    for _ in range(10):
        await asyncio.sleep(0)


def numbers(socket: FakeSocket) -> list[int]:
    """Return the numbers of the messages that arrived."""
    return [frame["sequence_number"] for frame in socket.frames if "timestamp" in frame]


async def with_a_long_past(manager: ConnectionManager) -> FakeSocket:
    """Return a socket that accepts one chunk at a time, where two chunks of news were published."""
    socket, _ = connect(manager, ALICE, topics=[])
    for _ in range(4):
        await manager.emit("a", "x" * 50_000, topics=["news"])
    await flushed(manager)
    write_one_chunk_at_a_time(socket)
    return socket


def write_one_chunk_at_a_time(socket: FakeSocket) -> None:
    """Let a socket accept one write, and then wait for ``resume``."""
    write = socket.write

    def write_and_pause(chunk: Any) -> None:
        write(chunk)
        socket.pause()

    socket.write = write_and_pause  # type: ignore[method-assign]
