"""Presence as messages, as the clients of one node see it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support import connect, managed, until
from unmissed import ConfigurationError, ConnectionManager, Identity, InvalidMessage
from unmissed.testing import FakeSocket, ManualClock

ROOM = "rooms.1"


@pytest.fixture
async def present(clock: ManualClock) -> AsyncIterator[ConnectionManager]:
    """A manager with presence in rooms."""
    async with managed(clock, presence="rooms.*", presence_grace_seconds=0, client_burst=100) as manager:
        yield manager


def enter(manager: ConnectionManager, user_id: str, *topics: str) -> FakeSocket:
    return connect(manager, Identity(user_id, topics=frozenset({"*"})), topics=topics or (ROOM,))[0]


def seen(socket: FakeSocket) -> list[tuple[str, Any, bool]]:
    """Return whom the messages about members name, what they say, and whether they say that the user has left."""
    found = [frame for frame in socket.frames if frame["type"] == "presence"]
    return [(frame["key"], frame["data"], "deleted" in frame) for frame in found]


async def ask(socket: FakeSocket, request_id: str, data: object) -> Any:
    """Send the command, and return the text of the error that answers it, or the data of its result."""
    socket.receive(json.dumps({"type": "command", "id": request_id, "name": "presence", "data": data}))

    def answers() -> list[dict[str, Any]]:
        return [frame for frame in socket.frames if frame.get("id") == request_id]

    await until(answers)
    return answers()[0].get("detail")


async def test_followers_of_a_topic_see_who_comes_and_leaves_and_nobody_else_does(present: ConnectionManager) -> None:
    outside = enter(present, "carol", "rooms.2", "news")
    alice = enter(present, "alice")
    await until(lambda: seen(alice))

    bob = enter(present, "bob", ROOM, "news")
    await until(lambda: seen(bob))
    bob.drop()
    await until(lambda: len(seen(alice)) == 3)

    assert [
        ("alice", {"connections": 1}, False),
        ("bob", {"connections": 1}, False),
        ("bob", {"connections": 0}, True),
    ] == seen(alice)
    assert [("carol", {"connections": 1}, False)] == seen(outside)


async def test_a_client_comes_with_follow_and_leaves_with_unfollow(present: ConnectionManager) -> None:
    alice, bob = enter(present, "alice"), enter(present, "bob", "news")
    await until(lambda: seen(alice))

    bob.receive(json.dumps({"type": "follow", "topics": [ROOM]}))
    await until(lambda: len(seen(alice)) == 2)
    bob.receive(json.dumps({"type": "unfollow", "topics": [ROOM]}))
    await until(lambda: len(seen(alice)) == 3)

    assert [("bob", {"connections": 1}, False), ("bob", {"connections": 0}, True)] == seen(alice)[1:]


async def test_a_client_sets_its_state_with_a_command(present: ConnectionManager) -> None:
    alice, bob = enter(present, "alice"), enter(present, "bob")

    assert None is await ask(alice, "1", {"topic": ROOM, "state": {"status": "away"}})

    await until(lambda: len(seen(bob)) == 2)
    assert ("alice", {"connections": 1, "state": {"status": "away"}}, False) in seen(bob)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "Input should be an object"),
        ({"topic": ROOM}, "state: Field required"),
        ({"topic": 1, "state": 1}, "topic: Input should be a valid string"),
        ({"topic": ROOM, "state": 1, "user_id": "bob"}, "user_id: Extra inputs are not permitted"),
        ({"topic": "rooms.2", "state": 1}, "follow rooms.2 first: presence is for those who follow a topic"),
        ({"topic": "news", "state": 1}, "the topic news has no presence: UNMISSED_PRESENCE does not name it"),
        ({"topic": ROOM, "state": ["x" * 2_048]}, "the state has 2052 bytes of JSON, and at most 2048 are allowed"),
    ],
)
async def test_a_command_that_is_wrong_is_answered_with_the_reason(
    present: ConnectionManager, data: object, reason: str
) -> None:
    alice = enter(present, "alice", ROOM, "news")

    assert reason in await ask(alice, "1", data)

    await until(lambda: seen(alice))
    assert [("alice", {"connections": 1}, False)] == seen(alice)


async def test_only_the_server_publishes_messages_of_the_type(present: ConnectionManager) -> None:
    with pytest.raises(InvalidMessage, match="the type 'presence' is reserved for the protocol"):
        await present.publish({"type": "presence", "data": {"connections": 9}}, topics=[ROOM])


async def test_without_the_setting_there_are_no_messages_and_the_name_of_the_command_is_free(
    clock: ManualClock,
) -> None:
    manager, called = managed(clock), list[object]()

    @manager.command("presence")
    async def own(data: object) -> None:
        called.append(data)

    async with manager:
        alice = enter(manager, "alice")
        await ask(alice, "1", {"topic": ROOM})
        await manager.emit("said", topics=[ROOM])
        await until(lambda: alice.frames[-1]["type"] == "said")

    assert [{"topic": ROOM}] == called
    assert [] == seen(alice)


def test_with_the_setting_the_name_of_the_command_is_taken(clock: ManualClock) -> None:
    manager = managed(clock, presence="rooms.*")

    with pytest.raises(ConfigurationError, match="two commands have the name 'presence': rename one"):
        manager.command("presence")(print)


async def test_those_who_are_there_at_the_stop_and_come_back_after_it_are_no_message_on_a_log_that_lasts(
    clock: ManualClock, tmp_path: Any
) -> None:
    settings: dict[str, Any] = {
        "presence": "rooms.*",
        "log_url": f"sqlite:{tmp_path}/log.db",
        "presence_grace_seconds": 10.0,
    }
    async with managed(clock, **settings) as manager:
        alice = enter(manager, "alice")
        enter(manager, "bob")
        await until(lambda: len(seen(alice)) == 2)

    async with managed(clock, **settings) as manager:
        alice = enter(manager, "alice")
        enter(manager, "carol")
        await until(lambda: seen(alice))
        clock.advance(11)
        await until(lambda: len(seen(alice)) == 2)

    assert [("carol", {"connections": 1}, False), ("bob", {"connections": 0}, True)] == seen(alice)
