"""What operators see of the log and of a node."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from support import connect, flushed, nth
from unit.api.conftest import headers
from unmissed import ConnectionManager, Settings, create_app
from unmissed.testing import SECRET, ManualClock

PATH = "/websocket/status"


@pytest.fixture
def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers.update(headers("ops", scope="admin"))
    return client


async def test_it_tells_how_full_the_log_is_and_what_was_done(
    admin: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    connect(manager)
    await manager.emit("a")
    clock.advance(2.5)
    await manager.emit("b")
    await manager.emit("typing", ephemeral=True)
    await flushed(manager)

    body = (await admin.get(PATH)).json()

    rule = body["log"]["rules"][0]
    assert body["log"]["bytes"] == rule.pop("bytes")
    assert 2 * 256 < body["log"].pop("bytes") < 2 * 512
    assert {
        "problem": None,
        "node_id": manager.running.node_id,
        "epoch": manager.window.epoch,
        "oldest": nth(1),
        "latest": nth(2),
        "log": {
            "messages": 2,
            "values": 0,
            "reach_seconds": 2.5,
            "max_messages": 500,
            "max_bytes": 33_554_432,
            "max_age": 900.0,
            "rules": [
                {"pattern": None, "max_messages": 500, "max_age": 900.0, "messages": 2, "values": 0, "topics": 1}
            ],
        },
        "connections": 1,
        "published": 2,
        "delivered": 2,
        "ephemeral_delivered": 1,
        "ephemeral_dropped": 0,
        "evicted": 0,
        "replaced": 0,
        "gaps": 0,
        "stalls": 0,
    } == body


async def test_an_empty_log_reaches_nowhere(admin: httpx.AsyncClient) -> None:
    body = (await admin.get(PATH)).json()

    assert (nth(1), nth(0), 0.0) == (body["oldest"], body["latest"], body["log"]["reach_seconds"])


async def test_numbers_that_the_log_skipped_were_not_published(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    await manager.emit("a")
    manager.window.skip(nth(61_610_714))

    assert 1 == (await admin.get(PATH)).json()["published"]


async def test_each_rule_shows_what_it_keeps() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, retention="rooms.*=10/7d, @*=20/1h", max_messages=15))
    room, cart = {"type": "chat", "topics": ["rooms.1"]}, {"type": "cart", "topics": ["rooms.2"], "key": "cart"}
    options: Any = {"transport": httpx.ASGITransport(app), "headers": headers("ops", scope="admin")}
    async with app.state.manager as manager, httpx.AsyncClient(base_url="http://test", **options) as client:
        for message in [*[room] * 12, *[cart] * 3, {"type": "note", "users": ["alice"]}, *[{"type": "news"}] * 16]:
            await manager.publish(message)

        body = (await client.get(PATH)).json()

    shown = ("pattern", "max_messages", "max_age", "messages", "values", "topics")
    assert [
        [None, 15, 900.0, 15, 0, 1],
        ["rooms.*", 10, 604_800.0, 11, 1, 1],
        ["@*", 20, 3_600.0, 1, 0, 1],
    ] == [[rule[name] for name in shown] for rule in body["log"]["rules"]]
    assert body["log"]["bytes"] == sum(rule["bytes"] for rule in body["log"]["rules"])
    assert (27, 1) == (body["log"]["messages"], body["log"]["values"])
    assert (3, 2) == (body["evicted"], body["replaced"])


async def test_it_is_for_operators(client: httpx.AsyncClient) -> None:
    forbidden = await client.get(PATH)
    del client.headers["Authorization"]
    unknown = await client.get(PATH)

    assert (403, 401) == (forbidden.status_code, unknown.status_code)
    assert "reading the status needs a token with the scope admin" == forbidden.json()["detail"]


async def test_it_is_unavailable_before_the_start(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app)
    admin = headers("ops", scope="admin")
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=admin) as client:
        assert 503 == (await client.get(PATH)).status_code
