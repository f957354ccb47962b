"""A connection: its position, its heartbeat, its end."""

from typing import Any

import pytest

from support import ALICE, connect, flushed, managed, nth, shape
from unmissed import ConnectionManager, Identity, Settings
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import InvalidToken
from unmissed.security.access import Access
from unmissed.testing import FakeSocket, ManualClock


async def test_a_slow_client_continues_from_its_position(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    socket.pause()
    for _ in range(3):
        await manager.emit("a")

    socket.resume()

    assert [("connected", nth(0)), ("a", nth(1)), ("a", nth(2)), ("a", nth(3))] == shape(socket)


async def test_a_client_that_is_too_slow_is_told_its_gap(clock: ManualClock) -> None:
    async with managed(clock, max_messages=2) as manager:
        socket, _ = connect(manager)
        socket.pause()
        for _ in range(5):
            await manager.emit("a")

        socket.resume()

        assert [("connected", nth(0)), ("gap", nth(0)), ("a", nth(4)), ("a", nth(5))] == shape(socket)
        assert (nth(1), nth(3)) == (socket.frames[1]["from"], socket.frames[1]["to"])


async def test_a_gap_begins_with_the_epoch_for_a_client_that_began_before_its_first_message(
    clock: ManualClock,
) -> None:
    async with managed(clock, max_messages=2) as manager:
        socket, _ = connect(manager, since=0)
        socket.pause()
        for _ in range(5):
            await manager.emit("a")

        socket.resume()

        [gap] = [frame for frame in socket.frames if frame["type"] == "gap"]
        assert (nth(1), nth(3)) == (gap["from"], gap["to"])


@pytest.mark.parametrize("topics", [None, ["few"]])
async def test_a_client_that_is_far_behind_continues_in_later_turns_and_in_order(
    clock: ManualClock, topics: list[str] | None
) -> None:
    """For a client that sees few messages, as for one that sees all, one callback does a bounded part."""
    first = 1_796_000_000_000_001
    others: dict[str, Any] = {"type": "a"} if topics is None else {"type": "a", "topics": ["many"]}
    batch = [*[others] * 9, {"type": "a", "topics": ["few"]}] * 100
    identity = Identity("alice", topics=frozenset({"few", "many"} if topics is None else {"few"}))
    async with managed(clock, max_messages=20_000, first_number=first) as manager:
        for _ in range(10):
            await manager.publish_batch(batch)
        await flushed(manager)

        socket, connection = connect(manager, identity, topics=topics, since=first - 1)
        taken = connection.position - first + 1
        await manager.emit("a")
        await flushed(manager)

        assert 0 < taken < 10_000
        expected = [first + n for n in range(10_001) if topics is None or n % 10 == 9 or n == 10_000]
        assert expected == [number for kind, number in shape(socket) if kind == "a"]


async def test_numbers_of_others_are_passed_over_and_told_by_a_heartbeat(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, _ = connect(manager)
    await manager.publish({"type": "private"}, users=["bob"])
    await flushed(manager)
    clock.advance(25)

    manager.running.check()

    assert [("connected", nth(0)), ("heartbeat", nth(1))] == shape(socket)


async def test_a_stalled_client_is_aborted_after_30_seconds(manager: ConnectionManager, clock: ManualClock) -> None:
    socket, _ = connect(manager)
    socket.pause()
    manager.running.check()
    clock.advance(29)
    manager.running.check()
    assert not socket.aborted

    clock.advance(1)
    manager.running.check()

    assert socket.aborted
    assert () == manager.connections


async def test_a_slow_client_that_takes_something_is_kept(manager: ConnectionManager, clock: ManualClock) -> None:
    socket, _ = connect(manager)
    socket.pause()
    for _ in range(5):
        manager.running.check()
        clock.advance(20)
        socket.write_progress += 1

    manager.running.check()

    assert not socket.aborted


@pytest.mark.parametrize(
    ("passed", "step", "closed"),
    [(59.0, 0.0, False), (60.0, 0.0, True), (60.0, -3_600.0, True), (1.0, 3_600.0, True), (1.0, -3_600.0, False)],
)
async def test_a_token_expires_by_whichever_clock_says_so_first(
    clock: ManualClock, passed: float, step: float, *, closed: bool
) -> None:
    wall_clock = ManualClock(1_800_000_000)
    async with ConnectionManager(Settings.load(), clock=clock, wall_clock=wall_clock) as manager:
        socket, _ = connect(manager, Identity("alice", expires_at=wall_clock() + 60))
        clock.advance(passed)
        wall_clock.advance(passed + step)

        manager.running.check()

        assert (CloseCode.UNAUTHORIZED if closed else None) == (socket.closed_with or (None,))[0]


async def test_a_ping_is_answered_and_nonsense_is_refused_and_then_ended(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    socket.receive('{"type":"ping"}')
    for frame in ("", "[" * 3_000, b"binary"):
        socket.receive(frame)

    assert ["connected", "pong", "error", "error", "error"] == [kind for kind, _ in shape(socket)]
    assert socket.closed_with
    assert socket.closed_with[0] == CloseCode.BAD_MESSAGE


async def test_a_flood_of_frames_is_ended(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    for _ in range(101):
        socket.receive('{"type":"ping"}')

    assert socket.closed_with
    assert socket.closed_with[0] == CloseCode.TOO_MANY


async def test_where_the_application_authenticates_a_token_cannot_be_renewed(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    socket.receive('{"type":"authenticate","token":"x"}')

    assert 4400 == socket.frames[-1]["code"]
    assert "open another connection" in socket.frames[-1]["detail"]


def renewing(manager: ConnectionManager, clock: ManualClock, **position: Any) -> FakeSocket:
    """Connect alice for a minute. Her tokens are ``user seconds topic...``."""

    def verify(token: str) -> Identity:
        user_id, seconds, *topics = token.split()
        if user_id == "nobody":
            raise InvalidToken("the token is invalid or expired")
        return Identity(user_id, expires_at=clock() + float(seconds), topics=frozenset(topics))

    socket = FakeSocket()
    manager.connect(socket, identity=verify("alice 60 news rooms.1"), access=Access(verify), **position)
    return socket


def renew(socket: FakeSocket, token: str) -> dict[str, Any]:
    socket.receive(f'{{"type":"authenticate","token":"{token}"}}')
    return socket.frames[-1]


async def test_a_renewed_token_keeps_the_connection_and_its_position(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        socket = renewing(manager, clock)
        assert (clock() + 60, 60) == (socket.frames[0]["expires_at"], socket.frames[0]["expires_in"])
        await manager.emit("a")
        await flushed(manager)
        clock.advance(59)

        answer = renew(socket, "alice 600.5 news rooms.1")

        assert {
            "type": "authenticated",
            "expires_at": clock() + 600.5,
            "expires_in": 600.5,
            "added": [],
            "removed": [],
            "sequence_number": nth(1),
        } == answer
        clock.advance(600)
        socket.pong()
        manager.running.check()
        assert socket.closed_with is None
        clock.advance(0.5)
        manager.running.check()
        assert socket.closed_with
        assert CloseCode.UNAUTHORIZED == socket.closed_with[0]


@pytest.mark.parametrize(
    ("asked", "token", "followed"),
    [
        (None, "alice 60 news sport", ["news", "sport"]),
        (["news"], "alice 60 news sport", ["news"]),
        (["news", "rooms.1"], "alice 60 rooms.*", ["rooms.1"]),
        ([], "alice 60 news", []),
        (None, "alice 60", []),
    ],
)
async def test_changed_topics_apply_at_once(
    clock: ManualClock, asked: list[str] | None, token: str, followed: list[str]
) -> None:
    async with managed(clock) as manager:
        socket = renewing(manager, clock, topics=asked)

        before = set(socket.frames[0].get("topics", ()))
        answer = renew(socket, token)

        assert sorted(set(followed) - before) == answer["added"]
        assert sorted(before - set(followed)) == answer["removed"]
        for topic in ("news", "sport", "rooms.1"):
            await manager.emit(topic, topics=[topic])
        await flushed(manager)
        assert sorted(followed) == sorted(frame["type"] for frame in socket.frames if "timestamp" in frame)


@pytest.mark.parametrize(
    ("token", "detail"), [("nobody 60", "invalid or expired"), ("bob 600 news", "the token is for another user")]
)
async def test_a_token_that_is_not_accepted_changes_nothing(clock: ManualClock, token: str, detail: str) -> None:
    async with managed(clock) as manager:
        socket = renewing(manager, clock)

        answer = renew(socket, token)

        assert ("error", 4401) == (answer["type"], answer["code"])
        assert detail in answer["detail"]
        assert "alice" == manager.connections[0].identity.user_id
        clock.advance(60)
        manager.running.check()
        assert socket.closed_with


async def test_guessing_tokens_ends_the_connection(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        socket = renewing(manager, clock)

        for _ in range(3):
            renew(socket, "nobody 60")

        assert socket.closed_with
        assert CloseCode.UNAUTHORIZED == socket.closed_with[0]


async def test_a_leeway_lets_a_connection_live_longer(clock: ManualClock) -> None:
    async with managed(clock, token_leeway=5) as manager:
        socket = renewing(manager, clock)
        clock.advance(64)
        socket.pong()
        manager.running.check()
        assert socket.closed_with is None

        clock.advance(1)
        manager.running.check()

        assert socket.closed_with


async def test_a_client_that_is_sent_away_is_not_listened_to(manager: ConnectionManager) -> None:
    class LingeringSocket(FakeSocket):
        def close(self, code: int, reason: str = "") -> None:
            self.closed_with = (code, reason)

    socket = LingeringSocket()
    connection = manager.connect(socket, identity=ALICE)
    manager.disconnect(connection.id)

    socket.receive('{"type":"ping"}')

    assert [("connected", nth(0))] == shape(socket)


async def test_greeting_missed_messages_and_heartbeat_are_one_write(manager: ConnectionManager) -> None:
    await manager.emit("a")

    socket, _ = connect(manager, since=0)

    assert ["connected", "a", "heartbeat"] == [kind for kind, _ in shape(socket)]
    assert 1 == socket.write_progress


async def test_a_ping_that_is_acknowledged_at_once_shows_that_the_client_is_there(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    class NearSocket(FakeSocket):
        def keepalive(self) -> bool:
            self.write_progress += 1
            return super().keepalive()

    socket = NearSocket()
    manager.connect(socket, identity=ALICE)

    for _ in range(200):
        clock.advance(1)
        manager.running.check()

    assert not socket.aborted
    assert socket.pings > 1


async def test_a_connection_whose_duration_is_bounded_is_asked_to_reconnect_within_the_last_fifth_of_it(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, _ = connect(manager, max_seconds=100.0)
    clock.advance(79)
    manager.running.check()
    socket.pong()
    assert "reconnect" not in [kind for kind, _ in shape(socket)]
    await manager.emit("a")

    clock.advance(21)
    manager.running.check()

    assert {"type": "reconnect", "after_ms": 0} in socket.frames
    assert "a" in [kind for kind, _ in shape(socket)]
    assert (CloseCode.SERVICE_RESTART, "the connection has reached its maximum duration: reconnect") == (
        socket.closed_with
    )


async def test_a_bounded_connection_that_does_not_read_is_asked_once_and_aborted_when_it_stalls(
    clock: ManualClock,
) -> None:
    async with managed(clock, stall_seconds=3) as manager:
        socket, _ = connect(manager, max_seconds=1.0)
        socket.pause()

        for _ in range(5):
            clock.advance(1)
            manager.running.check()

        assert socket.aborted
        assert ["connected"] == [kind for kind, _ in shape(socket)]


async def test_a_client_that_answers_no_ping_and_acknowledges_nothing_is_dropped_within_a_minute(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    class DeadSocket(FakeSocket):
        def write(self, chunk: Any) -> None:
            super().write(chunk)
            self.write_progress = 0

    socket = DeadSocket()
    manager.connect(socket, identity=ALICE)

    for second in range(60):
        clock.advance(1)
        if second % 3 == 0:
            await manager.emit("traffic")
        manager.running.check()

    assert socket.aborted
    assert () == manager.connections


async def test_a_client_that_answers_pings_is_kept(manager: ConnectionManager, clock: ManualClock) -> None:
    socket, _ = connect(manager)

    for _ in range(600):
        clock.advance(1)
        manager.running.check()
        socket.pong()

    assert not socket.aborted
    assert 29 <= socket.pings <= 31


async def test_a_slow_client_that_takes_data_but_answers_late_is_kept(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, _ = connect(manager)

    for _ in range(600):
        clock.advance(1)
        manager.running.check()
        socket.write_progress += 1

    assert not socket.aborted


async def test_a_socket_whose_server_looks_for_dead_clients_is_left_to_it(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    class WithoutPings(FakeSocket):
        def keepalive(self) -> bool:
            return False

    socket = WithoutPings()
    manager.connect(socket, identity=Identity("alice"))

    for _ in range(600):
        clock.advance(1)
        manager.running.check()

    assert not socket.aborted


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (['{"type":"ping","pad":"' + "x" * 66_000 + '"}'], CloseCode.TOO_LARGE),
        (['{"type":"ping","pad":"' + "x" * 60_000 + '"}'] * 18, CloseCode.TOO_MANY),
    ],
)
async def test_client_frames_have_a_budget_of_bytes(
    manager: ConnectionManager, frames: list[str], code: CloseCode
) -> None:
    socket, _ = connect(manager)

    for frame in frames:
        socket.receive(frame)

    assert socket.closed_with
    assert code == socket.closed_with[0]


# The close


async def test_what_was_sent_and_published_before_a_close_is_delivered_first(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)
    socket.pause()
    connection.send_frame(b'{"type":"last"}')
    await manager.emit("before")
    manager.disconnect(connection.id, code=CloseCode.NORMAL)
    await manager.emit("after")
    assert None is socket.closed_with

    socket.resume()

    assert ["connected", "last", "before"] == [kind for kind, _ in shape(socket)]
    assert (CloseCode.NORMAL, "") == socket.closed_with


async def test_messages_of_one_chunk_are_cut_at_the_close(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)
    socket.pause()
    for kind in ("a", "b"):
        await manager.emit(kind)
    connection.close(CloseCode.NORMAL, "")
    for kind in ("c", "d"):
        await manager.emit(kind)

    socket.resume()

    assert [("connected", nth(0)), ("a", nth(1)), ("b", nth(2))] == shape(socket)


async def test_what_was_evicted_before_a_close_is_told_as_a_gap(clock: ManualClock) -> None:
    async with managed(clock, max_messages=2) as manager:
        socket, connection = connect(manager)
        socket.pause()
        await manager.emit("a")
        connection.close(CloseCode.NORMAL, "")
        for _ in range(3):
            await manager.emit("b")

        socket.resume()

        assert [("connected", nth(0)), ("gap", nth(0))] == shape(socket)
        assert nth(2) == socket.frames[-1]["to"]
        assert (CloseCode.NORMAL, "") == socket.closed_with


async def test_nothing_is_delivered_after_a_token_has_expired(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        socket, _ = connect(manager, Identity("alice", expires_at=clock() + 60))
        socket.pause()
        await manager.emit("a")
        clock.advance(60)
        manager.running.check()

        assert socket.closed_with
        assert CloseCode.UNAUTHORIZED == socket.closed_with[0]


async def test_a_client_that_does_not_take_everything_before_the_close_is_aborted(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    connection.close(CloseCode.NORMAL, "")
    for second in range(32):
        assert (second > 30) == socket.aborted
        clock.advance(1)
        socket.write_progress += 1
        socket.pong()
        manager.running.check()

    assert () == manager.connections


async def test_a_client_that_floods_before_its_close_is_closed_immediately(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)
    socket.pause()
    socket.receive('{"type":"ping"}')
    await manager.emit("a")
    connection.close(CloseCode.NORMAL, "")

    for _ in range(100):
        assert None is socket.closed_with
        socket.receive('{"type":"ping"}')

    assert (CloseCode.NORMAL, "") == socket.closed_with


async def test_a_heartbeat_before_the_close_tells_the_last_number_before_it(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, connection = connect(manager)
    socket.pause()
    await manager.emit("a")
    connection.close(CloseCode.NORMAL, "")
    await manager.emit("b")
    clock.advance(25)
    manager.running.check()

    socket.resume()

    assert [("connected", nth(0)), ("a", nth(1)), ("heartbeat", nth(1))] == shape(socket)
