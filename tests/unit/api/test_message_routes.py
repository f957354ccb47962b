"""The REST routes: what is refused, how, and that nothing changes by it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from support import nth, nths
from unmissed import ConnectionManager, InvalidMessage, Settings, create_app, issue_token
from unmissed.api import models
from unmissed.testing import SECRET

PATH = "/websocket/messages"


def bearer(user_id: str = "alice", *, scope: str = "messages:publish") -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, user_id=user_id, expires_in=60, scope=scope)}"}


def assert_problem(response: httpx.Response, status: int) -> None:
    assert status == response.status_code
    assert "application/problem+json" == response.headers["content-type"]
    assert "no-store" == response.headers["cache-control"]
    problem = response.json()
    assert problem["type"] == f"urn:unmissed:problem:{problem['title'].lower().replace(' ', '-')}"
    assert status == problem["status"]
    assert problem["detail"]


@pytest.mark.parametrize(
    "query",
    [
        *(f"since={bad}" for bad in ("-1", "1.0", "%2B5", "%201", "1_000", "1e3", "0x10", "NaN", "abc", "", "007")),
        "since=%EF%BC%91",
        "since=9007199254740992",
        f"since={'9' * 4_400}",
        "since=1&since=1",
        "epoch=a&epoch=b",
        "limit=0",
        "limit=x",
        "limit=1&limit=2",
        "topics=a%20b",
        "topics=a,,b",
        "topics=rooms.*",
        "topics=a&topics=b",
    ],
)
async def test_a_bad_query_is_a_422_that_names_the_fix(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"{PATH}?{query}")

    assert_problem(response, 422)


@pytest.mark.parametrize(
    ("query", "topics", "expected"),
    [
        ("", ["news"], ["news", "everyone", "alice"]),
        ("?topics=news", ["news"], ["news", "everyone", "alice"]),
        ("?topics=", [], ["everyone", "alice"]),
        ("?topics=rooms.1,news", ["news", "rooms.1"], ["news", "room", "everyone", "alice"]),
        ("?topics=rooms.2&limit=1", ["rooms.2"], ["everyone"]),
    ],
)
async def test_recovery_shows_the_topics_that_are_asked_for_or_granted_by_name(
    client: httpx.AsyncClient, manager: ConnectionManager, query: str, topics: list[str], expected: list[str]
) -> None:
    await manager.emit("news", topics=["news"])
    await manager.emit("room", topics=["rooms.1"])
    await manager.emit("other", topics=["sport"], users=["bob"])
    await manager.emit("everyone")
    await manager.emit("alice", topics=["sport"], users=["alice"])
    token = issue_token(SECRET, user_id="alice", expires_in=60.0, topics=["news", "rooms.*"])

    response = await client.get(f"{PATH}{query}", headers={"Authorization": f"Bearer {token}"})

    assert topics == response.json()["topics"]
    assert expected == [message["type"] for message in response.json()["messages"]]


async def test_a_topic_that_is_not_granted_is_a_403(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{PATH}?topics=sport")

    assert_problem(response, 403)
    assert "the topic sport is not granted" in response.json()["detail"]


async def test_the_largest_number_is_accepted(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{PATH}?since=9007199254740991")

    assert "reset" == response.json()["outcome"]


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "Bearer ", "Bearer x.y.z", "Bearer " + "x" * 9_000])
@pytest.mark.parametrize("query", ["", "?since=abc"])
async def test_bad_authentication_is_a_401_before_anything_else(
    client: httpx.AsyncClient, header: str, query: str
) -> None:
    response = await client.get(f"{PATH}{query}", headers={"Authorization": header})

    assert_problem(response, 401)
    assert "Bearer" == response.headers["www-authenticate"]


@pytest.mark.parametrize(("ignored", "status"), [(False, 401), (True, 200)])
async def test_a_token_for_another_audience_is_accepted_only_where_the_setting_allows_it(
    *, ignored: bool, status: int
) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, jwt_ignore_audience=ignored))
    token = issue_token(SECRET, user_id="alice", expires_in=60, audience="mail")
    transport: Any = httpx.ASGITransport(app)
    async with app.state.manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get(PATH, headers={"Authorization": f"Bearer {token}"})

    assert status == response.status_code


async def test_a_publish_is_answered_with_its_stamp(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    response = await client.post(PATH, json={"type": "a", "data": 1})

    assert 201 == response.status_code
    assert {
        "sequence_number": nth(1),
        "epoch": manager.window.epoch,
        "timestamp": response.json()["timestamp"],
    } == response.json()


async def test_an_array_is_one_block(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json=[{"type": "a"}, {"type": "b"}])

    assert 201 == response.status_code
    assert nths(1, 2) == [stamp["sequence_number"] for stamp in response.json()]


async def test_an_array_of_one_is_answered_with_an_array(client: httpx.AsyncClient) -> None:
    content_type = {"Content-Type": "application/json"}

    response = await client.post(PATH, content=b' \r\n\t[ {"type": "a"} ] ', headers=content_type)

    assert nths(1) == [stamp["sequence_number"] for stamp in response.json()]


async def test_extra_keys_are_kept_and_users_are_not_shown(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json={"type": "a", "users": ["alice"], "room": 7})

    [message] = (await client.get(PATH)).json()["messages"]
    assert 7 == message["room"]
    assert "users" not in message


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"\xff", 422),
        (b"7", 422),
        (b"[]", 422),
        (b"[7]", 422),
        (b"{}", 422),
        (b'{"type":"gap"}', 422),
        (b'{"type":"a","data":NaN}', 422),
        (b'{"type":"a","data":1e999}', 422),
        (b'{"type":"a","data":"\\ud800"}', 422),
        (b'{"type":"a","topics":["b c"]}', 422),
        (b'{"type":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422),
        (b'{"type":"a","data":' + b"9" * 5_000 + b"}", 422),
        (b'[{"type":"a"},{"type":"a","users":[]}]', 422),
        (b'[{"type":"a"},', 422),
        (b'[{"type":"a"}]]', 422),
        (b'{"type":"a","data":"' + b"x" * 70_000 + b'"}', 413),
        (b" " * 1_100_000 + b'{"type":"a"}', 413),
    ],
)
async def test_a_refused_publish_uses_no_number(
    client: httpx.AsyncClient, manager: ConnectionManager, body: bytes, status: int
) -> None:
    response = await client.post(PATH, content=body, headers={"Content-Type": "application/json"})

    assert_problem(response, status)
    assert nth(0) == manager.window.latest


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_another_content_type_is_a_415(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(PATH, content=b'{"type":"a"}', headers={"Content-Type": content_type})

    assert_problem(response, 415)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json"])
async def test_json_by_any_of_its_names_is_accepted(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(PATH, content=b'{"type":"a"}', headers={"Content-Type": content_type})

    assert 201 == response.status_code


@pytest.mark.parametrize("path", ["/websocket/messages", "/websocket/commands/pay"])
async def test_a_request_whose_body_arrives_after_the_logout_of_its_user_does_nothing(
    client: httpx.AsyncClient, manager: ConnectionManager, path: str
) -> None:
    paid: list[object] = []
    latest = manager.window.latest

    @manager.command("pay")
    async def pay(data: object) -> None:
        paid.append(data)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"type":'
        await manager.log_out("alice")
        yield b'"a"}'

    headers = {"Content-Type": "application/json", "Idempotency-Key": "1"}
    response = await client.post(path, content=body(), headers=headers)

    assert_problem(response, 401)
    assert ([], latest) == (paid, manager.window.latest)


async def test_publishing_needs_its_scope(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    response = await client.post(PATH, json={"type": "a"}, headers=bearer(scope="messages:read"))

    assert_problem(response, 403)
    assert nth(0) == manager.window.latest


async def test_the_same_idempotency_key_gives_the_first_answer_again(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    key = {"Idempotency-Key": "9f2b"}

    first = await client.post(PATH, json={"type": "a"}, headers=key)
    again = await client.post(PATH, json={"type": "a"}, headers=key)
    elsewhere = await client.post(PATH, json={"type": "a"}, headers={**key, **bearer("bob")})

    assert (201, 200, 201) == (first.status_code, again.status_code, elsewhere.status_code)
    assert first.json() == again.json()
    assert nth(2) == manager.window.latest


async def test_the_same_idempotency_key_with_another_body_is_a_422(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    key = {"Idempotency-Key": "9f2b"}
    await client.post(PATH, json={"type": "a"}, headers=key)

    response = await client.post(PATH, json={"type": "a", "data": 1}, headers=key)

    assert_problem(response, 422)
    assert "this idempotency key was used for another message: use a new key" == response.json()["detail"]
    assert nth(1) == manager.window.latest


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
async def test_a_bad_idempotency_key_is_a_422(client: httpx.AsyncClient, key: str) -> None:
    response = await client.post(PATH, json={"type": "a"}, headers={"Idempotency-Key": key})

    assert_problem(response, 422)


async def test_an_answer_of_more_than_1_mib_is_cut(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for _ in range(20):
        await manager.emit("a", "x" * 60_000)

    first = (await client.get(PATH)).json()
    rest = (await client.get(f"{PATH}?since={first['messages'][-1]['sequence_number']}")).json()

    assert (True, False) == (first["has_more"], rest["has_more"])
    assert nths(*range(1, 21)) == [each["sequence_number"] for each in first["messages"] + rest["messages"]]
    assert 17 == len(first["messages"])


async def test_bodies_are_what_openapi_says(client: httpx.AsyncClient) -> None:
    stamp = (await client.post(PATH, json={"type": "a", "room": 7})).json()
    recovery = (await client.get(PATH)).json()

    assert stamp == models.StampBody.model_validate(stamp, strict=True).model_dump()
    assert recovery == models.RecoveryBody.model_validate(recovery).model_dump(mode="json", exclude_unset=True)


async def test_openapi_documents_bodies_parameters_errors_and_the_bearer(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()

    get, post = schema["paths"][PATH]["get"], schema["paths"][PATH]["post"]
    assert {"since", "epoch", "topics", "limit"} == {each["name"] for each in get["parameters"]}
    assert {"200", "401", "403", "422", "503"} == set(get["responses"])
    assert {"200", "201", "202", "401", "403", "413", "415", "422", "429", "503"} == set(post["responses"])
    assert "#/components/schemas/Recovery" in json.dumps(get["responses"]["200"])
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert [{"Bearer": []}] == get["security"] == post["security"]


async def test_the_route_before_the_start_is_a_503(app: FastAPI) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", headers=bearer()
    ) as client:
        response = await client.post(PATH, json={"type": "a"})

        assert_problem(response, 503)
        assert 503 == (await client.get("/readyz")).status_code
        assert 200 == (await client.get("/livez")).status_code


async def test_an_allowed_origin_may_send_any_header() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, allowed_origins="https://app.example.com"))
    transport: Any = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        preflight = await client.options(
            PATH,
            headers={
                "Origin": "https://app.example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, x-request-id",
            },
        )

    assert 200 == preflight.status_code
    assert "authorization, x-request-id" == preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://app.example.com", True), ("https://app.example.com.evil", False)]
)
async def test_cors_follows_the_allowed_origins(origin: str, *, allowed: bool) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, allowed_origins="https://app.example.com"))
    transport: Any = httpx.ASGITransport(app)
    async with app.state.manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        preflight = await client.options(
            PATH,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        answer = await client.get(PATH, headers={"Origin": origin, **bearer()})
        refusal = await client.get(PATH, headers={"Origin": origin})

    expected = origin if allowed else None
    credentials = "true" if allowed else None
    for response in (preflight, answer, refusal):
        assert credentials == response.headers.get("access-control-allow-credentials")
    assert expected == preflight.headers.get("access-control-allow-origin")
    assert expected == answer.headers.get("access-control-allow-origin")
    assert expected == refusal.headers.get("access-control-allow-origin")
    if allowed:
        # A cache must not give an answer for one origin to the page of another.
        assert all(response.headers["vary"].startswith("Origin") for response in (preflight, answer, refusal))
    assert (200 if allowed else 400, 200, 401) == (preflight.status_code, answer.status_code, refusal.status_code)


@pytest.mark.parametrize("allowed_origins", ["*", "https://app.example.com,*"])
async def test_pages_may_not_send_cookies_where_any_origin_is_allowed(allowed_origins: str) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, allowed_origins=allowed_origins))
    transport: Any = httpx.ASGITransport(app)
    async with app.state.manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(PATH, headers={"Origin": "https://app.example.com", **bearer()})

    assert "https://app.example.com" == answer.headers["access-control-allow-origin"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_ephemeral_message_is_accepted_with_its_timestamp(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    one = await client.post(PATH, json={"type": "typing", "ephemeral": True})
    two = await client.post(PATH, json=[{"type": "typing", "ephemeral": True}] * 2)

    assert (202, 202) == (one.status_code, two.status_code)
    assert [{"timestamp"}] * 3 == [*map(set, (one.json(), *two.json()))]
    assert "no-store" == one.headers["cache-control"]
    assert one.json() == models.LiveBody.model_validate_json(one.content).model_dump()
    assert (nth(0), 3) == (manager.window.latest, manager.running.measures.ephemeral_published)


@pytest.mark.parametrize(
    ("body", "key", "detail"),
    [
        ([{"type": "a", "ephemeral": True}, {"type": "a"}], None, "a batch is ephemeral as a whole"),
        ({"type": "a", "ephemeral": True}, "k", "no Idempotency-Key"),
        ({"type": "a", "ephemeral": True, "key": "cart"}, None, "leave out key or ephemeral"),
        ({"type": "a", "ephemeral": "yes"}, None, "ephemeral must be true or false"),
    ],
)
async def test_what_cannot_be_ephemeral_is_refused_and_nothing_is_published(
    manager: ConnectionManager, client: httpx.AsyncClient, body: object, key: str | None, detail: str
) -> None:
    response = await client.post(PATH, json=body, headers={} if key is None else {"Idempotency-Key": key})

    assert_problem(response, 422)
    assert detail in response.json()["detail"]
    assert (nth(0), 0) == (manager.window.latest, manager.running.measures.ephemeral_published)


async def test_an_application_says_itself_that_a_message_is_ephemeral(manager: ConnectionManager) -> None:
    with pytest.raises(InvalidMessage, match="ephemeral=True"):
        await manager.publish({"type": "typing", "ephemeral": True})
