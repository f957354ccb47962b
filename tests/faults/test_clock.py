"""Row 23: the wall clock may be set forward or back; it changes timestamps and nothing else."""

import json
import time
from datetime import datetime

import httpx
import pytest
from fastapi import FastAPI
from websockets.sync.client import connect

from unmissed import ConnectionManager, Settings, create_router
from unmissed.server import HttpProtocol, WebSocketProtocol
from unmissed.testing import SECRET, LiveServer, ManualClock

HOUR = 3_600.0
MAX_AGE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def wall_clock() -> ManualClock:
    return ManualClock(time.time())


@pytest.fixture
def manager(clock: ManualClock, wall_clock: ManualClock) -> ConnectionManager:
    settings = Settings.load(jwt_secret=SECRET, max_age=MAX_AGE, first_number="clock")
    return ConnectionManager(settings, clock=clock, wall_clock=wall_clock)


@pytest.mark.parametrize("change", [HOUR, -HOUR], ids=["an hour forward", "an hour back"])
def test_a_change_of_the_wall_clock_changes_timestamps_alone(
    manager: ConnectionManager, clock: ManualClock, wall_clock: ManualClock, change: float
) -> None:
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    with (
        LiveServer(app, manager=manager, http=HttpProtocol, ws=WebSocketProtocol) as server,
        connect(
            server.websocket_url,
            additional_headers={"Authorization": f"Bearer {server.token(expires_in=4 * HOUR)}"},
            proxy=None,
        ) as websocket,
        httpx.Client(base_url=server.url, headers=server.headers()) as http,
    ):
        start = json.loads(websocket.recv())["sequence_number"]
        server.publish("before")
        wall_clock.advance(change)
        server.publish("after")
        received = [json.loads(websocket.recv()) for _ in range(2)]

        def recover(since: int) -> tuple[str, list[str]]:
            body = http.get("/websocket/messages", params={"since": since}).json()
            return body["outcome"], [message["type"] for message in body["messages"]]

        assert [("before", start + 1), ("after", start + 2)] == [
            (frame["type"], frame["sequence_number"]) for frame in received
        ]
        before, after = (datetime.fromisoformat(frame["timestamp"]).timestamp() for frame in received)
        assert abs(after - before - change) < 0.01
        assert ("complete", ["before", "after"]) == recover(start)
        server.call(clock.advance, MAX_AGE - 1)
        server.call(manager.running.check)
        assert ("complete", ["before", "after"]) == recover(start)
        server.call(clock.advance, 2.0)
        server.call(manager.running.check)
        assert ("gap", []) == recover(start)
        assert 1 == len(manager.connections)
