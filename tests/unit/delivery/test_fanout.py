"""The fan-out: one flush for all connections."""

import asyncio
from typing import Any

import pytest

from support import ALICE, BOB, connect, flushed, managed, nth, shape, until
from unmissed import Access, Connection, ConnectionManager, Identity
from unmissed.delivery.fanout import SLICE
from unmissed.security.access import Subscription
from unmissed.testing import FakeSocket, ManualClock


async def test_one_broken_connection_is_ended_and_the_others_are_served(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenSocket(FakeSocket):
        broken = False

        def write(self, chunk: Any) -> None:
            if self.broken:
                raise ValueError("broken")
            super().write(chunk)

    broken = BrokenSocket()
    manager.connect(broken, identity=ALICE)
    healthy, _ = connect(manager)
    broken.broken = True

    await manager.emit("a")
    await flushed(manager)

    assert ("a", nth(1)) in shape(healthy)
    assert broken.aborted
    assert "connection aborted after an unexpected error" in caplog.text


async def test_connections_at_one_position_are_written_the_same_chunk(manager: ConnectionManager) -> None:
    first, second = connect(manager)[0], connect(manager, BOB)[0]

    await manager.emit("a")

    assert first.chunks[-1] is second.chunks[-1]
    assert ("a", nth(1)) == shape(first)[-1]


async def test_a_message_after_a_flush_waits_for_the_pause_and_joins_the_next(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    await manager.emit("a")
    writes = socket.write_progress

    await manager.emit("b")
    await manager.emit("c")

    assert writes == socket.write_progress
    await flushed(manager)
    assert writes + 1 == socket.write_progress
    assert [("a", nth(1)), ("b", nth(2)), ("c", nth(3))] == shape(socket)[1:]


async def test_a_flush_visits_many_connections_in_slices(manager: ConnectionManager) -> None:
    sockets = [connect(manager)[0] for _ in range(2 * SLICE + 1)]

    await manager.emit("a")
    reached = [sum(("a", nth(1)) in shape(socket) for socket in sockets)]
    for _ in range(2):
        await asyncio.sleep(0)
        reached.append(sum(("a", nth(1)) in shape(socket) for socket in sockets))

    assert [SLICE, 2 * SLICE, 2 * SLICE + 1] == reached


async def test_a_message_during_a_flush_reaches_the_rest_with_it_and_everyone_once(manager: ConnectionManager) -> None:
    early, *_, late = [connect(manager)[0] for _ in range(SLICE + 1)]
    await manager.emit("a")

    await manager.emit("b")
    await asyncio.sleep(0)

    assert [("a", nth(1))] == shape(early)[1:]
    assert [("a", nth(1)), ("b", nth(2))] == shape(late)[1:]
    await flushed(manager)
    assert [("a", nth(1)), ("b", nth(2))] == shape(early)[1:]
    assert [("a", nth(1)), ("b", nth(2))] == shape(late)[1:]


async def test_messages_that_a_slice_has_not_reached_are_not_evicted(clock: ManualClock) -> None:
    """A publisher that never yields evicts nothing that was not offered to every connection."""
    async with managed(clock, max_messages=10) as manager:
        sockets = [connect(manager)[0] for _ in range(2 * SLICE + 1)]

        for _ in range(20):
            await manager.emit("a")
        await flushed(manager)

        for socket in sockets[::SLICE]:
            assert [("a", nth(n)) for n in range(1, 21)] == shape(socket)[1:]


async def test_an_identity_that_never_expires_is_told_no_expiry(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, Identity("alice"))

    assert not {"expires_at", "expires_in"} & {*socket.frames[0]}


async def test_a_client_is_told_when_its_token_expires_by_the_clock_of_the_server(clock: ManualClock) -> None:
    async with managed(clock, token_leeway=30) as manager:
        early, _ = connect(manager, Identity("alice", expires_at=clock() + 90.0625))
        late, _ = connect(manager, Identity("bob", expires_at=clock() - 10))

        assert (90.062, 0) == (early.frames[0]["expires_in"], late.frames[0]["expires_in"])


async def test_a_client_is_told_how_fast_it_may_ask(clock: ManualClock) -> None:
    async with managed(clock, client_rate=2.5, client_burst=40) as manager:
        socket, _ = connect(manager)

        assert (2.5, 40) == (socket.frames[0]["rate"], socket.frames[0]["burst"])


async def test_a_client_is_told_how_often_heartbeats_come(clock: ManualClock) -> None:
    async with managed(clock, heartbeat_seconds=2.5) as manager:
        socket, _ = connect(manager)

        assert 2.5 == socket.frames[0]["heartbeat_seconds"]


async def test_a_connection_that_cannot_be_greeted_leaves_nothing_behind(manager: ConnectionManager) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        manager.running.connect(
            FakeSocket(), Subscription(ALICE, frozenset({"\ud800"}), chose_topics=True), access=Access()
        )

    assert () == manager.connections


@pytest.mark.parametrize("end", ["drain", "close"])
async def test_a_broken_connection_does_not_stop_the_shutdown(clock: ManualClock, end: str) -> None:
    class BrokenSocket(FakeSocket):
        def close(self, code: int, reason: str = "") -> None:
            raise RuntimeError(f"broken on purpose at {code} {reason}")

    async with managed(clock) as manager:
        broken = BrokenSocket()
        manager.connect(broken, identity=ALICE)
        healthy, _ = connect(manager, BOB)
        if end == "drain":
            manager.running.drain(seconds=0.0)

    assert broken.aborted
    assert healthy.closed_with


async def test_a_flush_visits_the_audience_of_everything_new_and_nobody_else(
    manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Identity("reader", topics=frozenset({"news"}))
    alice, bob, carol, readers = (connect(manager, each) for each in (ALICE, BOB, Identity("carol"), reader))
    visited = visits(monkeypatch)
    await manager.publish_batch(
        [
            {"type": "a", "users": ["alice"]},
            {"type": "b", "topics": ["news"]},
            {"type": "c", "users": ["bob", "nobody"]},
        ]
    )
    await flushed(manager)

    assert ["alice", "bob", "reader"] == sorted(visited)
    assert [[("a", nth(1))], [("c", nth(3))], [], [("b", nth(2))]] == [
        shape(socket)[1:] for socket, _ in (alice, bob, carol, readers)
    ]
    assert {nth(3)} == {connection.position for connection in manager.connections}


async def test_nobody_is_visited_for_a_topic_that_was_unfollowed(
    manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, _ = connect(manager, Identity("alice", topics=frozenset({"news", "sport"})))
    gone, _ = connect(manager, Identity("bob", topics=frozenset({"news"})))
    socket.receive('{"type":"unfollow","topics":["news"]}')
    gone.drop()
    visited = visits(monkeypatch)

    await manager.emit("a", topics=["news"], users=["bob"])
    await flushed(manager)
    assert [] == visited

    await manager.emit("b", topics=["sport"])
    await flushed(manager)
    assert ["alice"] == visited


def visits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list in which the users appear whose connections are visited from now on."""
    visited: list[str] = []
    deliver = Connection.deliver

    def noted(connection: Connection) -> None:
        visited.append(connection.identity.user_id)
        deliver(connection)

    monkeypatch.setattr(Connection, "deliver", noted)
    return visited


async def test_a_stranger_stands_where_the_flushes_are_and_continues_there(manager: ConnectionManager) -> None:
    socket, stranger = connect(manager, BOB)
    await manager.emit("a", users=["alice"])
    await flushed(manager)

    socket.receive('{"type":"ping"}')
    assert nth(1) == stranger.position
    await manager.emit("b")
    await flushed(manager)

    assert [("pong", None), ("b", nth(2))] == shape(socket)[1:]


async def test_a_client_that_takes_nothing_keeps_its_own_position(manager: ConnectionManager) -> None:
    socket, slow = connect(manager)
    _, fast = connect(manager, BOB)
    socket.pause()
    await manager.emit("mine", users=["alice"])
    await manager.emit("other", users=["bob"])
    await until(lambda: fast.position == nth(2))

    assert nth(0) == slow.position
    socket.resume()
    assert [("mine", nth(1))] == shape(socket)[1:]
    assert nth(2) == slow.position


async def test_who_connects_before_the_flush_of_a_message_gets_only_what_follows(manager: ConnectionManager) -> None:
    connect(manager, BOB)
    await manager.emit("flushed")
    await manager.emit("waits for the pause")
    socket, late = connect(manager, ALICE)
    assert nth(2) == late.position

    await manager.emit("after", users=["alice"])
    await flushed(manager)

    assert [("after", nth(3))] == shape(socket)[1:]


async def test_who_follows_before_the_flush_of_a_message_gets_it(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, Identity("alice", topics=frozenset({"news"})), topics=[])
    await manager.emit("flushed")
    await manager.emit("waits for the pause", topics=["news"])

    socket.receive('{"type":"follow","topics":["news"]}')
    await flushed(manager)

    assert [("flushed", nth(1)), ("following", nth(1)), ("waits for the pause", nth(2))] == shape(socket)[1:]


async def test_what_expires_before_its_flush_is_told_as_a_gap(manager: ConnectionManager, clock: ManualClock) -> None:
    mine, others = connect(manager)[0], connect(manager, BOB)[0]
    await manager.emit("flushed")
    await manager.emit("waits for the pause", users=["alice"])
    clock.advance(manager.settings.max_age)
    manager.running.check()

    await manager.emit("after", users=["carol"])
    await flushed(manager)

    assert ("gap", nth(1)) in shape(mine)
    assert "gap" not in [kind for kind, _ in shape(others)]


async def test_the_state_comes_right_after_connected_and_then_what_is_new(manager: ConnectionManager) -> None:
    await manager.publish({"type": "cart", "key": "cart"}, users=["alice"])
    await manager.emit("chat")

    socket, _ = connect(manager, state=True)
    await manager.emit("new")
    await flushed(manager)

    assert [("connected", nth(2)), ("state", nth(2)), ("new", nth(3))] == shape(socket)
    assert True is socket.frames[0]["state"]
    assert [nth(1)] == [each["sequence_number"] for each in socket.frames[1]["values"]]


async def test_no_state_is_sent_if_everything_after_the_position_follows(manager: ConnectionManager) -> None:
    await manager.publish({"type": "cart", "key": "cart"})
    await manager.emit("missed")

    socket, _ = connect(manager, since=nth(1), state=True)

    assert [("connected", nth(1)), ("missed", nth(2)), ("heartbeat", nth(2))] == shape(socket)
    assert "state" not in socket.frames[0]


async def test_a_reset_begins_with_an_empty_state_and_brings_all_values_as_messages(manager: ConnectionManager) -> None:
    await manager.publish({"type": "cart", "key": "cart"})

    socket, _ = connect(manager, since=nth(50), state=True)

    assert [("connected", nth(0)), ("state", nth(0)), ("cart", nth(1)), ("heartbeat", nth(1))] == shape(socket)
    assert ("reset", True) == (socket.frames[0]["outcome"], socket.frames[0]["state"])
    assert [] == socket.frames[1]["values"]


async def test_a_client_that_reads_slowly_gets_the_rest_of_its_state_when_it_reads(manager: ConnectionManager) -> None:
    for n in range(3):
        await manager.publish({"type": "m", "key": str(n), "data": "x" * 60_000})
    socket, connection = connect(manager, state=True)
    socket.pause()
    await manager.emit("new")
    await flushed_behind(connection)
    parts = len(socket.frames)

    socket.resume()
    await flushed(manager)

    assert parts < len(socket.frames)
    values = [each["key"] for frame in socket.frames if frame["type"] == "state" for each in frame["values"]]
    assert ["0", "1", "2"] == values
    assert "new" == socket.frames[-1]["type"]


async def flushed_behind(connection: Connection) -> None:
    """Wait for the flush of a new message, which does not reach this connection."""
    await until(lambda: connection.lag > 0)
