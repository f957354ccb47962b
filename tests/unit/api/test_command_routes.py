"""Commands over HTTP: the same functions, ids and limits as on the WebSocket."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field

from support import connect, until
from unit.api.conftest import headers
from unmissed import CommandError, ConnectionManager, Identity, Settings, create_app
from unmissed.testing import SECRET, ManualClock

PATH = "/websocket/commands"


class Line(BaseModel):
    text: str = Field(max_length=5)


@pytest.fixture
def calls(app: FastAPI) -> list[Any]:
    """Register commands, and return what they were called with."""
    calls: list[Any] = []
    manager: ConnectionManager = app.state.manager

    @manager.command("say")
    async def say(line: Line, identity: Identity) -> dict[str, Any]:
        calls.append((identity.user_id, line.text))
        return {"number": len(calls), "half": 0.5}

    @manager.command("cart/empty")
    def empty() -> None:
        calls.append("empty")

    @manager.command("refuse")
    async def refuse() -> None:
        raise CommandError("not today")

    @manager.command("fail")
    async def fail() -> None:
        raise RuntimeError("secret")

    return calls


async def call(client: httpx.AsyncClient, name: str, key: str | None = "k1", **options: Any) -> httpx.Response:
    given = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"{PATH}/{name}", headers={**given, **options.pop("headers", {})}, **options)


async def test_a_command_is_called_with_the_data_and_the_user(client: httpx.AsyncClient, calls: list[Any]) -> None:
    response = await call(client, "say", json={"text": "hello"})

    assert (200, {"data": {"number": 1, "half": 0.5}}) == (response.status_code, response.json())
    assert [("alice", "hello")] == calls
    assert "no-store" == response.headers["cache-control"]


async def test_a_command_without_data_needs_no_body_and_may_return_nothing(
    client: httpx.AsyncClient, calls: list[Any]
) -> None:
    response = await call(client, "cart/empty")

    assert (200, {"data": None}) == (response.status_code, response.json())
    assert ["empty"] == calls


async def test_a_repeated_command_is_answered_like_the_first_time(client: httpx.AsyncClient, calls: list[Any]) -> None:
    first, again, other = [await call(client, "say", key, json={"text": "a"}) for key in ("k1", "k1", "k2")]

    assert first.json() == again.json()
    assert {"number": 2, "half": 0.5} == other.json()["data"]
    assert 2 == len(calls)


async def test_a_command_that_was_sent_on_a_websocket_may_be_repeated_over_http(
    client: httpx.AsyncClient, manager: ConnectionManager, calls: list[Any]
) -> None:
    socket, _ = connect(manager)
    socket.receive(json.dumps({"type": "command", "id": "k1", "name": "say", "data": {"text": "a"}}))
    await until(lambda: socket.frames[-1]["type"] == "result")

    response = await call(client, "say", "k1", json={"text": "a"})

    assert socket.frames[-1]["data"] == response.json()["data"]
    assert 1 == len(calls)


async def test_two_calls_at_once_with_one_key_are_one_call(client: httpx.AsyncClient, calls: list[Any]) -> None:
    responses = await asyncio.gather(*(call(client, "say", json={"text": "a"}) for _ in range(5)))

    assert [{"number": 1, "half": 0.5}] * 5 == [response.json()["data"] for response in responses]
    assert 1 == len(calls)


@pytest.mark.parametrize(
    ("name", "options", "status", "detail"),
    [
        ("unknown", {}, 404, "no command has this name"),
        ("a%0Ab", {}, 404, "no command has this name"),
        ("say", {"key": None}, 422, "the header Idempotency-Key is required, such as a UUID"),
        ("say", {"key": "two words"}, 422, "Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID"),
        ("say", {}, 422, "Input should be an object"),
        ("say", {"json": {"text": "too long"}}, 422, "text: String should have at most 5 characters"),
        ("say", {"json": []}, 422, "Input should be an object"),
        ("cart/empty", {"json": 1}, 422, "the command cart/empty takes no data"),
        ("refuse", {}, 422, "not today"),
        ("fail", {}, 500, "internal error: the reason is in the server's log output"),
        ("say", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "the body is not JSON"),
        ("say", {"content": b"{}"}, 415, "send JSON, with the header 'Content-Type: application/json'"),
        ("say", {"json": "x" * 65_536}, 413, "the body is over the limit of 65536 bytes"),
    ],
)
async def test_a_refusal_is_a_problem(
    client: httpx.AsyncClient, calls: list[Any], *, name: str, options: dict[str, Any], status: int, detail: str
) -> None:
    response = await call(client, name, **options)

    assert status == response.status_code
    assert detail in response.json()["detail"]
    assert "application/problem+json" == response.headers["content-type"]
    assert [] == calls


async def test_the_text_of_a_problem_has_at_most_1_kb(client: httpx.AsyncClient, app: FastAPI) -> None:
    manager: ConnectionManager = app.state.manager

    @manager.command("echo")
    async def echo(words: list[str]) -> None:
        raise CommandError(f"no such word: {words}")

    refused = await call(client, "echo", json=["x" * 60_000])

    assert 422 == refused.status_code
    assert 1_000 == len(refused.json()["detail"])


async def test_a_key_is_for_one_command(client: httpx.AsyncClient, calls: list[Any]) -> None:
    await call(client, "say", json={"text": "a"})

    response = await call(client, "say", json={"text": "b"})

    assert (422, "this id was used for another command: use a new id") == (
        response.status_code,
        response.json()["detail"],
    )
    assert 1 == len(calls)


async def test_a_key_is_for_one_user(client: httpx.AsyncClient, calls: list[Any]) -> None:
    for user_id in ("alice", "bob"):
        await call(client, "say", json={"text": "a"}, headers=headers(user_id))

    assert [("alice", "a"), ("bob", "a")] == calls


async def test_without_a_token_nobody_learns_which_commands_there_are(
    client: httpx.AsyncClient, calls: list[Any]
) -> None:
    statuses = [
        (await call(client, name, headers={"Authorization": "Bearer nonsense"})).status_code
        for name in ("say", "unknown")
    ]

    assert [401, 401] == statuses
    assert [] == calls


async def test_a_user_who_sends_too_many_commands_is_told_to_wait(clock: ManualClock) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, client_rate=1.0, client_burst=2), clock=clock)
    manager: ConnectionManager = app.state.manager

    @manager.command("ping")
    async def ping() -> None: ...

    transport = httpx.ASGITransport(app)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers()) as client:
        responses = [await call(client, "ping", str(number)) for number in range(3)]
        other = await call(client, "ping", headers=headers("bob"))
        socket, _ = connect(manager)
        socket.receive('{"type":"command","id":"k1","name":"ping"}')
        clock.advance(1.1)
        later = await call(client, "ping", "4")

    assert [200, 200, 429] == [response.status_code for response in responses]
    assert "1" == responses[-1].headers["retry-after"]
    assert [200, 200] == [other.status_code, later.status_code]
    assert socket.closed_with
    assert 4429 == socket.closed_with[0]


async def test_a_server_that_shuts_down_runs_no_command(
    client: httpx.AsyncClient, manager: ConnectionManager, calls: list[Any]
) -> None:
    manager.running.drain(seconds=1)

    response = await call(client, "say", json={"text": "a"})

    assert (503, "1") == (response.status_code, response.headers["retry-after"])
    assert [] == calls


async def test_a_page_may_ask_before_it_calls_a_command(client: httpx.AsyncClient) -> None:
    response = await client.options(f"{PATH}/say")

    assert "POST, OPTIONS" == response.headers["allow"]
