"""Who follows a topic, as clients are told."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from support import connect
from unmissed import ConnectionManager, Identity, Settings, create_app, create_router, issue_token
from unmissed.api.presence_routes import MAX_LISTED
from unmissed.security.access import Authorize
from unmissed.testing import SECRET, ManualClock

PATH = "/websocket/presence"


def bearer(*topics: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, user_id='alice', expires_in=60, topics=topics)}"}


def follow(manager: ConnectionManager, user_id: str, *topics: str) -> None:
    connect(manager, Identity(user_id, topics=frozenset(topics)))


async def test_it_lists_the_followers_of_a_topic_and_their_connections(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    for user_id in ("bob", "alice", "bob"):
        follow(manager, user_id, "news", "sport")
    follow(manager, "carol", "sport")

    response = await client.get(PATH, params={"topic": "news"}, headers=bearer("news"))

    assert {
        "topic": "news",
        "users": [{"user_id": "alice", "connections": 1}, {"user_id": "bob", "connections": 2}],
        "total_users": 2,
        "total_connections": 3,
    } == response.json()
    assert {"alice": 1, "bob": 2, "carol": 1} == await manager.users()


async def test_a_user_who_left_or_unfollowed_is_not_listed(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    users = {name: connect(manager, Identity(name, topics=frozenset({"news"})))[0] for name in ("a", "b", "c")}

    users["a"].drop()
    users["b"].receive('{"type":"unfollow","topics":["news"]}')

    body = (await client.get(PATH, params={"topic": "news"}, headers=bearer("news"))).json()
    assert [{"user_id": "c", "connections": 1}] == body["users"]
    assert {"b": 1, "c": 1} == await manager.users()


async def test_a_prefix_in_the_token_grants_the_list(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    follow(manager, "bob", "rooms.1")

    response = await client.get(PATH, params={"topic": "rooms.1"}, headers=bearer("rooms.*"))

    assert (200, 1) == (response.status_code, response.json()["total_users"])


@pytest.mark.parametrize(("limit", "listed"), [({"limit": 2}, 2), ({}, MAX_LISTED)])
async def test_a_limit_cuts_the_list_and_not_the_totals(
    client: httpx.AsyncClient, manager: ConnectionManager, limit: dict[str, int], listed: int
) -> None:
    names = [f"u{number:04}" for number in range(MAX_LISTED + 1)]
    for name in names:
        follow(manager, name, "news")

    body = (await client.get(PATH, params={"topic": "news", **limit}, headers=bearer("*"))).json()

    assert names[:listed] == [user["user_id"] for user in body["users"]]
    assert MAX_LISTED + 1 == body["total_users"]


async def test_a_user_asks_only_so_often(clock: ManualClock) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, client_rate=1.0, client_burst=2), clock=clock)
    manager: ConnectionManager = app.state.manager
    transport = httpx.ASGITransport(app)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        responses = [await client.get(PATH, params={"topic": "news"}, headers=bearer("news")) for _ in range(3)]
        clock.advance(1.01)
        later = await client.get(PATH, params={"topic": "news"}, headers=bearer("news"))

    assert [200, 200, 429] == [response.status_code for response in responses]
    assert "1" == responses[-1].headers["retry-after"]
    assert 200 == later.status_code


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("?topic=news&topic=news", 422),
        ("?topic=", 422),
        ("?topic=a%20b", 422),
        ("?topic=rooms.*", 422),
        ("?topic=news&limit=0", 422),
        ("?topic=news&limit=1001", 422),
        ("?topic=news&limit=abc", 422),
        ("?topic=news&limit=1&limit=2", 422),
        ("?topic=sport", 403),
    ],
)
async def test_a_bad_request_is_a_problem(client: httpx.AsyncClient, query: str, status: int) -> None:
    response = await client.get(PATH + query, headers=bearer("news"))

    assert (status, "application/problem+json") == (response.status_code, response.headers["content-type"])


@pytest.mark.parametrize("query", ["", "?topic=a%20b", "?topic=news"])
async def test_a_token_is_required_before_anything_else(client: httpx.AsyncClient, query: str) -> None:
    del client.headers["Authorization"]

    response = await client.get(PATH + query)

    assert (401, "Bearer") == (response.status_code, response.headers["www-authenticate"])


async def only_rooms(identity: Identity, topic: str) -> bool:
    return identity.user_id == "alice" and topic.startswith("rooms.")


def only_rooms_at_once(identity: Identity, topic: str) -> bool:
    return identity.user_id == "alice" and topic.startswith("rooms.")


def broken(identity: Identity, topic: str) -> bool:
    raise RuntimeError(f"{identity} {topic}")


async def statuses(authorize: Authorize, path: str, **queries: dict[str, Any]) -> dict[str, int]:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI()
    app.include_router(create_router(manager, authorize=authorize))
    transport = httpx.ASGITransport(app)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return {
            name: (await client.get(path, params=query, headers=bearer("news"))).status_code
            for name, query in queries.items()
        }


@pytest.mark.parametrize("authorize", [only_rooms, only_rooms_at_once])
async def test_the_application_may_decide_in_place_of_the_token(authorize: Authorize) -> None:
    presences = await statuses(authorize, PATH, room={"topic": "rooms.1"}, news={"topic": "news"})
    messages = await statuses(
        authorize, "/websocket/messages", room={"topics": "rooms.1"}, news={"topics": "news"}, default={}
    )

    assert {"room": 200, "news": 403} == presences
    assert {"room": 200, "news": 403, "default": 200} == messages


async def test_a_decision_that_fails_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    assert {"news": 500} == await statuses(broken, PATH, news={"topic": "news"})
    assert "RuntimeError" in caplog.text
