"""What a client sends where the application authorizes topics, and the limits for waiting requests."""

import asyncio
import json
from typing import Any

import pytest

from support import ALICE, connect, managed, until
from unmissed import Access, ConnectionManager, Identity
from unmissed.core.wire import CloseCode
from unmissed.delivery import inbox
from unmissed.testing import FakeSocket, ManualClock


def send(socket: FakeSocket, kind: str, **fields: Any) -> None:
    socket.receive(json.dumps({"type": kind, **fields}))


class Door:
    """An application that decides about topics when it is told to, and verifies every token."""

    def __init__(self, *, allowed: set[str]) -> None:
        self.allowed = allowed
        self.asked: list[tuple[str, str]] = []
        self.may_decide = asyncio.Event()

    async def authorize(self, identity: Identity, topic: str) -> bool:
        self.asked.append((identity.user_id, topic))
        await self.may_decide.wait()
        if topic == "broken":
            raise RuntimeError("hunter2")
        return topic in self.allowed

    @property
    def access(self) -> Access:
        return Access(lambda token: Identity(token.partition(":")[0]), self.authorize)


async def test_changes_are_authorized_in_their_order_and_delay_nothing(manager: ConnectionManager) -> None:
    door = Door(allowed={"a", "b"})
    socket, connection = connect(manager, access=door.access, topics=[])
    send(socket, "follow", topics=["a"])
    send(socket, "unfollow", topics=["a"])
    send(socket, "follow", topics=["b"])
    send(socket, "ping")
    await until(lambda: door.asked)

    assert [("alice", "a")] == door.asked
    assert ["connected", "pong"] == [frame["type"] for frame in socket.frames]
    door.may_decide.set()
    await until(lambda: len(socket.frames) == 5)
    assert [["a"], [], ["b"]] == [frame["topics"] for frame in socket.frames[2:]]
    assert {"b"} == connection.topics


async def test_a_request_that_waited_for_a_decision_is_not_done_when_its_connection_was_closed_meanwhile(
    manager: ConnectionManager,
) -> None:
    door = Door(allowed={"a"})
    socket, _ = connect(manager, Identity("alice", scopes=frozenset({"messages:publish"})), access=door.access)
    send(socket, "follow", topics=["a"])
    send(socket, "publish", id="1", message={"type": "a"})
    await until(lambda: door.asked)

    await manager.log_out("alice")
    door.may_decide.set()
    await asyncio.gather(*manager._requests._tasks)  # noqa: SLF001

    assert 0 == manager.window.latest


async def test_a_topic_that_is_not_authorized_is_refused_and_the_connection_stays(manager: ConnectionManager) -> None:
    door = Door(allowed=set())
    door.may_decide.set()
    socket, connection = connect(manager, access=door.access, topics=[])

    for _ in range(4):
        send(socket, "follow", topics=["a"])
    await until(lambda: len(socket.frames) == 5)

    assert [4403] * 4 == [frame["code"] for frame in socket.frames[1:]]
    assert not connection.topics
    assert not socket.closed_with


async def test_a_renewed_token_keeps_the_topics_that_are_authorized_now(manager: ConnectionManager) -> None:
    door = Door(allowed={"a", "b"})
    door.may_decide.set()
    socket, connection = connect(
        manager, Identity("alice", topics=frozenset({"a", "b"})), access=door.access, topics=["a", "b"]
    )
    door.allowed.discard("a")

    send(socket, "authenticate", token="alice:new")
    await until(lambda: socket.frames[-1]["type"] == "authenticated")

    assert ["b"] == socket.frames[-1]["topics"]
    assert {"b"} == connection.topics


async def test_a_failing_decision_is_logged_and_answered_without_its_text(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(allowed=set())
    door.may_decide.set()
    socket, _ = connect(manager, access=door.access, topics=[])

    send(socket, "follow", topics=["broken"])
    await until(lambda: socket.frames[-1]["type"] == "error")

    assert 1011 == socket.frames[-1]["code"]
    assert "hunter2" not in json.dumps(socket.frames)
    assert "hunter2" in caplog.text


async def test_too_many_requests_behind_a_slow_one_close_the_connection(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_WAITING", 3)
    async with managed(clock) as manager:
        never = asyncio.Event()
        manager.command("slow")(never.wait)
        socket, _ = connect(manager, ALICE)
        send(socket, "command", id="first", name="slow")
        await asyncio.sleep(0)

        for number in range(4):
            assert not socket.closed_with
            send(socket, "command", id=str(number), name="slow")

        assert socket.closed_with
        assert CloseCode.TOO_MANY == socket.closed_with[0]
        assert "waiting for a slow one" in socket.closed_with[1]


async def test_a_renewed_token_counts_for_the_requests_after_it(manager: ConnectionManager) -> None:
    door = Door(allowed={"a"})
    identity = Identity("alice", scopes=frozenset({"messages:publish"}))
    access = Access(lambda _: identity, door.authorize)
    socket, _ = connect(manager, Identity("alice", topics=frozenset({"a"})), access=access, topics=["a"])

    send(socket, "authenticate", token="publisher")
    send(socket, "publish", id="1", message={"type": "b"})
    await until(lambda: door.asked)
    door.may_decide.set()
    await until(lambda: socket.frames[-1]["type"] == "published")

    assert ["authenticated", "b", "published"] == [frame["type"] for frame in socket.frames[1:]]


async def test_a_topic_that_was_unfollowed_stays_so_after_a_renewal(manager: ConnectionManager) -> None:
    identity = Identity("alice", topics=frozenset({"a", "b"}))
    socket, connection = connect(manager, identity, access=Access(lambda _: identity))

    send(socket, "unfollow", topics=["a"])
    send(socket, "authenticate", token="new")

    assert "authenticated" == socket.frames[-1]["type"]
    assert {"b"} == connection.topics
