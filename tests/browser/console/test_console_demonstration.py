"""What *Show me* shows: two clients that lose their connections at the same moment, in a real browser."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from browser.console_page import ConsolePage, token_for
from support import nth
from unmissed.testing import LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import WebSocketRoute

pytestmark = [pytest.mark.live, pytest.mark.long]

ShowConsole = Callable[..., ConsolePage]
OpenConsole = Callable[..., ConsolePage]


SHOWN = "rects => rects.map((rect) => rect.getBoundingClientRect().height).filter((height) => height > 0).length"


def test_the_plain_websocket_loses_what_unmissed_recovers(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Show me")
    wait_for(page, "away")
    page.page.wait_for_function(f"() => ({SHOWN})([...document.querySelectorAll('#race rect.missed')]) > 4")
    wait_for(page, "done")

    plain, unmissed = lost(page, "plain"), lost(page, "unmissed")
    result = page.text("#demonstration-result")
    assert plain > 200
    assert 0 == unmissed
    assert f"Plain WebSocket: {plain} lost. Unmissed: 0 lost." in result
    # On a busy machine, one of the two may be back a little later than the other.
    assert re.search(r"[1-9]\d+ of them recovered, none twice\.", result)
    assert server.manager.window.latest - nth(0) == published(result)
    assert (True, False) == (columns(page, "plain", "lost") >= 10, columns(page, "unmissed", "lost") > 0)
    assert (True, False) == (columns(page, "unmissed", "recovered") >= 10, columns(page, "plain", "recovered") > 0)


def test_nothing_is_left_behind(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Show me")
    wait_for(page, "together")
    during = len(server.manager.connections)
    page.press("Stop")
    wait_for(page, "stopped")
    # Only the stream of the page itself is left.
    while len(server.manager.connections) > 1:
        page.page.wait_for_timeout(20)

    assert 1 + 2 == during
    assert "Show me again M" == " ".join(page.text("#show-me").split())
    assert "" == page.text("#demonstration-result")


def test_a_small_log_gets_fewer_messages_a_second(start: Callable[..., LiveServer], opened: OpenConsole) -> None:
    page = opened(start(max_messages=100))
    page.page.get_by_text("0 of 100", exact=True).wait_for()

    page.press("Show me")
    wait_for(page, "done")

    assert 0 == lost(page, "unmissed")
    assert 0 < lost(page, "plain") < 100


def test_the_counts_are_real(server: LiveServer, show: ShowConsole) -> None:
    """A message that never reaches the Unmissed client is counted as lost, although nothing has announced it."""
    page = show(server)
    page.page.route_web_socket("**/ws*", without_every_hundredth)
    page.open(token_for(server))

    page.press("Show me")
    wait_for(page, "done")

    assert lost(page, "unmissed") > 1


def without_every_hundredth(route: "WebSocketRoute") -> None:
    """Pass on all messages of the server but those whose data ends with 00."""
    server = route.connect_to_server()
    server.on_message(lambda frame: None if re.search(r'"n":\d*00\b', str(frame)) else route.send(frame))


def test_it_says_which_scope_is_missing(server: LiveServer, show: ShowConsole) -> None:
    page = show(server).open(token_for(server, scope=""))

    page.press("Show me")
    wait_for(page, "failed")

    assert "messages:publish" in page.text("#demonstration-text")
    assert nth(0) == server.manager.window.latest


def wait_for(page: ConsolePage, phase: str) -> None:
    page.page.locator(f"#demonstration[data-phase={phase}]").wait_for()


def lost(page: ConsolePage, name: str) -> int:
    return int(page.text(f"#race-{name}-lost").replace(",", ""))


def columns(page: ConsolePage, name: str, kind: str) -> int:
    """Return how many bars of one client have a part of this kind."""
    number: int = page.page.locator(f"#race-{name} rect.{kind}").evaluate_all(SHOWN)
    return number


def published(result: str) -> int:
    found = re.search(r"Of ([\d,]+) messages", result)
    assert found is not None
    return int(found[1].replace(",", ""))
