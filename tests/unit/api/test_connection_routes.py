"""What operators see, and logging users out."""

import time
from datetime import datetime
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from jose import jwt

from support import connect, flushed, nth
from unmissed import (
    Access,
    ConnectionManager,
    Identity,
    InvalidToken,
    JwtVerifier,
    Settings,
    create_router,
    get_current_user_id,
    issue_token,
)
from unmissed.testing import SECRET, FakeSocket, ManualClock

PATH = "/websocket/connections"


def bearer(user_id: str = "ops", scope: str = "admin") -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, user_id=user_id, expires_in=60, scope=scope)}"}


@pytest.fixture
def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers.update(bearer())
    return client


def open_with(manager: ConnectionManager, token: str) -> FakeSocket:
    """Connect with the identity of a token, which the client may renew."""
    verify = JwtVerifier(SECRET).verify
    return connect(manager, verify(token), access=Access(verify))[0]


async def test_a_connection_is_listed_with_its_facts(
    admin: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, connection = connect(manager, Identity("alice", topics=frozenset({"b", "a"})), client="192.0.2.7")
    socket.pause()
    for _ in range(3):
        await manager.emit("a")
    clock.advance(90)

    [listed] = (await admin.get(PATH)).json()["connections"]

    connected_at = listed.pop("connected_at")
    assert connected_at.endswith("Z")
    assert time.time() - 90 == pytest.approx(datetime.fromisoformat(connected_at).timestamp(), abs=10)
    assert {
        "connection_id": connection.id,
        "node_id": manager.running.node_id,
        "user_id": "alice",
        "position": nth(0),
        "lag": 3,
        "topics": ["a", "b"],
        "total_topics": 2,
        "transport": "websocket",
        "client": "192.0.2.7",
    } == listed


async def test_an_unknown_address_is_null_and_a_client_that_is_up_to_date_has_no_lag(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    connect(manager)
    await manager.emit("a")
    await flushed(manager)

    [listed] = (await admin.get(PATH)).json()["connections"]

    assert (None, nth(1), 0) == (listed["client"], listed["position"], listed["lag"])


@pytest.mark.parametrize(("connections", "pages"), [(0, [0]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
async def test_the_last_page_has_no_next(
    admin: httpx.AsyncClient, manager: ConnectionManager, connections: int, pages: list[int]
) -> None:
    for _ in range(connections):
        connect(manager)
    sizes: list[int] = []
    after: str | None = ""

    while after is not None:
        page = (await admin.get(PATH, params={"limit": 3, "after": after})).json()
        sizes.append(len(page["connections"]))
        after = page["next"]

    assert pages == sizes


async def test_pages_show_each_connection_once_also_when_some_leave(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    sockets = {connection.id: socket for socket, connection in (connect(manager) for _ in range(7))}
    seen: list[str] = []
    after: str | None = ""

    while after is not None:
        page = (await admin.get(PATH, params={"limit": 3, "after": after})).json()
        seen += [each["connection_id"] for each in page["connections"]]
        after = page["next"]
        if after is not None:
            sockets[after].drop()

    assert sorted(sockets) == seen


async def test_the_connections_of_one_user_are_listed(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for user_id in ("alice", "bob", "alice"):
        connect(manager, Identity(user_id))

    page = (await admin.get(PATH, params={"user": "alice"})).json()

    assert (["alice", "alice"], None) == ([each["user_id"] for each in page["connections"]], page["next"])
    assert 2 == len(manager.connections_of("alice"))
    assert [] == (await admin.get(PATH, params={"user": "nobody"})).json()["connections"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["id", "user", "lag", "connected_at"])
async def test_pages_continue_where_the_one_before_has_ended(
    admin: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock, sort: str, order: str
) -> None:
    """Also after a user whose id contains what separates the parts of a place."""
    for user_id in ("a~b", "alice", "~", "a~b", "b&c=d", "alice", "Zo\u00eb"):
        connect(manager, Identity(user_id))[0].pause()
        await manager.emit("a")
        clock.advance(0.1)
    seen, after = list[dict[str, Any]](), None
    query: dict[str, Any] = {"sort": sort, "order": order, "limit": 2}

    while not seen or after is not None:
        page = (await admin.get(PATH, params=query | ({"after": after} if after else {}))).json()
        seen += page["connections"]
        after = page["next"]
        assert (7, 7) == (page["total"], page["matching"])

    assert {each.id for each in manager.connections} == {each["connection_id"] for each in seen}
    field = {"id": "connection_id", "user": "user_id"}.get(sort, sort)
    values = [each[field] for each in seen]
    assert (7, sorted(values, reverse=order == "desc")) == (len(seen), values)


async def test_the_filters_of_a_list_are_counted(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for number in range(9):
        topics = frozenset({"news"} if number % 2 else {"sport"})
        connect(manager, Identity(f"user-{number}", topics=topics), client="192.0.2.7")

    page = (await admin.get(PATH, params={"topic": "news", "search": "USER-", "limit": 3})).json()
    nobody = (await admin.get(PATH, params={"topic": "news", "user": "user-2"})).json()

    assert (3, 9, 4, False) == (len(page["connections"]), page["total"], page["matching"], page["next"] is None)
    assert {"connections": [], "total": 9, "matching": 0, "next": None} == nobody


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=abc",
        "after=a&after=b",
        "user=a&user=b",
        "sort=age",
        "sort=",
        "order=down",
        "topic=a b",
        "topic=",
        "search=a&search=b",
        "sort=lag&after=node.1",
        "sort=lag&after=lag~node.1~x",
        "sort=lag&after=lag~node.1~%2B5",
        "sort=lag&after=lag~node.1~05",
        "sort=connected_at&after=connected_at~node.1~nan",
        "sort=lag&after=user~node.1~7",
        "sort=connected_at&after=connected_at~~1.5",
    ],
)
async def test_a_bad_query_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    assert 422 == (await admin.get(f"{PATH}?{query}")).status_code


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_operators_need_the_scope(client: httpx.AsyncClient, method: str) -> None:
    forbidden = await client.request(method, PATH, headers=bearer(scope="messages:publish"))
    del client.headers["Authorization"]
    unknown = await client.request(method, PATH)

    assert (403, 401) == (forbidden.status_code, unknown.status_code)
    assert forbidden.json()["detail"].endswith("needs a token with the scope admin")


async def test_a_user_who_is_logged_out_comes_back_with_a_later_token_only(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    before = issue_token(SECRET, user_id="alice", expires_in=60)
    undated = jwt.encode({"sub": "alice", "exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    sockets = [open_with(manager, before) for _ in range(2)]
    other = open_with(manager, issue_token(SECRET, user_id="bob", expires_in=60))

    response = await admin.delete(PATH, params={"user": "alice"})

    assert (200, {"closed": 2}) == (response.status_code, response.json())
    assert [(4401, "logged out: log in again")] * 2 == [socket.closed_with for socket in sockets]
    assert not other.closed_with
    after = issue_token(SECRET, user_id="alice", expires_in=60)
    bob = issue_token(SECRET, user_id="bob", expires_in=60)
    assert [401, 401, 200, 200] == [await status(admin, token) for token in (before, undated, after, bob)]
    for token in (before, undated):
        with pytest.raises(InvalidToken, match="the user was logged out: log in again"):
            open_with(manager, token)
    assert not open_with(manager, after).closed_with


async def status(client: httpx.AsyncClient, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await client.get("/websocket/messages", headers=headers)).status_code


async def test_a_token_from_before_the_logout_renews_nothing(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    before = issue_token(SECRET, user_id="alice", expires_in=60)
    assert {"closed": 0} == (await admin.delete(PATH, params={"user": "alice"})).json()
    socket = open_with(manager, issue_token(SECRET, user_id="alice", expires_in=60))

    socket.receive(f'{{"type":"authenticate","token":"{before}"}}')

    assert (4401, "error") == (socket.frames[-1]["code"], socket.frames[-1]["type"])


async def test_a_slow_client_is_logged_out_without_what_it_has_not_taken(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    slow, _ = connect(manager)
    slow.pause()
    await manager.emit("a")

    await admin.delete(PATH, params={"user": "alice"})

    assert (4401, "logged out: log in again") == slow.closed_with
    assert ["connected"] == [frame["type"] for frame in slow.frames]


@pytest.mark.parametrize("path", [PATH, "/metrics", "/websocket/presence?topic=a", "/websocket/messages"])
async def test_an_operator_who_is_logged_out_is_refused_by_every_route(admin: httpx.AsyncClient, path: str) -> None:
    assert {"closed": 0} == (await admin.delete(PATH, params={"user": "ops"})).json()

    assert 401 == (await admin.get(path)).status_code


async def test_one_connection_is_logged_out_with_its_token(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    tokens = [issue_token(SECRET, user_id="alice", expires_in=60) for _ in range(2)]
    out, stays = (open_with(manager, token) for token in tokens)

    response = await admin.delete(PATH, params={"connection_id": out.frames[0]["connection_id"]})

    assert (200, {"closed": 1}) == (response.status_code, response.json())
    assert (4401, None) == (out.closed_with and out.closed_with[0], stays.closed_with)
    assert [401, 200] == [await status(admin, token) for token in tokens]
    with pytest.raises(InvalidToken):
        open_with(manager, tokens[0])
    assert not open_with(manager, tokens[1]).closed_with


async def test_a_client_that_is_to_reconnect_keeps_its_token(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=60)
    closed, stays = open_with(manager, token), open_with(manager, token)

    response = await admin.delete(
        PATH, params={"connection_id": closed.frames[0]["connection_id"], "reconnect": "true"}
    )

    assert (200, {"closed": 1}) == (response.status_code, response.json())
    assert ((1012, "disconnected by an operator: reconnect"), None) == (closed.closed_with, stays.closed_with)
    assert 200 == await status(admin, token)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 422),
        ({"user": ""}, 422),
        ({"user": "a", "connection_id": "b"}, 422),
        ({"user": "a", "reconnect": "true"}, 422),
        ({"connection_id": "b", "reconnect": "yes"}, 422),
        ({"connection_id": "unknown"}, 404),
        ({"connection_id": "unknown", "reconnect": "true"}, 404),
    ],
)
async def test_a_logout_of_nobody_is_refused(admin: httpx.AsyncClient, query: dict[str, Any], expected: int) -> None:
    assert expected == (await admin.delete(PATH, params=query)).status_code


@pytest.mark.parametrize(("scope", "query"), [("", "user=alice"), ("admin", "user=alice&user=bob")])
async def test_a_refused_logout_closes_nothing(
    client: httpx.AsyncClient, manager: ConnectionManager, scope: str, query: str
) -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=60)
    socket = open_with(manager, token)

    response = await client.delete(f"{PATH}?{query}", headers=bearer(scope=scope))

    assert response.is_client_error
    assert (None, 200) == (socket.closed_with, await status(client, token))


async def test_a_connection_is_logged_out_with_the_tokens_that_it_has_renewed(
    admin: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    first, second = (issue_token(SECRET, user_id="alice", expires_in=60) for _ in range(2))
    socket = open_with(manager, first)
    socket.receive(f'{{"type":"authenticate","token":"{second}"}}')
    [connection] = manager.connections

    await admin.delete(PATH, params={"connection_id": connection.id})

    assert [401, 401] == [await status(admin, token) for token in (first, second)]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("DELETE", f"{PATH}?user=alice"), ("GET", "/websocket/presence?topic=a"), ("GET", "/metrics")],
)
async def test_nothing_is_answered_before_the_start(app: FastAPI, method: str, path: str) -> None:
    token = issue_token(SECRET, user_id="ops", expires_in=60, scope="admin", topics=["*"])
    transport, headers = httpx.ASGITransport(app), {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        assert 503 == (await client.request(method, path)).status_code


async def test_a_logout_counts_for_the_other_routes_of_the_application(clock: ManualClock) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET), clock=clock)
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))

    @app.get("/me")
    async def me(user_id: Annotated[str, Depends(get_current_user_id)]) -> str:
        return user_id

    token = issue_token(SECRET, user_id="alice", expires_in=60)
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client,
    ):
        before = (await client.get("/me")).status_code
        await manager.log_out("alice")

        assert (200, 401) == (before, (await client.get("/me")).status_code)
