"""What a client sends where the application authorizes topics, and the limits for waiting requests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support import ALICE, ManualLog, connect, managed, nth, until
from unmissed import Access, ConnectionManager, Identity
from unmissed.core.close_codes import CloseCode
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
    changes = [(frame["added"], frame["removed"]) for frame in socket.frames[2:]]
    assert [(["a"], []), ([], ["a"]), (["b"], [])] == changes
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
    await asyncio.gather(*manager.running._requests._tasks)  # noqa: SLF001

    assert nth(0) == manager.window.latest


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

    assert ([], ["a"]) == (socket.frames[-1]["added"], socket.frames[-1]["removed"])
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


async def test_a_client_is_not_read_while_too_much_of_it_waits_for_a_slow_request(clock: ManualClock) -> None:
    async with managed(clock, client_burst=1_000) as manager:
        gates = [asyncio.Event() for _ in range(90)]
        manager.command("slow")(lambda number: gates[len(number) - 1_000].wait())
        socket, _ = connect(manager, ALICE)

        sent = 0
        while not socket.reading_paused:
            send(socket, "command", id=str(sent), name="slow", data="x" * (1_000 + sent))
            sent += 1
        send(socket, "ping")
        assert "pong" == socket.frames[-1]["type"]
        assert not socket.closed_with
        for gate in gates[: sent // 2]:
            gate.set()
        await until(lambda: not socket.reading_paused)
        for gate in gates:
            gate.set()
        await until(lambda: sum(frame["type"] == "result" for frame in socket.frames) == sent)

        assert [str(number) for number in range(sent)] == [frame["id"] for frame in socket.frames if "id" in frame]


async def test_one_large_frame_may_wait_and_is_as_much_as_many_small_ones(manager: ConnectionManager) -> None:
    never = asyncio.Event()
    manager.command("slow")(lambda data: never.wait())  # noqa: ARG005  # the client sends it
    socket, _ = connect(manager, ALICE)

    paused = list[bool]()
    for number in range(3):
        send(socket, "command", id=str(number), name="slow", data="x" * 40_000)
        await asyncio.sleep(0)
        paused.append(socket.reading_paused)

    assert [False, False, True] == paused


async def test_a_client_that_is_not_read_is_read_again_when_it_is_closed(manager: ConnectionManager) -> None:
    """Its answer to the close, and what follows, must not wait behind the pause."""
    never = asyncio.Event()
    manager.command("slow")(lambda data: never.wait())  # noqa: ARG005  # the client sends it
    socket, connection = connect(manager, ALICE)
    for number in range(3):
        send(socket, "command", id=str(number), name="slow", data="x" * 60_000)
        await asyncio.sleep(0)
    assert socket.reading_paused

    connection.close(CloseCode.NORMAL, "")

    assert not socket.reading_paused


async def test_a_request_waits_until_the_client_has_read_the_answers_before_it(manager: ConnectionManager) -> None:
    ran = list[int]()

    @manager.command("large")
    def large(number: int) -> str:
        ran.append(number)
        return "x" * 70_000

    socket, _ = connect(manager, ALICE)
    socket.pause()
    for number in range(3):
        send(socket, "command", id=str(number), name="large", data=number)
    await until(lambda: socket.reading_paused)
    assert [0] == ran
    socket.resume()
    await until(lambda: len(socket.frames) == 4)

    assert ["0", "1", "2"] == [frame["id"] for frame in socket.frames[1:]]
    assert not socket.reading_paused
    assert not socket.closed_with


async def test_requests_that_wait_for_a_client_to_read_are_forgotten_when_it_leaves(manager: ConnectionManager) -> None:
    ran = list[int]()

    @manager.command("large")
    def large(number: int) -> str:
        ran.append(number)
        return "x" * 70_000

    socket, _ = connect(manager, ALICE)
    socket.pause()
    for number in range(2):
        send(socket, "command", id=str(number), name="large", data=number)
    await until(lambda: socket.reading_paused)
    socket.drop()
    again, _ = connect(manager, ALICE)
    send(again, "command", id="2", name="large", data=2)
    await until(lambda: 2 in ran)

    assert [0, 2] == ran


async def test_a_client_that_reads_no_answers_is_not_read(manager: ConnectionManager, clock: ManualClock) -> None:
    socket, connection = connect(manager, ALICE)
    socket.pause()

    sent = 0
    while not socket.reading_paused:
        send(socket, "ping")
        sent += 1
        if sent % 50 == 0:
            clock.advance(1)
            manager.running.check()
    most = connection.reader.unread_bytes
    socket.resume()

    assert inbox.MAX_PENDING_BYTES <= most < inbox.MAX_PENDING_BYTES + 1_000
    assert not socket.reading_paused
    assert 0 == connection.reader.unread_bytes


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


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("follow", {"topics": []}),
        ("unfollow", {"topics": []}),
        ("authenticate", {"token": "alice"}),
        ("command", {"id": "c", "name": "none"}),
        ("publish", {"id": "p", "message": {"type": "a"}}),
    ],
)
async def test_every_request_counts_in_the_rate_of_its_client(
    clock: ManualClock, kind: str, fields: dict[str, Any]
) -> None:
    async with managed(clock, client_burst=5) as manager:
        socket, _ = connect(manager, ALICE, access=Access(lambda _: ALICE))
        for _ in range(5):
            send(socket, kind, **fields)
        clock.advance(0.1)
        send(socket, kind, **fields)
        send(socket, "ping")
        assert not socket.closed_with

        send(socket, kind, **fields)

        assert socket.closed_with
        assert CloseCode.TOO_MANY == socket.closed_with[0]


class LaggingLog(ManualLog):
    """A log of several nodes, of which this one has not reached a number before ``restore``."""

    channel: Any = None


@asynccontextmanager
async def lagging(clock: ManualClock, **settings: Any) -> AsyncIterator[tuple[ConnectionManager, LaggingLog]]:
    log = LaggingLog(clock)
    async with managed(clock, log=log, **settings) as manager:
        await manager.emit("before")
        log.channel = "others"
        log.lose(None)
        yield manager, log


async def test_follow_with_a_position_ahead_of_this_node_waits_until_the_node_has_reached_it(
    clock: ManualClock,
) -> None:
    async with lagging(clock) as (manager, log):
        socket, connection = connect(manager, Identity("alice", topics=frozenset({"a"})), topics=[])
        ahead = manager.window.latest + 1
        publishing = asyncio.create_task(manager.emit("new", topics=["a"]))

        send(socket, "follow", topics=["a"], since=ahead, id="f1")
        send(socket, "unfollow", topics=["a"], id="u1")
        send(socket, "ping")
        await asyncio.sleep(0)
        assert ["connected", "pong"] == [frame["type"] for frame in socket.frames]
        log.restore()
        await publishing
        await until(lambda: len(socket.frames) >= 4)

        assert [("f1", "complete"), ("u1", None)] == [
            (frame["id"], frame.get("outcome")) for frame in socket.frames if frame["type"] == "following"
        ]
        assert "new" not in [frame["type"] for frame in socket.frames]
        assert not connection.topics


async def test_follow_is_refused_with_a_reason_when_the_node_does_not_reach_the_position_in_time(
    clock: ManualClock,
) -> None:
    async with lagging(clock, publish_seconds=0.05) as (manager, log):
        socket, connection = connect(manager, Identity("alice", topics=frozenset({"a", "b"})), topics=[])

        for _ in range(4):
            send(socket, "follow", topics=["a"], since=manager.window.latest + 1)
        send(socket, "follow", topics=["b"])
        await until(lambda: socket.frames[-1]["type"] == "following")

        assert [1013] * 4 == [frame["code"] for frame in socket.frames[1:-1]]
        assert "the log is unavailable" in socket.frames[1]["detail"]
        assert {"b"} == connection.topics
        assert not socket.closed_with
        assert log.unavailable is None


async def test_a_connection_that_was_closed_while_its_node_caught_up_follows_nothing(clock: ManualClock) -> None:
    async with lagging(clock) as (manager, log):
        socket, connection = connect(manager, Identity("alice", topics=frozenset({"a"})), topics=[])
        send(socket, "follow", topics=["a"], since=manager.window.latest + 1)
        await asyncio.sleep(0)

        connection.close(CloseCode.NORMAL, "")
        log.restore()
        for _ in range(3):
            await asyncio.sleep(0)

        assert ["connected"] == [frame["type"] for frame in socket.frames]
        assert not connection.topics


async def test_renewed_tokens_are_remembered_without_their_topics(manager: ConnectionManager) -> None:
    """Sixteen tokens of 8 kB with a thousand topics each would take megabytes."""
    many = Identity("alice", frozenset({"messages:publish"}), topics=frozenset(f"t{n}" for n in range(900)))
    socket, connection = connect(manager, many, access=Access(lambda _: many))

    send(socket, "authenticate", token="new")

    assert [Identity("alice")] == [*connection.earlier]
    assert many is connection.identity
