"""Hooks: called when clients connect and disconnect, and never able to break delivery."""

import asyncio
import threading

import pytest

from support import ALICE, BOB, connect, managed, until
from unmissed import Connected, ConnectionManager, Disconnected, Identity
from unmissed.application import hooks
from unmissed.testing import ManualClock


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
    monkeypatch.setattr("unmissed.manager._HOOK_SECONDS", 0.01)

    @unstarted.on_connect
    async def hanging(event: Connected) -> None:
        del event
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        async with unstarted:
            connect(unstarted)


async def test_the_number_of_waiting_calls_is_bounded(
    unstarted: ConnectionManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hooks, "MAX_PENDING", 2)
    monkeypatch.setattr("unmissed.manager._HOOK_SECONDS", 0.01)
    called: list[str] = []

    @unstarted.on_connect
    async def hanging(event: Connected) -> None:
        called.append(event.identity.user_id)
        await asyncio.Event().wait()

    async with unstarted:
        for _ in range(4):
            connect(unstarted, ALICE)
        await asyncio.sleep(0)

        assert 2 == len(called)
    assert "hooks are too slow: dropped Connected" in caplog.text
