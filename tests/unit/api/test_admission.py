"""Which paths an application announces, decided when it has started."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Host, Mount, WebSocketRoute

from unmissed import Bearer, ConnectionManager, Identity, JwtVerifier, Settings, create_app, create_router
from unmissed.api.admission import admissions
from unmissed.testing import SECRET


def router(**options: Any) -> APIRouter:
    return create_router(ConnectionManager(Settings.load(jwt_secret=SECRET)), **options)


def application(*routers: APIRouter, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    for each in routers:
        app.include_router(each)
    return app


def announced(app: FastAPI) -> set[str]:
    app.middleware_stack = app.build_middleware_stack()
    return {*admissions(app).by_path}


async def other(websocket: WebSocket) -> None: ...


class ByVersion(WebSocketRoute):
    """Looks at a header."""

    def matches(self, scope: Any) -> Any:
        return super().matches(scope)


def test_the_built_in_application_announces_its_path() -> None:
    assert {"/ws"} == announced(create_app(Settings.load(jwt_secret=SECRET)))


def test_an_application_that_has_not_started_announces_nothing() -> None:
    assert {} == admissions(application(router())).by_path


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
