"""Topics, nodes and the last hour over REST."""

from datetime import datetime

import httpx
import pytest
from fastapi import FastAPI

from support import connect, nth
from unit.api.conftest import headers
from unmissed import ConnectionManager, Identity, Settings, create_app
from unmissed.testing import SECRET, ManualClock

TOPICS, NODES, HISTORY = PATHS = ("/websocket/topics", "/websocket/nodes", "/websocket/history")


@pytest.fixture
def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers.update(headers("ops", scope="admin"))
    return client


def follower(*topics: str) -> Identity:
    return Identity("alice", topics=frozenset(topics))


async def test_topics_are_listed_with_their_connections(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for topics in (("news", "sport"), ("news",), ("arts", "news")):
        connect(manager, follower(*topics))

    every = (await admin.get(TOPICS)).json()
    found = (await admin.get(TOPICS, params={"search": "R", "limit": 1})).json()

    listed = [(each["topic"], each["connections"]) for each in every["topics"]]
    assert ([("news", 3), ("arts", 1), ("sport", 1)], 3, 3) == (listed, every["total"], every["matching"])
    assert {"topics": [{"topic": "arts", "connections": 1}], "total": 3, "matching": 2} == found


async def test_a_node_says_how_it_is(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    connect(manager)
    slow, _ = connect(manager)
    slow.pause()
    await manager.emit("a")

    [node] = (await admin.get(NODES)).json()["nodes"]

    assert datetime.fromisoformat(node.pop("started_at"))
    assert {
        "node_id": manager.running.node_id,
        "own": True,
        "connections": 2,
        "behind": 1,
        "latest": nth(1),
        "draining": False,
        "problem": None,
    } == node


async def test_a_silent_node_has_an_id_and_nothing_else(
    admin: httpx.AsyncClient, manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(manager.running.cluster.nodes), "others", frozenset({"~silent"}))

    first, second = (await admin.get(NODES)).json()["nodes"]

    assert (manager.running.node_id, True, "~silent", False) == (
        first["node_id"],
        first["own"],
        second.pop("node_id"),
        second.pop("own"),
    )
    assert {None} == {*second.values()}
    assert {*first} == {"node_id", "own", *second}


async def test_the_history_lists_and_counts_what_has_happened(
    admin: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    for _ in range(501):
        await manager.emit("a")
    socket, connection = connect(manager, since=nth(0), client="192.0.2.7")
    clock.advance(1)
    socket.drop(1006)
    connect(manager)[0].drop(4_999, "bye")
    clock.advance(1)
    for _ in range(2):
        await admin.get("/websocket/messages", headers={"Authorization": "Bearer x.y.z"})

    past = (await admin.get(HISTORY)).json()

    kinds = [(each["kind"], each["code"]) for each in past["entries"]]
    assert ([("refused", 4401), ("gap", None)], {("close", 1006), ("close", 4_999)}) == (
        [kinds[0], kinds[-1]],
        {*kinds[1:-1]},
    )
    gap, refused = past["entries"][-1], past["entries"][0]
    assert datetime.fromisoformat(gap.pop("time"))
    assert {
        "kind": "gap",
        "node_id": manager.running.node_id,
        "connection_id": connection.id,
        "user_id": "alice",
        "client": "192.0.2.7",
        "code": None,
        "status": None,
        "reason": "",
        "request": None,
        "from": nth(1),
        "to": nth(1),
        "count": 1,
    } == gap
    assert (401, "GET /websocket/messages", 2, None) == tuple(
        refused[name] for name in ("status", "request", "count", "user_id")
    )
    assert ({"1006": 1, "other": 1}, {"4401": 2}) == (past["closes"], past["refusals"])
    assert datetime.fromisoformat(past["since"]) <= datetime.fromisoformat(refused["time"])
    [minute] = past["minutes"]
    assert (1, 0, 0, 2, 2) == tuple(minute[name] for name in ("gap", "reset", "stall", "close", "refused"))


async def test_a_recovery_over_rest_is_in_the_history(admin: httpx.AsyncClient) -> None:
    await admin.get("/websocket/messages", params={"since": nth(7)})
    await admin.get("/websocket/messages", params={"since": nth(0)})
    await admin.get("/websocket/messages")

    past = (await admin.get(HISTORY)).json()

    assert [("reset", "ops", None, nth(7), None)] == [
        (each["kind"], each["user_id"], each["connection_id"], each["from"], each["to"]) for each in past["entries"]
    ]


async def test_no_token_is_in_the_history(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    token = headers()["Authorization"].removeprefix("Bearer ")
    connect(manager)[1].close(1000, f"bye, token={token}")
    await admin.get("/websocket/messages", params={"since": f"token={token}", "topics": token})

    past = (await admin.get(HISTORY)).text
    assert "bye, token=[redacted]" in past
    assert token[:20] not in past


async def test_the_history_can_be_of_one_kind_and_short(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for _ in range(3):
        connect(manager, since=nth(7))[0].drop()

    entries = (await admin.get(HISTORY, params={"kind": "reset", "limit": 2})).json()["entries"]

    assert ["reset"] * 2 == [each["kind"] for each in entries]


@pytest.mark.parametrize(
    "query",
    [
        f"{TOPICS}?limit=0",
        f"{TOPICS}?limit=1001",
        f"{TOPICS}?search=a&search=b",
        f"{HISTORY}?limit=+5",
        f"{HISTORY}?kind=closed",
        f"{HISTORY}?kind=",
    ],
)
async def test_a_bad_query_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    assert 422 == (await admin.get(query)).status_code


@pytest.mark.parametrize("path", PATHS)
async def test_operators_need_the_scope(client: httpx.AsyncClient, path: str) -> None:
    forbidden = await client.get(path)
    del client.headers["Authorization"]
    unknown = await client.get(path)

    assert (403, 401) == (forbidden.status_code, unknown.status_code)
    assert forbidden.json()["detail"].endswith("needs a token with the scope admin")


@pytest.mark.parametrize("path", PATHS)
async def test_answers_are_for_pages_of_allowed_origins_and_not_stored(path: str, clock: ManualClock) -> None:
    origin = "https://ops.example.com"
    app = create_app(Settings.load(jwt_secret=SECRET, allowed_origins=origin), clock=clock)
    sent = headers("ops", scope="admin") | {"Origin": origin}
    transport = httpx.ASGITransport(app)
    async with app.state.manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, headers=sent)
        preflight = await client.options(path, headers={"Origin": origin, "Access-Control-Request-Method": "GET"})

    assert (200, "no-store", origin) == (
        answer.status_code,
        answer.headers["cache-control"],
        answer.headers["access-control-allow-origin"],
    )
    assert (200, origin) == (preflight.status_code, preflight.headers["access-control-allow-origin"])


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_answered_before_the_start(app: FastAPI, path: str) -> None:
    sent = headers("ops", scope="admin")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=sent) as client:
        assert 503 == (await client.get(path)).status_code
