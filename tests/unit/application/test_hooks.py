"""Hooks: called for what clients do, and never able to break delivery."""

import asyncio
import functools
import threading

import pytest

from support import ALICE, BOB, connect, managed, until
from unmissed import Connected, ConnectionManager, Disconnected, Followed, Identity, Unfollowed
from unmissed.application.hooks import Hooks
from unmissed.core.chunks import Chunk
from unmissed.core.encoding import encode_json
from unmissed.core.errors import TooManyConnections
from unmissed.security.access import Access
from unmissed.testing import FakeSocket, ManualClock


async def test_hooks_are_told_who_came_and_how_it_ended(clock: ManualClock) -> None:
    manager, events = managed(clock), list[Connected | Disconnected]()

    @manager.on_connect
    async def came(event: Connected) -> None:
        events.append(event)

    @manager.on_disconnect
    def left(event: Disconnected) -> None:
        assert threading.current_thread() is not threading.main_thread()
        events.append(event)

    async with manager:
        socket, connection = connect(manager, BOB)
        socket.pause()
        await manager.emit("a")
        clock.advance(2.5)
        socket.drop(4000, "bye")
        await until(lambda: len(events) == 2)

    assert [
        Connected(connection.id, BOB, frozenset()),
        Disconnected(connection.id, BOB, code=4000, reason="bye", seconds=2.5, behind=1),
    ] == events


async def test_the_end_has_the_code_of_the_side_that_closed(unstarted: ConnectionManager) -> None:
    events: list[Disconnected] = []
    unstarted.on_disconnect(events.append)

    async with unstarted:
        ends = {user_id: connect(unstarted, Identity(user_id)) for user_id in ("closed", "out", "lost", "broken")}
        unstarted.disconnect(ends["closed"][1].id, code=4000, reason="enough")
        await unstarted.log_out("out")
        ends["lost"][0].drop()
        ends["broken"][1].abort("an error")
        await until(lambda: len(events) == 4)

    assert {
        "closed": (4000, "enough"),
        "out": (4401, "logged out: log in again"),
        "lost": (1006, ""),
        "broken": (1006, "an error"),
    } == {event.identity.user_id: (event.code, event.reason) for event in events}


async def test_clients_that_are_there_at_the_stop_are_reported_before_it_ends(unstarted: ConnectionManager) -> None:
    events: list[Disconnected] = []
    unstarted.on_disconnect(events.append)

    async with unstarted:
        connect(unstarted)

    assert [1012] == [event.code for event in events]


