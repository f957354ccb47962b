"""What exists while a manager runs, as its routes use it."""

import asyncio

import pytest

from support import ALICE, ManualLog, connect, managed, nth
from unmissed import ConnectionManager, NotRunning, UnknownConnection
from unmissed.core.client_frames import Command
from unmissed.core.errors import LOG_UNAVAILABLE, Draining, TooManyConnections, WrongThread
from unmissed.running import Running
from unmissed.testing import ManualClock


async def test_the_problem_is_why_nothing_is_stored_or_delivered(clock: ManualClock) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log) as manager:
        running = manager.running
        problems = [(running.problem, running.detailed_problem)]
        log.lose("redis://store: connection refused")
        problems.append((running.problem, running.detailed_problem))
        log.restore()
        problems.append((running.problem, running.detailed_problem))

    assert [(None, None), (LOG_UNAVAILABLE, "redis://store: connection refused"), (None, None)] == problems


async def test_a_log_of_one_process_has_nothing_to_catch_up_with(clock: ManualClock) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log) as manager:
        log.lose("the store is away")

        await manager.running.catch_up(nth(1_000))

        assert not manager.running.is_behind(nth(1_000))


async def everything_that_is_refused(running: Running) -> list[type[Exception]]:
    """Return what a client is refused with that connects, publishes, or calls a command."""
    refusals = list[type[Exception]]()
    for act in (running.check_capacity, lambda _: running.count_request(ALICE)):
        with pytest.raises((NotRunning, Draining)) as refused:
            act("alice")
        refusals.append(refused.type)
    for asking in (running.publish_batch([{"type": "a"}]), running.run_command(ALICE, Command("1", "say", None))):
        with pytest.raises((NotRunning, Draining)) as refused:
            await asking
        refusals.append(refused.type)
    return refusals


async def test_nothing_is_accepted_while_draining(manager: ConnectionManager) -> None:
    manager.running.drain(seconds=1)

    assert [Draining] * 4 == await everything_that_is_refused(manager.running)


async def test_a_run_that_has_ended_accepts_nothing_although_another_one_has_begun(clock: ManualClock) -> None:
    manager = managed(clock)
    async with manager:
        ended = manager.running

    async with manager:
        assert [NotRunning] * 4 == await everything_that_is_refused(ended)
        await manager.emit("a")


async def test_each_run_is_another_node(clock: ManualClock) -> None:
    manager, nodes = managed(clock), set[str]()
    with pytest.raises(NotRunning):
        assert manager.running

    for _ in range(3):
        async with manager:
            _, connection = connect(manager)
            assert manager.running.node_id == connection.id.partition(".")[0]
            nodes.add(manager.running.node_id)

    assert 3 == len(nodes)


async def test_a_connection_is_found_by_its_id(manager: ConnectionManager) -> None:
    _, connection = connect(manager)

    assert connection is manager.running.connection(connection.id)
    with pytest.raises(UnknownConnection):
        manager.running.connection("unknown")


async def test_the_capacity_is_that_of_connections(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        manager.running.check_capacity("alice")
        connect(manager)

        with pytest.raises(TooManyConnections):
            manager.running.check_capacity("alice")
        manager.running.check_capacity("bob")


def test_only_its_own_event_loop_may_use_a_run(clock: ManualClock) -> None:
    async def start() -> ConnectionManager:
        return await managed(clock).__aenter__()

    async def use(manager: ConnectionManager) -> None:
        with pytest.raises(WrongThread):
            manager.running.check_capacity("alice")

    with asyncio.Runner() as own:
        manager = own.run(start())
        assert not manager.running.is_own_loop
        asyncio.run(use(manager))
        own.run(manager.__aexit__(None, None, None))
