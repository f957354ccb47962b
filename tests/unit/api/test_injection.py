"""What an application and its routers depend on guards WebSockets as it guards requests."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket, WebSocketException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect

from support import SOCKETS
from unmissed import ConfigurationError, ConnectionManager, Identity, Settings, create_router, get_identity, issue_token
from unmissed.api.identity import Bearer, get_current_user_id
from unmissed.testing import SECRET, LiveServer

AUTHORIZATION = {"Authorization": f"Bearer {issue_token(SECRET, user_id='alice', expires_in=86_400)}"}


def only_intranet(connection: HTTPConnection) -> None:
    if "x-intranet" not in connection.headers:
        raise HTTPException(403, "only from the intranet")


def with_scopes(connection: HTTPConnection, scopes: SecurityScopes) -> None:
    if scopes.scopes != ["intranet"]:
        raise HTTPException(500)
    only_intranet(connection)


def anything() -> None: ...


async def alice(connection: HTTPConnection) -> Identity:  # noqa: ARG001  # FastAPI passes it
    return Identity("alice")


def alice_of_a_request(request: Request) -> Identity:  # noqa: ARG001  # FastAPI passes it
    return Identity("alice")


def needs_a_request(request: Request) -> None: ...


def needs_one_indirectly(nothing: None = Depends(needs_a_request)) -> None: ...


def takes_both(request: Request = None, websocket: WebSocket = None) -> None: ...  # type: ignore[assignment]  # FastAPI's way


GUARDED = [Depends(only_intranet)]
Build = Callable[[], FastAPI]


def application(*, on_app: Any = (), on_outer: Any = (), on_router: Any = (), **options: Any) -> FastAPI:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app, outer = FastAPI(lifespan=manager.lifespan, dependencies=on_app), APIRouter(dependencies=on_outer)
    outer.include_router(create_router(manager, **options), dependencies=on_router)
    app.include_router(outer)
    app.state.manager = manager
    return app


def mounted(**options: Any) -> FastAPI:
    inner = application(**options)
    app = FastAPI(lifespan=inner.state.manager.lifespan)
    app.mount("/", inner)
    app.state.manager = inner.state.manager
    return app


def included_with_and_without() -> FastAPI:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app, router, outer = FastAPI(lifespan=manager.lifespan), create_router(manager), APIRouter(dependencies=GUARDED)
    outer.include_router(router)
    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/closed", dependencies=GUARDED)
    app.mount("/mounted", outer)
    return app


GUARDS: dict[str, Build] = {
    "the application": partial(application, on_app=GUARDED),
    "include_router": partial(application, on_router=GUARDED),
    "a router around it": partial(application, on_outer=GUARDED),
    "a mounted application": partial(mounted, on_app=GUARDED),
    "own authentication": partial(application, on_router=GUARDED, authenticate=alice),
    "several": partial(application, on_app=[Depends(anything)], on_router=GUARDED),
    "scopes": partial(application, on_router=[Security(with_scopes, scopes=["intranet"])]),
}


def closed_with(client: TestClient, path: str = "/ws", **headers: str) -> tuple[int, str] | None:
    """Return code and reason with which a WebSocket is refused, or None."""
    with client.websocket_connect(path, headers={**AUTHORIZATION, **headers}) as websocket:
        try:
            websocket.receive_json()
        except WebSocketDisconnect as closed:
            return closed.code, closed.reason or ""
        return None


@pytest.mark.parametrize("build", GUARDS.values(), ids=GUARDS)
def test_what_guards_requests_guards_websockets(build: Build) -> None:
    with TestClient(build()) as client:
        assert 403 == client.get("/websocket/messages", headers=AUTHORIZATION).status_code
        for _ in range(2):
            assert (4403, "only from the intranet") == closed_with(client)
            assert closed_with(client, **{"x-intranet": "yes"}) is None


def test_a_router_that_is_included_several_times_is_guarded_where_it_was_declared() -> None:
    with TestClient(included_with_and_without()) as client:
        for path, refused in (("/open", False), ("/closed", True), ("/mounted", True)) * 2:
            assert (path, refused) == (path, closed_with(client, f"{path}/ws") is not None)
            assert closed_with(client, f"{path}/ws", **{"x-intranet": "yes"}) is None


def only_this_tenant(tenant: str) -> None:
    if tenant != "mine":
        raise HTTPException(403, "the tenant of others")


def test_a_guard_sees_the_path_parameters_of_its_router_and_not_the_query_in_their_place() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager), prefix="/{tenant}", dependencies=[Depends(only_this_tenant)])

    with TestClient(app) as client:
        assert closed_with(client, "/mine/ws") is None
        for path in ("/other/ws", "/other/ws?tenant=mine"):
            assert (4403, "the tenant of others") == closed_with(client, path)


def test_a_router_whose_dependencies_cannot_be_found_is_not_served() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app, outer = FastAPI(lifespan=manager.lifespan), APIRouter(dependencies=GUARDED)
    outer.include_router(create_router(manager))

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await outer(scope, receive, send)

    app.mount("/hidden", hidden)

    with TestClient(app) as client:
        found = closed_with(client, "/hidden/ws")

    assert found is not None
    assert 1011 == found[0]


def test_a_guard_that_closes_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    def closes() -> None:
        raise WebSocketException(1008, "no")

    app = application(on_router=[Depends(closes)])
    with TestClient(app) as client:
        assert (1008, "no") == closed_with(client)
        assert 1 == app.state.manager.running.measures.refusals[1008]

    assert "WebSocket /ws from testclient refused with status 403 or close code 1008: no" in caplog.messages


def test_dependencies_share_the_token_of_the_first_frame() -> None:
    bearer = Bearer.of(Settings.load(jwt_secret=SECRET))
    app = application(on_router=[Depends(get_current_user_id)], authenticate=bearer)
    token = issue_token(SECRET, user_id="alice", expires_in=86_400)

    with TestClient(app) as client, client.websocket_connect("/ws") as websocket:
        websocket.send_json({"type": "authenticate", "token": token})

        assert "connected" == websocket.receive_json()["type"]


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("build", GUARDS.values(), ids=GUARDS)
async def test_no_server_has_a_way_around_a_guard(build: Build, socket: str) -> None:
    codes = []
    with LiveServer(build(), **SOCKETS[socket]) as server:
        for intranet in ({"x-intranet": "yes"}, {}) * 2:
            async with connect(server.websocket_url, additional_headers={**AUTHORIZATION, **intranet}) as client:
                if intranet:
                    await client.recv()
                else:
                    await client.wait_closed()
                codes.append(client.close_code)

    assert [None, 4403, None, 4403] == codes


async def by_password(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]) -> Identity:
    return Identity(token)


async def by_bearer(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> Identity:
    return Identity(credentials.credentials)


@pytest.mark.parametrize("authenticate", [by_password, by_bearer])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer of.a.proxy"}, {"Authorization": "Basic eDp5"}])
def test_the_security_classes_of_fastapi_find_the_token_of_a_page(
    authenticate: Callable[..., Any], headers: dict[str, str]
) -> None:
    app = application(authenticate=authenticate)
    protocols = ["unmissed.bearer", "alice"]
    with TestClient(app) as client, client.websocket_connect("/ws", protocols, headers=headers) as websocket:
        assert "connected" == websocket.receive_json()["type"]
        assert ["alice"] == [connection.identity.user_id for connection in app.state.manager.connections]


def test_an_override_replaces_a_guard() -> None:
    app = application(on_router=GUARDED)
    app.dependency_overrides[only_intranet] = anything
    with TestClient(app) as client:
        assert closed_with(client) is None


def test_a_token_can_be_renewed_behind_a_guard() -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=86_400)
    headers = {**AUTHORIZATION, "x-intranet": "yes"}
    with (
        TestClient(application(on_router=GUARDED)) as client,
        client.websocket_connect("/ws", headers=headers) as websocket,
    ):
        websocket.receive_json()
        websocket.send_json({"type": "authenticate", "token": token})

        assert "authenticated" == websocket.receive_json()["type"]


def test_a_refused_first_frame_behind_a_guard_is_a_close_code() -> None:
    with (
        TestClient(application(on_router=GUARDED)) as client,
        client.websocket_connect("/ws", headers={"x-intranet": "yes"}) as websocket,
    ):
        websocket.send_json({"type": "authenticate", "token": "x.y.z"})
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_json()

    assert 4401 == closed.value.code


@pytest.mark.parametrize(
    "build",
    [
        partial(application, on_app=[Depends(needs_a_request)]),
        partial(application, on_router=[Depends(needs_a_request)]),
        partial(application, on_router=[Depends(needs_one_indirectly)]),
        partial(application, authenticate=alice_of_a_request),
    ],
)
def test_a_dependency_that_needs_a_request_prevents_the_start_and_the_fix_is_named(build: Build) -> None:
    with pytest.raises(ConfigurationError, match="request: HTTPConnection"), TestClient(build()):
        pass


def test_a_dependency_that_needs_a_request_refuses_websockets_of_a_mounted_application() -> None:
    """The lifespan of a mounted application does not run."""
    with TestClient(mounted(on_app=[Depends(needs_a_request)])) as client:
        refused = closed_with(client)

    assert refused is not None
    assert 1011 == refused[0]


def test_a_dependency_that_takes_a_request_or_a_websocket_is_welcome() -> None:
    with TestClient(application(on_router=[Depends(takes_both)])) as client:
        assert closed_with(client) is None


def test_dependencies_that_are_added_too_late_prevent_the_start() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app, router = FastAPI(lifespan=manager.lifespan), create_router(manager)
    router.dependencies.append(Depends(only_intranet))
    app.include_router(router)

    with pytest.raises(ConfigurationError, match="include_router"), TestClient(app):
        pass


def test_the_default_authentication_works_behind_a_guard_without_the_lifespan_of_the_router() -> None:
    with TestClient(mounted(on_router=[Depends(get_identity)])) as client:
        assert closed_with(client) is None