async def test_a_failing_hook_is_logged_and_neither_delivery_nor_other_hooks_notice(
    unstarted: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[object] = []

    @unstarted.on_connect
    async def failing(event: Connected) -> None:
        raise ValueError(event.connection_id)

    unstarted.on_connect(called.append)

    async with unstarted:
        socket, _ = connect(unstarted)
        await unstarted.emit("a")
        await until(lambda: called)

        assert "a" == socket.frames[-1]["type"]
    assert "failing failed" in caplog.text


async def test_the_hooks_of_one_connection_run_one_after_another(unstarted: ConnectionManager) -> None:
    may_end, order = asyncio.Event(), list[str]()

    @unstarted.on_connect
    async def came(event: Connected) -> None:
        await may_end.wait()
        order.append(f"{event.identity.user_id} came")

    @unstarted.on_disconnect
    async def left(event: Disconnected) -> None:
        order.append(f"{event.identity.user_id} left")

    async with unstarted:
        connect(unstarted)[0].drop()
        await asyncio.sleep(0)
        may_end.set()
        await until(lambda: len(order) == 2)

    assert ["alice came", "alice left"] == order


async def test_hooks_that_hang_are_cancelled_at_the_stop(
    unstarted: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmissed.running._STOP_SECONDS", 0.01)

    ends = list[str]()

    @unstarted.on_connect
    async def hanging(event: Connected) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(event.connection_id)

    async with unstarted:
        _, connection = connect(unstarted)

    assert [connection.id] == ends


async def test_hooks_that_did_not_run_before_the_stop_are_counted_in_the_log(
    unstarted: ConnectionManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unmissed.running._STOP_SECONDS", 0.01)
    unstarted._hooks = Hooks(max_running=2)  # noqa: SLF001

    @unstarted.on_connect
    async def hanging(event: Connected) -> None:
        del event
        await asyncio.Event().wait()

    unstarted.on_disconnect(print)

    async with unstarted:
        for _ in range(5):
            connect(unstarted)
        await asyncio.sleep(0)

    assert "those of 2 events were cancelled, and those of 8 did not run" in caplog.text


@pytest.mark.parametrize("is_async", [True, pytest.param(False, marks=pytest.mark.long)])
async def test_the_hooks_of_very_many_clients_are_all_called(unstarted: ConnectionManager, *, is_async: bool) -> None:
    count = 12_000 if is_async else 2_000
    came, left = list[str](), list[str]()

    async def append_later(event: Connected | Disconnected, *, to: list[str]) -> None:
        to.append(event.connection_id)

    def append(event: Connected | Disconnected, *, to: list[str]) -> None:
        to.append(event.connection_id)

    hook = append_later if is_async else append
    unstarted.on_connect(functools.partial(hook, to=came))
    unstarted.on_disconnect(functools.partial(hook, to=left))

    async with unstarted:
        sockets = [connect(unstarted, Identity(f"user {number}"))[0] for number in range(count)]
        for socket in sockets:
            socket.drop()
        await until(lambda: len(left) == count)

    assert count == len(set(came)) == len(set(left))


async def test_only_so_many_hooks_run_at_a_time_and_the_others_wait(clock: ManualClock) -> None:
    manager, may_end = managed(clock), asyncio.Event()
    manager._hooks = Hooks(max_running=3)  # noqa: SLF001
    running, most, order = 0, 0, list[str]()

    @manager.on_connect
    async def came(event: Connected) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await may_end.wait()
        running -= 1
        order.append(f"{event.connection_id} came")

    @manager.on_disconnect
    async def left(event: Disconnected) -> None:
        order.append(f"{event.connection_id} left")

    async with manager:
        connections = [connect(manager) for _ in range(10)]
        for socket, _ in connections:
            socket.drop()
        await asyncio.sleep(0)
        assert ([], 3) == (order, most)
        may_end.set()
        await until(lambda: len(order) == 20)

    assert 3 == most
    for _, connection in connections:
        assert order.index(f"{connection.id} came") < order.index(f"{connection.id} left")


async def test_with_too_many_events_that_wait_for_hooks_no_more_clients_are_accepted(clock: ManualClock) -> None:
    manager, may_end, left = managed(clock), asyncio.Event(), list[str]()
    manager._hooks = Hooks(max_running=1, max_waiting=5)  # noqa: SLF001

    @manager.on_connect
    async def came(event: Connected) -> None:
        del event
        await may_end.wait()

    @manager.on_disconnect
    async def gone(event: Disconnected) -> None:
        left.append(event.connection_id)

    async with manager:
        connections = [connect(manager)]
        await asyncio.sleep(0)
        connections += [connect(manager) for _ in range(5)]
        with pytest.raises(TooManyConnections, match="the hooks of the application are too slow: reconnect later"):
            connect(manager)
        for socket, _ in connections:
            socket.drop()
        may_end.set()
        await until(lambda: len(left) == 6)

        connect(manager)


async def test_the_slow_hook_of_one_user_in_a_thread_does_not_delay_that_of_another(
    unstarted: ConnectionManager,
) -> None:
    may_end, came = threading.Event(), list[str]()

    @unstarted.on_connect
    def hook(event: Connected) -> None:
        if event.identity == ALICE:
            assert may_end.wait(20)
        came.append(event.identity.user_id)

    async with unstarted:
        for _ in range(20):
            connect(unstarted, ALICE)
        connect(unstarted, BOB)
        await until(lambda: came)
        assert ["bob"] == came
        may_end.set()
        await until(lambda: len(came) == 21)


async def test_an_event_that_is_added_when_all_others_have_just_ended_is_handled() -> None:
    hooks, handled = Hooks(max_running=3), list[str]()

    async def came(event: Connected) -> None:
        handled.append(event.connection_id)

    hooks.on_connect.append(came)
    for name in "abc":
        hooks.connected(Connected(name, ALICE, frozenset()))
    for _ in range(2):
        await asyncio.sleep(0)

    hooks.connected(Connected("late", ALICE, frozenset()))

    await until(lambda: "late" in handled)
    assert [*"abc", "late"] == handled


async def test_hooks_are_called_with_the_topics_that_a_client_follows_from_its_beginning_to_its_end(
    unstarted: ConnectionManager,
) -> None:
    events = list[object]()
    for register in (unstarted.on_connect, unstarted.on_follow, unstarted.on_unfollow, unstarted.on_disconnect):
        register(events.append)
    renewed = Identity("carol", topics=frozenset({"sport", "rooms.1"}))

    async def verify(_token: str) -> Identity:
        return renewed

    async with unstarted:
        socket, connection = connect(unstarted, CAROL, access=Access(verify=verify))
        await until(lambda: len(events) == 2)
        socket.receive(frame("follow", "rooms.1", "rooms.2", "news"))
        await until(lambda: len(events) == 3)
        socket.receive(frame("unfollow", "rooms.2", "rooms.3"))
        await until(lambda: len(events) == 4)
        socket.receive(encode_json({"type": "authenticate", "token": "another"}).decode())
        await until(lambda: len(events) == 5)
        socket.drop()
        await until(lambda: len(events) == 7)

    def facts(*topics: str, identity: Identity = CAROL) -> tuple[str, Identity, frozenset[str]]:
        return connection.id, identity, frozenset(topics)

    assert [
        Connected(*facts("news")),
        Followed(*facts("news")),
        Followed(*facts("rooms.1", "rooms.2")),
        Unfollowed(*facts("rooms.2")),
        Unfollowed(*facts("news", identity=renewed)),
        Unfollowed(*facts("rooms.1", identity=renewed)),
    ] == events[:-1]


async def test_a_client_that_changes_no_topics_calls_no_hooks(unstarted: ConnectionManager) -> None:
    events = list[object]()
    unstarted.on_follow(events.append)
    unstarted.on_unfollow(events.append)
    unstarted.on_disconnect(events.append)

    async with unstarted:
        socket, _ = connect(unstarted, Identity("carol", topics=frozenset({"rooms.*"})))
        socket.receive(frame("follow"))
        socket.receive(frame("unfollow", "rooms.1"))
        socket.drop()
        await until(lambda: events)

    assert [Disconnected] == [type(event) for event in events]


async def test_the_end_of_a_client_that_does_not_survive_its_first_write_comes_after_its_beginning(
    unstarted: ConnectionManager,
) -> None:
    class Broken(FakeSocket):
        def write(self, chunk: Chunk) -> None:
            del chunk
            self.abort()

    events = list[object]()
    for register in (unstarted.on_connect, unstarted.on_follow, unstarted.on_unfollow, unstarted.on_disconnect):
        register(events.append)

    async with unstarted:
        unstarted.connect(Broken(), identity=Identity("carol", topics=frozenset({"news"})))
        await until(lambda: len(events) == 2)

    assert [Connected, Disconnected] == [type(event) for event in events]


async def test_a_frame_after_the_end_of_a_connection_calls_no_hooks(unstarted: ConnectionManager) -> None:
    events = list[object]()
    unstarted.on_follow(events.append)
    unstarted.on_disconnect(events.append)

    async with unstarted:
        socket, connection = connect(unstarted, Identity("carol", topics=frozenset({"rooms.*"})))
        unstarted.running.connections.remove(connection)
        socket.receive(frame("follow", "rooms.1"))
        connect(unstarted)[0].drop()
        await until(lambda: events)

    assert [Disconnected] == [type(event) for event in events]


async def test_changes_of_topics_that_wait_for_a_slow_hook_are_merged(unstarted: ConnectionManager) -> None:
    may_end, events = asyncio.Event(), list[object]()

    @unstarted.on_follow
    @unstarted.on_unfollow
    async def changed(event: Followed | Unfollowed) -> None:
        events.append(event.topics)
        await may_end.wait()

    async with unstarted:
        socket, _ = connect(unstarted, CAROL)
        await until(lambda: events)
        for _ in range(3):
            for kind in ("follow", "unfollow"):
                socket.receive(frame(kind, "rooms.1", "rooms.2"))
        socket.receive(frame("follow", "rooms.2"))
        socket.receive(frame("unfollow", "news"))
        may_end.set()
        await until(lambda: len(events) == 3)

    assert [{"news"}, {"news"}, {"rooms.2"}] == events[:3]


async def test_a_hook_for_topics_that_is_added_while_the_manager_runs_is_called(manager: ConnectionManager) -> None:
    events = list[object]()

    manager.on_follow(events.append)
    manager.on_unfollow(events.append)

    connect(manager, CAROL)[0].drop()
    connect(manager, CAROL)
    await until(lambda: events)
    assert [Followed] == [type(event) for event in events]


CAROL = Identity("carol", topics=frozenset({"news", "rooms.*"}))


def frame(kind: str, *topics: str) -> str:
    return encode_json({"type": kind, "topics": topics}).decode()
