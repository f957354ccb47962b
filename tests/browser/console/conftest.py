"""The browser, the server and the page of the tests of the console."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from browser.chromium import launched
from browser.console_page import DESKTOP, ConsolePage, token_for
from support import SOCKETS
from unmissed import Settings
from unmissed.testing import SECRET, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ShowConsole = Callable[..., ConsolePage]
OpenConsole = Callable[..., ConsolePage]


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator["Browser"]:
    """Return a browser that the tests share; each test has its own profile."""
    with launched(chromium_path) as browser:
        yield browser


@pytest.fixture
def start() -> Iterator[Callable[..., LiveServer]]:
    """Return a function that starts a server with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> LiveServer:
            return stack.enter_context(
                LiveServer(settings=Settings.load(jwt_secret=SECRET, console=True, **settings), **SOCKETS["native"])
            )

        yield start


@pytest.fixture
def server(start: Callable[..., LiveServer]) -> LiveServer:
    return start()


@pytest.fixture
def show(chromium: "Browser") -> Iterator[ShowConsole]:
    """Return a function that prepares a page for a server. Its options are those of a browser context."""
    with ExitStack() as stack:

        def show(server: LiveServer, **options: Any) -> ConsolePage:
            context = stack.enter_context(chromium.new_context(**{"viewport": DESKTOP, **options}))
            context.set_default_timeout(60_000)
            return ConsolePage(context.new_page(), server.url)

        yield show


@pytest.fixture
def opened(show: ShowConsole) -> OpenConsole:
    """Return a function that opens the console of a server with all rights."""
    return lambda server, **options: show(server, **options).open(token_for(server))
