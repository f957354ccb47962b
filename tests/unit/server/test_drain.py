"""The server: which managers it drains, for how long, and what it refuses to serve."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from support import LOGGED, SOCKETS, until
from unmissed import ConfigurationError, ConnectionManager, Settings, create_app, create_router, issue_token
from unmissed.framework_names import Config
from unmissed.manager import LEAVE_SECONDS
from unmissed.server import Server
from unmissed.testing import SECRET

pytestmark = pytest.mark.live

HEADERS = {"Authorization": f"Bearer {issue_token(SECRET, user_id='alice', expires_in=3_600)}"}
HANGING = 60.0


def new_manager(**settings: float) -> ConnectionManager:
    return ConnectionManager(Settings.load(jwt_secret=SECRET, **settings))


@asynccontextmanager
async def served(app: FastAPI, *, max_seconds: float = math.inf) -> AsyncIterator[Server]:
    """Serve an application on this event loop, until the end of the block."""
    server = Server(Config(app, port=0, **SOCKETS["native"], **LOGGED), max_seconds=max_seconds)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server
    server.should_exit = True
    await serving


async def test_managers_are_those_that_the_lifespan_has_started() -> None:
    one, two, unused = new_manager(), new_manager(), new_manager()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001  # FastAPI passes it
        async with one, two:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_router(unused))
    async with served(app) as server:
        assert [one, two] == server.managers
        assert server.port > 0


async def test_clients_are_asked_to_reconnect_within_the_time_that_the_server_has_whatever_the_settings_say() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, drain_seconds=HANGING))
    async with (
        served(app, max_seconds=LEAVE_SECONDS + 0.5) as server,
        connect(f"ws://127.0.0.1:{server.port}/ws", additional_headers=HEADERS, proxy=None) as websocket,
    ):
        server.should_exit = True
        frames = []
        with suppress(ConnectionClosedError):
            while True:
                frames.append(json.loads(await websocket.recv()))

    assert "reconnect" == frames[-1]["type"]
    assert 0 <= frames[-1]["after_ms"] <= 500


def refuse(_server: Server) -> None:
    raise ConfigurationError("nothing fits")


@pytest.mark.parametrize(
    ("manager", "started", "reason"),
    [(None, Server.check_managers, "has started no ConnectionManager"), (new_manager, refuse, "nothing fits")],
)
async def test_what_cannot_be_served_ends_its_lifespan(
    manager: Callable[[], ConnectionManager] | None, started: Callable[[Server], None], reason: str
) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append("begins")
        if manager is None:
            yield
        else:
            async with manager().lifespan(app):
                yield
        events.append("ends")

    server = Server(Config(FastAPI(lifespan=lifespan), port=0, **LOGGED), started=started)
    await asyncio.wait_for(server.serve(), HANGING)

    assert ["begins", "ends"] == events
    assert reason in str(server.failure)
