"""Embedded in an application of the user's: everything works there as it does in our own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket, WebSocketException
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from pydantic import SecretStr
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect

from support import nth, until
from unmissed import (
    Bearer,
    ConfigurationError,
    ConnectionManager,
    Identity,
    Settings,
    create_app,
    create_router,
    get_current_user_id,
    get_identity,
)
from unmissed.testing import SECRET, LiveServer

PUBLISHER = frozenset({"messages:publish"})


async def by_name(connection: HTTPConnection) -> Identity:
    match connection.headers.get("x-user"):
        case None:
            raise HTTPException(401, "say who you are")
        case "banned":
            raise HTTPException(403, "go away")
        case "odd":
            raise WebSocketException(4999, "odd")
        case name:
            return Identity(name, scopes=PUBLISHER)


def application(**options: Any) -> tuple[FastAPI, ConnectionManager]:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, **options), prefix="/realtime")
    return app, manager


def test_the_test_client_of_starlette_publishes_and_receives() -> None:
    app, _ = application(authenticate=by_name)
    with TestClient(app, headers={"x-user": "alice"}) as client:
        assert 201 == client.post("/realtime/websocket/messages", json={"type": "missed"}).status_code
        with client.websocket_connect("/realtime/ws?since=0") as websocket:
            received = [websocket.receive_json() for _ in range(3)]
            client.post("/realtime/websocket/messages", json={"type": "live"})
            received.append(websocket.receive_json())
            websocket.send_json({"type": "ping"})
            received.append(websocket.receive_json())

    assert ["connected", "missed", "heartbeat", "live", "pong"] == [frame["type"] for frame in received]


@pytest.mark.parametrize(("user", "code"), [(None, 4401), ("banned", 4403), ("odd", 4999)])
def test_a_refusal_of_the_users_dependency_is_a_close_code(user: str | None, code: int) -> None:
    app, _ = application(authenticate=by_name)
    with TestClient(app, headers={"x-user": user} if user else {}) as client:
        with client.websocket_connect("/realtime/ws") as websocket, pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()

        assert code == closed.value.code


async def test_a_client_that_leaves_while_it_is_authenticated_is_forgotten() -> None:
    received = list[str]()

    async def slow(websocket: WebSocket) -> Identity:
        await websocket.accept()
        while not received or received[-1] != "websocket.disconnect":
            received.append((await websocket.receive())["type"])
        return Identity("alice")

    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    websocket_only = create_router(manager, authenticate=slow)
    app.include_router(websocket_only)
    with LiveServer(app, manager=manager, ws="unmissed.server:WebSocketProtocol") as server:
        async with connect(server.websocket_url, proxy=None) as websocket:
            await websocket.send("me")
        await until(lambda: "websocket.disconnect" in received)
        await until(lambda: not manager.connections)

    assert ["websocket.receive", "websocket.disconnect"] == received


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (HTTPException(500, "d"), 500, 1011),
        (HTTPException(503, "d"), 503, 1012),
        (ValueError("secret"), 500, 1011),
        (ConfigurationError("secret"), 500, 1011),
    ],
)
def test_an_error_of_the_users_dependency_does_not_send_clients_away_for_good(
    error: Exception, status: int, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> Identity:
        raise error

    app, _ = application(authenticate=failing)
    with TestClient(app) as client:
        response = client.get("/realtime/websocket/messages")
        with client.websocket_connect("/realtime/ws") as websocket, pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()

    assert (status, code) == (response.status_code, closed.value.code)
    assert "application/problem+json" == response.headers["content-type"]
    assert "secret" not in response.text + closed.value.reason
    assert (status == 503) != ("ERROR" in caplog.text)


@pytest.mark.parametrize("returned", ["alice", None, {"user_id": "alice"}])
def test_a_dependency_that_returns_no_identity_is_an_error_that_names_the_fix(
    returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong() -> object:
        return returned

    app, manager = application(authenticate=wrong)
    manager.command("add")(lambda: None)
    reading = ("messages", "events", "presence?topic=news", "connections", "status")
    with TestClient(app) as client:
        statuses = [client.get(f"/realtime/websocket/{route}").status_code for route in reading]
        for route in ("messages", "commands/add"):
            statuses += [client.post(f"/realtime/websocket/{route}", json={"type": "a"}).status_code]
        with client.websocket_connect("/realtime/ws") as websocket, pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()

    assert ({500}, 1011) == ({*statuses}, closed.value.code)
    assert 8 == caplog.text.count(f"must return unmissed.Identity(user_id), not {type(returned).__name__}")


@pytest.mark.parametrize("authenticate", [Depends(by_name), "by_name", Identity("alice")])
def test_an_authentication_that_cannot_be_called_is_refused_at_once_and_the_fix_is_named(authenticate: Any) -> None:
    with pytest.raises(ConfigurationError, match="authenticate=current_user"):
        application(authenticate=authenticate)


def test_an_error_that_the_application_handles_is_left_to_it() -> None:
    class LoggedOut(Exception):
        pass

    async def failing() -> Identity:
        raise LoggedOut

    app, _ = application(authenticate=failing)

    @app.exception_handler(LoggedOut)
    async def own(_request: Request, _error: LoggedOut) -> PlainTextResponse:
        return PlainTextResponse("log in", 401)

    with TestClient(app) as client:
        assert "log in" == client.get("/realtime/websocket/messages").text


def test_a_status_that_nobody_knows_is_passed_on() -> None:
    async def odd(connection: HTTPConnection) -> Identity:
        raise HTTPException(499, f"odd: {connection.url.path}")

    app, _ = application(authenticate=odd)
    with TestClient(app) as client:
        assert 499 == client.get("/realtime/websocket/messages").status_code
        with client.websocket_connect("/realtime/ws") as websocket, pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()
        assert 4400 == closed.value.code


def test_the_live_server_makes_tokens_of_its_manager() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret="z" * 40, jwt_audience="chat"))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager))
    with LiveServer(app, manager=manager) as server:
        assert 200 == httpx.get(f"{server.url}/websocket/messages", headers=server.headers()).status_code


def test_a_dependency_may_be_overridden() -> None:
    app, _ = application(authenticate=by_name)
    app.dependency_overrides[by_name] = lambda: Identity("override", scopes=PUBLISHER)
    with TestClient(app) as client:
        assert 200 == client.get("/realtime/websocket/messages").status_code
        with client.websocket_connect("/realtime/ws") as websocket:
            assert "connected" == websocket.receive_json()["type"]


def test_the_default_identity_may_be_overridden() -> None:
    app, _ = application()
    app.dependency_overrides[get_identity] = lambda: Identity("override", scopes=PUBLISHER)
    with TestClient(app) as client:
        assert 201 == client.post("/realtime/websocket/messages", json={"type": "a"}).status_code
        with client.websocket_connect("/realtime/ws") as websocket:
            assert "connected" == websocket.receive_json()["type"]
        app.dependency_overrides.clear()

        assert 401 == client.get("/realtime/websocket/messages").status_code
        with client.websocket_connect("/realtime/ws") as websocket:
            websocket.send_text("no token")
            with pytest.raises(WebSocketDisconnect) as closed:
                websocket.receive_json()
        assert 4401 == closed.value.code


def test_a_bearer_with_a_verifier_of_the_users_serves_both() -> None:
    class Names:
        def verify(self, token: str) -> Identity:
            return Identity(token, scopes=PUBLISHER)

    app, _ = application(authenticate=Bearer(Names()))
    with TestClient(app, headers={"Authorization": "Bearer alice"}) as client:
        assert 201 == client.post("/realtime/websocket/messages", json={"type": "a"}).status_code
        with client.websocket_connect("/realtime/ws") as websocket:
            assert "connected" == websocket.receive_json()["type"]


def test_later_routes_of_the_ready_application_have_their_own_errors() -> None:
    app = create_app(Settings(jwt_secret=SecretStr(SECRET)))

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "tea")

    with TestClient(app) as client:
        assert ({"detail": "tea"}, "application/json") == (
            (answer := client.get("/teapot")).json(),
            answer.headers["content-type"],
        )


def test_the_identity_of_an_application_without_a_manager_names_the_fix() -> None:
    app = FastAPI()

    @app.get("/me")
    async def me(user_id: Annotated[str, Depends(get_current_user_id)]) -> str:
        return user_id

    with TestClient(app) as client, pytest.raises(ConfigurationError, match=r"Bearer\.of\(manager\.settings\)"):
        client.get("/me")


def test_the_applications_own_error_handlers_are_untouched() -> None:
    app, _ = application()

    @app.exception_handler(HTTPException)
    async def own(_request: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse(f"own: {error.detail}", error.status_code)

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "tea")

    with TestClient(app) as client:
        assert "own: tea" == client.get("/teapot").text
        assert "application/problem+json" == client.get("/realtime/websocket/messages").headers["content-type"]


def test_a_lifespan_of_the_users_may_enter_the_manager() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with manager:
            await manager.emit("started")
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_router(manager, authenticate=by_name))
    with TestClient(app, headers={"x-user": "alice"}) as client:
        assert nth(1) == client.get("/websocket/messages").json()["latest"]


def test_the_dependencies_serve_routes_of_the_users_by_the_settings_of_the_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", "another-secret-of-more-than-32-bytes-0123456789")
    app, manager = application()

    @app.get("/me")
    async def me(
        user_id: Annotated[str, Depends(get_current_user_id)], identity: Annotated[Identity, Depends(get_identity)]
    ) -> list[str]:
        return [user_id, *identity.scopes]

    with LiveServer(app, manager=manager) as server:
        assert ["alice", "messages:publish"] == httpx.get(f"{server.url}/me", headers=server.headers()).json()
        assert 401 == httpx.get(f"{server.url}/me").status_code


async def test_an_embedded_router_serves_both_sockets(unmissed_server: LiveServer) -> None:
    app, manager = application()
    sockets: list[dict[str, Any]] = [{}, {"ws": "unmissed.server:WebSocketProtocol"}]
    for options in sockets:
        with LiveServer(app, manager=manager, **options) as server:
            url = f"{server.url.replace('http', 'ws')}/realtime/ws"
            async with connect(url, additional_headers=server.headers(), proxy=None) as websocket:
                await websocket.recv()
                await asyncio.to_thread(server.publish, "a")

                assert '"type":"a"' in str(await websocket.recv())
    assert nth(1) == unmissed_server.publish("a").sequence_number
