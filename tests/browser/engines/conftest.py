"""The engines under test, and what their pages connect to."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection

from browser.engines.drivers import Engine, NotInstalled, engines_under_test
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import LOGGED, SOCKETS
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.testing import SECRET, LiveServer

StartSite = Callable[..., Site]
OpenPage = Callable[..., EnginePage]
Connect = Callable[..., EnginePage]

TRANSPORTS = ["websocket", "events", "polling"]


@pytest.fixture(scope="session", params=engines_under_test())
def running_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine that the tests of this process share, or skip the test."""
    try:
        engine = Engine(request.param)
    except NotInstalled as missing:
        pytest.skip(f"{missing}: see CONTRIBUTING.md")
    yield engine
    engine.stop()


@pytest.fixture
def engine(running_engine: Engine) -> Iterator[Engine]:
    """Return an engine without pages. Storage is separated by the port of each site."""
    yield running_engine
    running_engine.close_pages()


@pytest.fixture
def start_site(engine: Engine) -> Iterator[StartSite]:  # noqa: ARG001  # pages are closed after the site
    """Return a function that starts a site with these settings."""
    with ExitStack() as stack:

        def start_site(**settings: Any) -> Site:
            return stack.enter_context(Site(**settings))

        yield start_site


@pytest.fixture
def site(start_site: StartSite) -> Site:
    return start_site()


@pytest.fixture
def cookie_site(engine: Engine) -> Iterator[Site]:  # noqa: ARG001  # pages are closed after the site
    """Return a site that knows alice by a cookie, and lets pages of ``app.shop.localhost`` connect."""
    settings = Settings.load(jwt_secret=SECRET, drain_seconds=0.1, allowed_origins="http://app.shop.localhost:*")
    manager = ConnectionManager(settings)
    app = FastAPI(lifespan=manager.lifespan)

    def authenticate(connection: HTTPConnection) -> Identity:
        if connection.cookies.get("session") != "valid":
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "log in first")
        return Identity("alice", scopes=frozenset({PUBLISH_SCOPE}))

    app.include_router(create_router(manager, authenticate=authenticate))
    with Site(LiveServer(app, manager=manager, **SOCKETS["native"], **LOGGED)) as site:
        yield site


@pytest.fixture
def open_page(engine: Engine, site: Site) -> OpenPage:
    """Return a function that opens a page of the site, or at another URL."""

    def open_page(url: str | None = None) -> EnginePage:
        return engine.open(url or site.page)

    return open_page


@pytest.fixture
def connect(engine: Engine, request: pytest.FixtureRequest) -> Connect:
    """Return a function that opens a page with a live stream over one transport, by default of ``site``."""

    def connect(transport: str, *, site: Site | None = None, **options: Any) -> EnginePage:
        used: Site = site or request.getfixturevalue("site")
        page = engine.open(used.page)
        if transport == "polling":
            page.hurry()
        return page.connect(used.token(), transports=[transport], **options).live()

    return connect
