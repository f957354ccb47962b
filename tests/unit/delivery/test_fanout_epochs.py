"""The end of an epoch: what is delivered before it, and what clients are sent."""

from collections.abc import AsyncIterator

import pytest

from support import BOB, ManualLog, connect, flushed, managed, nth, shape
from unmissed import ConnectionManager
from unmissed.testing import FakeSocket, ManualClock

NEW_EPOCH = (1012, "the log has begun a new epoch: reconnect")


@pytest.fixture
def log(clock: ManualClock) -> ManualLog:
    return ManualLog(clock)


@pytest.fixture
async def manager(clock: ManualClock, log: ManualLog) -> AsyncIterator[ConnectionManager]:
    async with managed(clock, log=log, drain_seconds=5.0) as manager:
        yield manager


async def test_what_a_log_appends_is_delivered(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    await manager.emit("a")
    await manager.emit("b")
    await flushed(manager)

    assert [("connected", nth(0)), ("a", nth(1)), ("b", nth(2))] == shape(socket)


async def test_clients_get_what_was_published_before_the_epoch_ended_and_are_asked_to_reconnect(
    manager: ConnectionManager, log: ManualLog
) -> None:
    sockets = [connect(manager)[0], connect(manager, BOB)[0]]
    await manager.emit("a")
    await manager.emit("b")

    log.restart(epoch="second", first_number=nth(101))

    for socket in sockets:
        assert [("connected", nth(0)), ("a", nth(1)), ("b", nth(2)), ("reconnect", None)] == shape(socket)
        assert 0 <= socket.frames[-1]["after_ms"] <= 5_000
        assert NEW_EPOCH == socket.closed_with
    assert () == manager.connections
    assert manager.ready


async def test_a_client_that_reads_nothing_is_disconnected_when_the_epoch_ends(
    manager: ConnectionManager, log: ManualLog
) -> None:
    """What it has not read cannot be sent any more: nothing of it is in the window."""
    paused, _ = connect(manager)
    paused.pause()
    await manager.emit("a")

    log.restart(epoch="second", first_number=nth(101))

    assert [("connected", nth(0))] == shape(paused)
    assert NEW_EPOCH == paused.closed_with
    assert () == manager.connections


async def test_the_clients_of_the_last_epoch_come_back_with_a_reset(manager: ConnectionManager, log: ManualLog) -> None:
    connect(manager)
    await manager.emit("a")
    log.restart(epoch="second", first_number=nth(101))
    await manager.emit("b")

    socket, _ = connect(manager, since=nth(1), epoch="first")
    await manager.emit("c")
    await flushed(manager)

    greeting = socket.frames[0]
    assert ("reset", "second", nth(100), nth(101)) == (
        greeting["outcome"],
        greeting["epoch"],
        greeting["sequence_number"],
        greeting["oldest"],
    )
    assert [("b", nth(101)), ("heartbeat", nth(101)), ("c", nth(102))] == shape(socket)[1:]


async def test_an_epoch_may_end_while_nobody_is_connected(manager: ConnectionManager, log: ManualLog) -> None:
    await manager.emit("a")

    log.restart(epoch="second", first_number=nth(101))

    assert ("second", nth(100)) == (manager.window.epoch, manager.window.latest)
    assert nth(101) == (await manager.emit("b")).sequence_number


async def test_a_client_that_fails_does_not_keep_the_others_in_the_last_epoch(
    manager: ConnectionManager, log: ManualLog
) -> None:
    class BrokenSocket(FakeSocket):
        def close(self, code: int, reason: str = "") -> None:
            raise OSError(code, reason)

    broken = BrokenSocket()
    manager.connect(broken, identity=BOB)
    healthy, _ = connect(manager)

    log.restart(epoch="second", first_number=nth(101))

    assert broken.aborted
    assert NEW_EPOCH == healthy.closed_with
    assert "second" == manager.window.epoch
