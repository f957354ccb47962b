"""Requests with and without FastAPI's injection: the answers are the same, and what is declared is injected."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from inspect import currentframe
from itertools import pairwise
from traceback import walk_stack
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, routing
from fastapi.responses import PlainTextResponse
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from support import nth
from unmissed import Bearer, ConnectionManager, Identity, Settings, create_app, create_router, get_identity, issue_token
from unmissed.security.tokens import JwtVerifier
from unmissed.testing import SECRET

PATH = "/websocket/messages"
ORIGIN = "https://app.example.com"
BEARER = Bearer(JwtVerifier(SECRET))
VARIABLE = re.compile(r'(?<="epoch":")[^"]+|(?<="timestamp":")[^"]+')


def settings() -> Settings:
    return Settings.load(jwt_secret=SECRET, allowed_origins=ORIGIN)


class Clock:
    """Stands still, and notes whether FastAPI has called the endpoint that reads it, or the route itself."""

    def __init__(self) -> None:
        self.injected: bool | None = None

    def __call__(self) -> float:
        # From this frame: how many ``walk_stack(None)`` leaves out depends on the version of Python.
        modules = [frame.f_globals["__name__"] for frame, _ in walk_stack(currentframe())]
        for called, caller in pairwise(modules):
            if called == "unmissed.api.message_routes":
                self.injected = caller.startswith("fastapi.")
        return 0.0


App = tuple[FastAPI, ConnectionManager]
Build = Callable[[Callable[[], float]], App]


def built_in(clock: Callable[[], float]) -> App:
    app = create_app(settings(), clock=clock)
    return app, app.state.manager


def included(clock: Callable[[], float], *, authenticate: Any = None, on_app: Any = (), on_router: Any = ()) -> App:
    manager = ConnectionManager(settings(), clock=clock)
    app = FastAPI(dependencies=on_app)
    app.include_router(create_router(manager, authenticate=authenticate), dependencies=on_router)
    return app, manager


def nested(clock: Callable[[], float], *, on_outer: Any = ()) -> App:
    manager = ConnectionManager(settings(), clock=clock)
    app, outer = FastAPI(), APIRouter(dependencies=on_outer)
    outer.include_router(create_router(manager))
    app.include_router(outer)
    return app, manager


def mounted(clock: Callable[[], float], **options: Any) -> App:
    inner, manager = included(clock, **options)
    app = FastAPI()
    app.mount("/", inner)
    return app, manager


def mounted_router(clock: Callable[[], float], *, on_outer: Any = ()) -> App:
    """Mount a router that has dependencies in an application that includes the same router without them."""
    manager = ConnectionManager(settings(), clock=clock)
    app, outer, router = FastAPI(), APIRouter(dependencies=on_outer), create_router(manager)
    outer.include_router(router)
    app.mount("/outer", outer)
    app.include_router(router)
    return app, manager


def overridden(clock: Callable[[], float], build: Build = built_in) -> App:
    app, manager = build(clock)
    app.dependency_overrides[get_identity] = own
    return app, manager


async def own(connection: HTTPConnection) -> Identity:
    return await BEARER(connection)


def anything() -> None:
    """Stand for a dependency that an application declares."""


def closed() -> None:
    raise HTTPException(403, "closed today")


ANYTHING, CLOSED = [Depends(anything)], [Depends(closed)]

DIRECT: dict[str, Build] = {
    "built in": built_in,
    "included": included,
    "nested": nested,
    "mounted": mounted,
    "a bearer": partial(included, authenticate=BEARER),
}
INJECTED: dict[str, Build] = {
    "overridden": overridden,
    "overridden where included": partial(overridden, build=included),
    "own authentication": partial(included, authenticate=own),
    "dependencies of the application": partial(included, on_app=ANYTHING),
    "dependencies of the router": partial(included, on_router=ANYTHING),
    "dependencies of a router around it": partial(nested, on_outer=ANYTHING),
    "dependencies of a mounted application": partial(mounted, on_app=ANYTHING),
    "the same dependency twice": partial(included, on_router=[Depends(get_identity)]),
}


def headers(scope: str = "messages:publish", **others: str) -> dict[str, str]:
    token = issue_token(SECRET, user_id="alice", expires_in=86_400, scope=scope)
    named = {name.replace("_", "-"): value for name, value in others.items()}
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **named}


ONE = b'{"type":"chat"}'
REQUESTS: list[tuple[int, str, dict[str, Any]]] = [
    (200, "GET", {"headers": headers()}),
    (200, "GET", {"headers": headers(), "params": {"since": nth(1), "limit": 1}}),
    (200, "GET", {"headers": headers(), "params": {"unknown": 1}}),
    (200, "GET", {"headers": headers(Origin=ORIGIN)}),
    (200, "GET", {"headers": headers(Origin="https://evil.example")}),
    (401, "GET", {}),
    (401, "GET", {"headers": {"Authorization": "Bearer x.y.z", "Origin": ORIGIN}}),
    (422, "GET", {"headers": headers(), "params": {"since": "-1"}}),
    (422, "GET", {"headers": headers(), "params": {"epoch": ["a", "b"]}}),
    (201, "POST", {"headers": headers(), "content": ONE}),
    (201, "POST", {"headers": headers(), "content": b"[" + ONE + b"," + ONE + b"]"}),
    (200, "POST", {"headers": headers(Idempotency_Key="used"), "content": ONE}),
    (401, "POST", {"content": ONE}),
    (403, "POST", {"headers": headers(scope=""), "content": ONE}),
    (413, "POST", {"headers": headers(), "content": b'{"type":"chat","data":"' + b"x" * 70_000 + b'"}'}),
    (415, "POST", {"headers": headers(Content_Type="text/plain"), "content": ONE}),
    (422, "POST", {"headers": headers(), "content": b"{"}),
    (422, "POST", {"headers": headers(Idempotency_Key="a b"), "content": ONE}),
    (204, "OPTIONS", {"headers": headers()}),
    (200, "OPTIONS", {"headers": {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}}),
    (405, "DELETE", {"headers": headers()}),
]


@asynccontextmanager
async def serving(app: FastAPI, manager: ConnectionManager) -> AsyncIterator[httpx.AsyncClient]:
    async with manager, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def answers(app: FastAPI, manager: ConnectionManager) -> list[tuple[int, dict[str, str], str]]:
    async with serving(app, manager) as client:
        await client.post(PATH, headers=headers(Idempotency_Key="used"), content=ONE)
        responses = [await client.request(method, PATH, **request) for _, method, request in REQUESTS]
        return [
            (response.status_code, dict(response.headers), VARIABLE.sub("", response.text)) for response in responses
        ]


@pytest.mark.parametrize("build", [*DIRECT.values(), *INJECTED.values()], ids=[*DIRECT, *INJECTED])
async def test_the_answers_do_not_depend_on_who_calls_the_endpoint(build: Build) -> None:
    expected = await answers(*included(Clock(), authenticate=own))

    found = await answers(*build(Clock()))

    assert [status for status, *_ in REQUESTS] == [status for status, *_ in found]
    assert expected == found


@pytest.mark.parametrize("injected", [False, True])
async def test_fastapi_calls_the_endpoint_only_if_it_has_to_inject(*, injected: bool) -> None:
    for name, build in (INJECTED if injected else DIRECT).items():
        clock = Clock()
        async with serving(*build(clock)) as client:
            assert 200 == (await client.get(PATH, headers=headers())).status_code

        assert (name, injected) == (name, clock.injected)


@pytest.mark.parametrize(
    ("build", "prefix"),
    [
        (partial(included, on_app=CLOSED), ""),
        (partial(included, on_router=CLOSED), ""),
        (partial(nested, on_outer=CLOSED), ""),
        (partial(mounted, on_app=CLOSED), ""),
        (partial(mounted_router, on_outer=CLOSED), "/outer"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_dependency_of_the_application_refuses_as_a_problem(build: Build, prefix: str, method: str) -> None:
    async with serving(*build(Clock())) as client:
        response = await client.request(method, prefix + PATH, headers=headers(), content=ONE)

    assert (403, "closed today") == (response.status_code, response.json()["detail"])


async def test_a_router_included_again_with_dependencies_runs_them_only_there() -> None:
    manager = ConnectionManager(settings())
    app, router = FastAPI(), create_router(manager)
    app.include_router(router, prefix="/open")
    async with serving(app, manager) as client:
        before = await client.get("/open" + PATH, headers=headers())
        app.include_router(router, prefix="/closed", dependencies=CLOSED)
        after = [await client.get(prefix + PATH, headers=headers()) for prefix in ("/open", "/closed")]

    assert [200, 200, 403] == [response.status_code for response in (before, *after)]


@pytest.mark.parametrize("build", DIRECT.values(), ids=DIRECT)
async def test_an_override_counts_from_the_next_request_until_it_is_removed(build: Build) -> None:
    app, manager = build(Clock())
    overridable = next((route.app for route in app.routes if isinstance(route, Mount)), app)
    assert isinstance(overridable, FastAPI)
    closing: dict[Callable[..., Any], Callable[..., Any]] = {get_identity: closed, BEARER: closed}
    statuses = []
    async with serving(app, manager) as client:
        for overrides in ({}, closing, {}):
            overridable.dependency_overrides = overrides
            statuses.append((await client.get(PATH, headers=headers())).status_code)

    assert [200, 403, 200] == statuses


async def test_an_override_of_another_dependency_changes_nothing() -> None:
    clock = Clock()
    app, manager = built_in(clock)
    app.dependency_overrides[anything] = closed
    async with serving(app, manager) as client:
        assert 200 == (await client.get(PATH, headers=headers())).status_code

    assert clock.injected is False


@pytest.mark.parametrize("on_router", [(), ANYTHING])
async def test_the_application_handles_an_error_that_is_not_in_the_table(on_router: Any) -> None:
    failing = False
    app, manager = included(lambda: 1 / (not failing), on_router=on_router)

    @app.exception_handler(ZeroDivisionError)
    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{request.url.path}: {error}", 418)

    async with serving(app, manager) as client:
        failing = True
        response = await client.get(PATH, headers=headers())

    assert (418, f"{PATH}: division by zero") == (response.status_code, response.text)


async def test_a_package_that_wraps_the_handlers_of_fastapi_sees_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = routing.get_request_handler

    def wrapped(*arguments: Any, **options: Any) -> Any:
        handle = original(*arguments, **options)

        async def tracing(request: Request) -> Response:
            seen.append(request.url.path)
            return await handle(request)

        return tracing

    monkeypatch.setattr(routing, "get_request_handler", wrapped)
    async with serving(*built_in(Clock())) as client:
        assert 200 == (await client.get(PATH, headers=headers())).status_code

    assert [PATH] == seen
