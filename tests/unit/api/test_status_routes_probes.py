"""The probes, and what is answered while the log is unavailable."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from support import ManualLog, connect, nth, until
from unmissed import Access, ConnectionManager, Identity, Settings, create_router, issue_token
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import LOG_UNAVAILABLE
from unmissed.testing import SECRET, ManualClock

PATH = "/websocket/messages"
AWAY = "redis://store:6379: connection refused"


@pytest.fixture
def log(clock: ManualClock) -> ManualLog:
    return ManualLog(clock)


@pytest.fixture
async def manager(clock: ManualClock, log: ManualLog) -> AsyncIterator[ConnectionManager]:
    settings = Settings.load(jwt_secret=SECRET, publish_seconds=0.02)
    async with ConnectionManager(settings, log=log, clock=clock) as manager:
        yield manager


@pytest.fixture
async def client(manager: ConnectionManager) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(create_router(manager))
    token = issue_token(SECRET, user_id="alice", expires_in=60, scope="messages:publish")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        yield client


def problem(detail: str) -> dict[str, object]:
    kind = "urn:unmissed:problem:service-unavailable"
    return {"type": kind, "title": "Service Unavailable", "status": 503, "detail": detail}


async def test_a_server_is_ready_while_it_accepts_messages(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")

    assert (200, {"status": "ready"}) == (response.status_code, response.json())


async def test_a_server_without_its_log_is_alive_and_not_ready_and_shows_its_address_to_operators_alone(
    client: httpx.AsyncClient, log: ManualLog
) -> None:
    log.lose(AWAY)
    operator = issue_token(SECRET, user_id="ops", expires_in=60, scope="admin")

    ready, alive = await client.get("/readyz"), await client.get("/livez")
    status = await client.get("/websocket/status", headers={"Authorization": f"Bearer {operator}"})

    assert (503, problem(LOG_UNAVAILABLE)) == (ready.status_code, ready.json())
    assert AWAY == status.json()["problem"]
    assert "application/problem+json" == ready.headers["content-type"]
    assert "no-store" == ready.headers["cache-control"]
    assert 200 == alive.status_code


async def test_a_server_is_ready_again_with_its_log(client: httpx.AsyncClient, log: ManualLog) -> None:
    log.lose(AWAY)
    log.restore()

    assert 200 == (await client.get("/readyz")).status_code


async def test_a_draining_server_is_not_ready(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    manager.running.drain(seconds=1.0)

    response = await client.get("/readyz")

    assert 503 == response.status_code
    assert "starting or shutting down" in response.json()["detail"]


async def test_a_server_that_has_not_started_is_not_ready() -> None:
    app = FastAPI()
    app.include_router(create_router(ConnectionManager(Settings.load(jwt_secret=SECRET))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/readyz")

    assert (503, problem("not accepting connections: the server is starting or shutting down")) == (
        response.status_code,
        response.json(),
    )


async def test_a_message_that_cannot_be_stored_is_a_503_that_says_when_to_retry_and_how(
    client: httpx.AsyncClient, log: ManualLog, manager: ConnectionManager
) -> None:
    log.lose(AWAY)

    response = await client.post(PATH, json={"type": "a"})

    detail = "the log is unavailable: retry shortly (a publish with the same idempotency key)"
    assert (503, problem(detail)) == (response.status_code, response.json())
    assert "1" == response.headers["retry-after"]
    assert "application/problem+json" == response.headers["content-type"]
    assert nth(0) == manager.window.latest


async def test_a_publish_over_a_websocket_that_cannot_be_stored_does_not_say_where_the_log_is(
    manager: ConnectionManager, log: ManualLog
) -> None:
    socket, connection = connect(manager, Identity("alice", scopes=frozenset({"messages:publish"})), access=Access())
    log.lose(AWAY)

    connection.socket_received('{"type":"publish","id":"1","message":{"type":"a"}}')
    await until(lambda: socket.frames[-1]["type"] == "error")

    assert CloseCode.TRY_AGAIN_LATER == socket.frames[-1]["code"]
    assert "redis" not in socket.frames[-1]["detail"]


async def test_what_is_retained_can_be_read_while_the_log_is_unavailable(
    client: httpx.AsyncClient, log: ManualLog
) -> None:
    await client.post(PATH, json={"type": "a"})
    log.lose(AWAY)

    response = await client.get(PATH)

    assert (200, ["a"]) == (response.status_code, [message["type"] for message in response.json()["messages"]])
