"""Which paths an application announces, decided when it has started."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Host, Mount, WebSocketRoute

from unmissed import Bearer, ConnectionManager, Identity, JwtVerifier, Settings, create_app, create_router
from unmissed.api.admission import admissions
from unmissed.framework_names import effective_routes
from unmissed.testing import SECRET


def router(**options: Any) -> APIRouter:
    return create_router(ConnectionManager(Settings.load(jwt_secret=SECRET)), **options)


def application(*routers: APIRouter, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    for each in routers:
        app.include_router(each)
    return app


def announced(app: FastAPI) -> set[str]:
    """Return the paths of an application's routes, with and without its root path, that it announces."""
    app.middleware_stack = app.build_middleware_stack()
    return announced_now(app)


def announced_now(app: FastAPI) -> set[str]:
    paths = [str(getattr(route, "path", "")) for route in effective_routes(app.routes)]
    found = admissions(app).find()
    return {path for each in paths for path in (each, app.root_path + each) if path in found}


async def other(websocket: WebSocket) -> None: ...


class ByVersion(WebSocketRoute):
    """Looks at a header."""

    def matches(self, scope: Any) -> Any:
        return super().matches(scope)


def test_the_built_in_application_announces_its_path() -> None:
    assert {"/ws"} == announced(create_app(Settings.load(jwt_secret=SECRET)))


def test_an_application_that_has_not_started_announces_nothing() -> None:
    assert set() == announced_now(application(router()))


def nested(app: FastAPI) -> None:
    outer = APIRouter()
    outer.include_router(router(), prefix="/inner")
    app.include_router(outer, prefix="/outer")


def several(app: FastAPI) -> None:
    app.include_router(router(), prefix="/a")
    app.include_router(router(), prefix="/b")


def after_a_host(app: FastAPI) -> None:
    app.include_router(router(), prefix="/before")
    app.router.routes.append(Host("a.example", application()))
    app.include_router(router(), prefix="/after")


def after_an_unknown_route(app: FastAPI) -> None:
    app.include_router(router(), prefix="/before")
    app.router.routes.append(ByVersion("/versioned", other))
    app.include_router(router(), prefix="/after")


def hidden_by_another_websocket(app: FastAPI) -> None:
    app.add_api_websocket_route("/ws", other)
    app.include_router(router())


def hidden_by_a_mount(app: FastAPI) -> None:
    app.router.routes.append(Mount("/a", application()))
    app.include_router(router(), prefix="/a")
    app.include_router(router(), prefix="/b")


def with_parameters(app: FastAPI) -> None:
    app.include_router(router(), prefix="/tenants/{tenant}")


def hidden_by_parameters(app: FastAPI) -> None:
    app.add_api_websocket_route("/{anything}", other)
    app.include_router(router())


def mounted(app: FastAPI) -> None:
    app.mount("/in", application(router()))


@pytest.mark.parametrize(
    ("build", "paths"),
    [
        (nested, {"/outer/inner/ws"}),
        (several, {"/a/ws", "/b/ws"}),
        (after_a_host, {"/before/ws"}),
        (after_an_unknown_route, {"/before/ws"}),
        (hidden_by_another_websocket, set()),
        (hidden_by_a_mount, {"/b/ws"}),
        (with_parameters, set()),
        (hidden_by_parameters, set()),
        (mounted, set()),
    ],
)
def test_a_path_is_announced_if_it_alone_leads_to_the_endpoint(
    build: Callable[[FastAPI], None], paths: set[str]
) -> None:
    app = application()
    build(app)

    assert paths == announced(app)


class OwnBearer(Bearer):
    """Decides about tokens in its own way."""

    async def __call__(self, connection: HTTPConnection) -> Identity:
        return await super().__call__(connection)


BEARER = Bearer(JwtVerifier(SECRET))
ANYTHING = [Depends(lambda: None)]


def own_application() -> FastAPI:
    class Own(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)

    app = Own()
    app.include_router(router())
    return app


def subclass() -> FastAPI:
    class Own(FastAPI):
        """Only has another name."""

    app = Own()
    app.include_router(router())
    return app


def guarded_by_a_middleware() -> FastAPI:
    app = application(router())
    app.add_middleware(TrustedHostMiddleware)
    return app


@pytest.mark.parametrize(
    ("build", "short"),
    [
        pytest.param(lambda: application(router(authenticate=BEARER)), True, id="a bearer"),
        pytest.param(subclass, True, id="a subclass of FastAPI"),
        pytest.param(
            lambda: application(router(authenticate=OwnBearer(BEARER.verifier))), False, id="a changed bearer"
        ),
        pytest.param(lambda: application(router(authenticate=lambda: None)), False, id="another authentication"),
        pytest.param(lambda: application(router(authorize=lambda *_: True)), False, id="authorization of topics"),
        pytest.param(lambda: application(router(), dependencies=ANYTHING), False, id="a dependency"),
        pytest.param(own_application, False, id="a changed application"),
        pytest.param(guarded_by_a_middleware, False, id="a middleware"),
    ],
)
def test_an_application_that_has_a_say_in_handshakes_announces_nothing(
    build: Callable[[], FastAPI], *, short: bool
) -> None:
    assert ({"/ws"} if short else set()) == announced(build())


class Guard:
    """A middleware that refuses everything."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def test_a_middleware_that_a_package_adds_to_every_application_sees_each_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = FastAPI.build_middleware_stack
    monkeypatch.setattr(FastAPI, "build_middleware_stack", lambda app: Guard(build(app)))

    assert set() == announced(create_app(Settings.load(jwt_secret=SECRET)))


@pytest.mark.parametrize("kind", [CORSMiddleware, ServerErrorMiddleware, WebSocketRoute])
def test_a_class_that_another_package_has_patched_sees_each_handshake(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "matches" if kind is WebSocketRoute else "__call__"
    original = vars(kind)[method]

    @functools.wraps(original)
    def replaced(*arguments: Any) -> Any:
        return original(*arguments)

    monkeypatch.setattr(kind, method, replaced)
    app = create_app(Settings.load(jwt_secret=SECRET))
    app.add_middleware(CORSMiddleware)

    assert set() == announced(app)


def test_what_changes_an_application_after_its_announcement_counts_until_the_server_asks() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET))
    announced = admissions(app)
    before_start, app.middleware_stack = announced.find(), app.build_middleware_stack()
    started, app.middleware_stack = announced.find(), Guard(app.middleware_stack)
    guarded, app.middleware_stack = announced.find(), app.build_middleware_stack()

    app.router.routes.insert(0, WebSocketRoute("/ws", other))

    assert [set(), {"/ws"}, set(), set()] == [{*each} for each in (before_start, started, guarded, announced.find())]
