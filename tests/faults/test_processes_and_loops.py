"""Processes and event loops: what identifies a process, and what belongs to a loop, is made when it begins to run."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import RedisServer
from places import LOGS, new_url
from unmissed import AlreadyRunning, ConnectionManager, Settings, client, create_app
from unmissed.testing import SECRET, LiveServer

FIRST = 1_796_000_000_000_000


@pytest.fixture(params=LOGS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Return settings with each kind of log, at a place of its own."""
    url = new_url(request.param, request, tmp_path)
    return Settings.load(jwt_secret=SECRET, log_url=url, first_number=FIRST)


@pytest.fixture
def manager(settings: Settings) -> ConnectionManager:
    """Return a manager that has not been started, and belongs to no event loop yet."""
    return ConnectionManager(settings)


def test_a_manager_starts_again_on_another_event_loop(manager: ConnectionManager) -> None:
    async def live() -> tuple[str, int]:
        async with manager:
            ahead = manager.window.latest + 1_000
            # Several at the same time wait for each other, which binds a lock to the event loop.
            await asyncio.gather(
                *(manager.running.catch_up(ahead) for _ in range(3)), *(manager.emit("a") for _ in range(3))
            )
            assert {} == await manager.users()
            assert 0 == await manager.log_out("alice")
            return manager.running.node_id, manager.window.latest

    (first_node, first_latest), (second_node, second_latest) = [asyncio.run(live()) for _ in range(2)]

    assert first_node != second_node
    assert first_latest < second_latest


def test_a_live_server_that_restarts_serves_the_same_application(settings: Settings) -> None:
    app = create_app(settings)
    with LiveServer(app, manager=app.state.manager, settings=settings) as server:

        async def connected_node() -> str:
            async with client.connect(server.url, token=server.token()) as stream:
                server.publish("a")
                event = await anext(aiter(stream))
                assert isinstance(event, client.ReceivedMessage)
                return server.manager.running.node_id

        before = asyncio.run(connected_node())
        server.restart()
        after = asyncio.run(connected_node())

    assert before != after


async def test_of_two_starts_at_the_same_time_one_succeeds(manager: ConnectionManager) -> None:
    outcomes = await asyncio.gather(*(manager.__aenter__() for _ in range(3)), return_exceptions=True)

    try:
        assert [manager] == [each for each in outcomes if not isinstance(each, BaseException)]
        assert [AlreadyRunning] * 2 == [type(each) for each in outcomes if isinstance(each, BaseException)]
        assert manager.ready
        await manager.emit("a")
    finally:
        await manager.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="not running"):
        await manager.emit("b")


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 100, 1_000])
async def test_a_start_that_is_cancelled_after_any_step_leaves_a_manager_that_starts(
    manager: ConnectionManager, steps: int
) -> None:
    starting = asyncio.ensure_future(manager.__aenter__())
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    if not starting.cancelled():
        await manager.__aexit__(None, None, None)

    assert 1 == len(asyncio.all_tasks())
    async with manager:
        assert manager.ready
        await manager.emit("a")


async def test_a_start_during_a_stop_is_refused_and_one_after_it_succeeds(manager: ConnectionManager) -> None:
    await manager.__aenter__()
    stopping = asyncio.ensure_future(manager.__aexit__(None, None, None))
    await asyncio.sleep(0)
    if not stopping.done():
        with pytest.raises(AlreadyRunning):
            await manager.__aenter__()
    await stopping

    async with manager:
        assert manager.ready


PRELOADED = """
import asyncio, json, os

from unmissed import ConnectionManager, Identity
from unmissed.testing import FakeSocket

manager = ConnectionManager()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


async def serve(user_id, peer_id):
    async with asyncio.timeout(60), manager:
        socket = FakeSocket()
        connection = manager.connect(socket, identity=Identity(user_id, issued_at=1.0))
        while await manager.users() != {user_id: 1, peer_id: 1}:
            pass
        # Both have seen each other when this message of both has arrived.
        await manager.emit("seen")
        await until(lambda: manager.window.latest - first >= 2)
        await manager.log_out(peer_id)
        await until(lambda: socket.closed_with)
        print(json.dumps([manager.running.node_id, connection.id, socket.closed_with[0]]), flush=True)


first = int(os.environ["FIRST"])
children = []
for user_id, peer_id in (("alice", "bob"), ("bob", "alice")):
    child = os.fork()
    if child == 0:
        asyncio.run(serve(user_id, peer_id))
        os._exit(0)
    children.append(child)
raise SystemExit(sum(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def preloaded(redis: RedisServer) -> list[Any]:
    """Run a program that is forked after it has created its manager, as ``gunicorn --preload`` does."""
    environment = {
        "UNMISSED_JWT_SECRET": SECRET,
        "UNMISSED_LOG_URL": redis.url,
        "UNMISSED_FIRST_NUMBER": str(FIRST),
        "FIRST": str(FIRST - 1),
    }
    ran = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", PRELOADED], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert 0 == ran.returncode, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_processes_that_are_forked_from_one_that_created_the_manager_are_nodes_of_their_own(
    redis: RedisServer,
) -> None:
    [first, second] = preloaded(redis)

    assert first[0] != second[0]
    for node_id, connection_id, code in (first, second):
        assert node_id == connection_id.partition(".")[0]
        assert 4401 == code
