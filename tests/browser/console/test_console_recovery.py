"""What the console shows of a recovery, in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI

from browser.chromium import REMOTE_HOST
from browser.console_page import PATH, SCOPES, ConsolePage, token_for
from support import SOCKETS, nth
from unmissed import ConnectionManager, Settings, create_router
from unmissed.testing import SECRET, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import WebSocketRoute

pytestmark = pytest.mark.live

ShowConsole = Callable[..., ConsolePage]
OpenConsole = Callable[..., ConsolePage]


# A first visit


@pytest.mark.long
def test_two_clicks_show_a_recovery(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Publish 50/s")
    page.wait_until("count('received') > 20")
    page.press("Drop 5 s")
    page.wait_for("waiting")
    page.wait_until("count('missed') > 100")
    page.wait_for("live")
    page.wait_until("document.querySelector('#messages .back')")
    page.press("Publish 50/s")

    counters = page.counters()
    assert counters["recovered"] > 100
    assert (0, 0, 0) == (counters["missed"], counters["lost"], counters["duplicates"])
    assert "None was lost." in page.rows(".note")[0]
    assert page.rows(".recovered")[0].endswith("recovered")
    assert page.page.locator("#timeline rect.recovered").count() > 0


def test_a_newcomer_is_led_from_step_to_step(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    suggested = [(page.page.locator("#steps").is_visible(), next_steps(page))]
    page.press("Publish 50/s")
    page.wait_until("count('received') > 0")
    suggested.append((page.page.locator("#steps").is_visible(), next_steps(page)))
    page.press("Drop 5 s")
    page.end_drop()
    page.wait_until("document.querySelector('#messages .back')")
    suggested.append((page.page.locator("#steps").is_visible(), next_steps(page)))

    assert [(True, ["Show me M"]), (False, ["Show me M", "Drop 5 s D"]), (False, ["Show me M"])] == suggested


def next_steps(page: ConsolePage) -> list[str]:
    return [" ".join(text.split()) for text in page.page.locator("button.next:visible").all_inner_texts()]


@pytest.mark.long
def test_every_message_is_compared_by_number(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    server.publish("for everyone")
    server.publish("for bob", users=["bob"])
    server.publish("for everyone")

    page.wait_until("document.getElementById('check').textContent.startsWith('2 of 2 messages compared')")
    assert (2, 0) == (page.counters()["received"], page.counters()["lost"])


@pytest.mark.long
def test_a_drop_without_traffic_has_something_to_miss(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Drop 5 s")
    page.wait_until("count('missed') > 5")
    page.end_drop()
    page.wait_until("document.querySelector('#messages .back')")

    counters = page.counters()
    assert counters["recovered"] > 5
    assert (0, 0, 0) == (counters["missed"], counters["lost"], counters["duplicates"])


def test_a_message_is_listed_with_its_number_and_its_text_as_text(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.page.get_by_label("Text of the message").fill("<b>Hello</b>")
    page.press("Publish P")
    page.wait_until("count('received') === 1")

    [row] = page.rows()
    assert row.startswith(f"{nth(1)} ")
    assert 'note {"text":"<b>Hello</b>"}' in row


def test_the_page_keeps_to_its_policy_and_to_its_server(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Publish P")
    page.wait_until("count('received') === 1")

    assert [] == page.errors
    assert [] == [url for url in page.requested if not url.startswith((server.url, server.websocket_url))]


@pytest.mark.long
def test_the_page_works_under_a_prefix(show: ShowConsole) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET, console=True))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager), prefix="/live")

    with LiveServer(app, manager=manager, **SOCKETS["native"]) as server:
        page = show(server)
        page.url += "/live"
        page.open(token_for(server))
        page.press("Publish P")
        page.wait_until("count('received') === 1")
        page.view("connections")

        assert [] == page.errors


# Tokens


@pytest.mark.long
def test_the_token_leaves_the_address_and_lasts_over_a_reload(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    assert f"{server.url}{PATH}" == page.page.url
    page.page.reload()
    page.wait_for("live")


@pytest.mark.long
def test_a_token_may_be_pasted_and_forgotten(server: LiveServer, show: ShowConsole) -> None:
    page = show(server)
    page.page.goto(f"{server.url}{PATH}")

    page.page.get_by_label("Token").fill(token_for(server))
    page.press("Connect")
    page.wait_for("live")
    page.press("Change token")

    page.page.get_by_label("Token").wait_for()
    assert None is page.page.evaluate("sessionStorage.getItem('unmissed.console.token')")


@pytest.mark.long
def test_a_link_replaces_a_token_only_when_the_operator_says_so(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    linked = server.token("mallory", scope=SCOPES)
    token = "sessionStorage.getItem('unmissed.console.token')"
    kept = page.page.evaluate(token)

    page.page.goto(f"{server.url}{PATH}#token={linked}")
    page.press("Keep my token")
    assert kept == page.page.evaluate(token)
    assert f"{server.url}{PATH}" == page.page.url
    page.wait_for("live")

    page.page.goto(f"{server.url}{PATH}#token={linked}")
    page.press("Use the token of the link")
    page.page.wait_for_function(f"linked => {token} === linked", arg=linked)
    page.wait_for("live")


def test_a_refused_token_is_explained(server: LiveServer, show: ShowConsole) -> None:
    page = show(server)

    page.page.goto(f"{server.url}{PATH}#token=expired")

    page.page.get_by_text("The token was refused, or it has expired.").wait_for()
    assert "Closed" == page.text("#state-title")


@pytest.mark.long
def test_a_token_without_rights_shows_messages_and_says_what_is_missing(server: LiveServer, show: ShowConsole) -> None:
    page = show(server).open(token_for(server, scope=""))

    server.publish("a")
    page.wait_until("count('received') === 1")
    page.press("Publish P")

    page.page.get_by_text("Publishing failed: ").wait_for()
    assert "admin" in page.text("#fill .refusal")


@pytest.mark.long
def test_test_messages_for_another_machine_are_confirmed_first(server: LiveServer, show: ShowConsole) -> None:
    page = show(server)
    page.url = server.url.replace("127.0.0.1", REMOTE_HOST)
    page.open(token_for(server))

    page.press("Publish P")
    page.press("Cancel")
    assert nth(0) == server.manager.window.latest
    page.press("Publish P")
    page.page.get_by_role("dialog").get_by_role("button", name="Publish").click()
    page.wait_until("count('received') === 1")
    page.press("Publish P")
    page.wait_until("count('received') === 2")


# Losses


@pytest.mark.long
def test_a_gap_is_a_red_row_with_what_is_lost(start: Callable[..., LiveServer], opened: OpenConsole) -> None:
    server = start(max_messages=20)
    page = opened(server)
    server.publish("seen")
    page.wait_until("count('received') === 1")

    page.press("Drop 5 s")
    page.wait_for("waiting")
    for _ in range(2):
        listed = server.manager.window.latest - nth(0) + 10
        for number in range(10):
            server.publish("published meanwhile", number)
        page.wait_until(f"count('missed') + count('lost') >= {listed - 1}")
    page.end_drop()
    page.wait_until("document.querySelectorAll('#messages .bad').length === 2")

    back, gap = page.rows(".bad")
    lost = page.counters()["lost"]
    assert f"{lost} could not be recovered" in back
    assert f"Gap: {lost} messages are lost (numbers {nth(2)} to {nth(1 + lost)})" in gap
    assert (20, 0) == (page.counters()["recovered"], page.counters()["missed"])


@pytest.mark.long
def test_a_message_that_is_lost_without_notice_is_found(server: LiveServer, show: ShowConsole) -> None:
    page = show(server)
    page.page.route_web_socket("**/ws*", swallow("lost"))
    page.open(token_for(server))

    for kind in ("seen", "lost", "seen"):
        server.publish(kind)
    page.wait_until("count('lost') === 1")

    assert "1 message did not arrive, and no gap was announced." in page.rows(".bad")[0]
    assert "1 message of the log did not arrive" == page.text("#check")


def swallow(kind: str) -> Callable[["WebSocketRoute"], None]:
    """Return a handler that passes on all messages of the server but those of this type."""

    def handle(route: "WebSocketRoute") -> None:
        server = route.connect_to_server()
        server.on_message(lambda frame: None if f'"{kind}"' in str(frame) else route.send(frame))

    return handle


@pytest.mark.long
def test_a_server_that_lost_its_log_is_told_as_a_reset(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    server.publish("a")
    page.wait_until("count('received') === 1")

    server.restart()
    page.wait_until("document.querySelectorAll('#messages .bad').length === 2")
    server.publish("b")
    page.wait_until("count('received') === 2")

    renewed, reset = page.rows(".bad")
    assert "Reset: the server has started with an empty log." in reset
    assert "What the old log held is unknown." in renewed
    assert (0, 0) == (page.counters()["lost"], page.counters()["duplicates"])


@pytest.mark.long
def test_a_reload_recovers_what_was_published_meanwhile(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    server.publish("before")
    page.wait_until("count('received') === 1")

    page.page.goto("about:blank")
    server.publish("meanwhile")
    page.page.goto(f"{server.url}{PATH}")
    page.wait_for("live")

    page.page.get_by_text("Recovered 1 message after the page was loaded again. None was lost.").first.wait_for()
    assert (1, 0) == (page.counters()["recovered"], page.counters()["lost"])


# The log


@pytest.mark.long
def test_the_log_shows_how_full_it_is_and_how_far_it_reaches_back(
    start: Callable[..., LiveServer], opened: OpenConsole
) -> None:
    server = start(max_messages=200)
    page = opened(server)

    page.page.get_by_text("reaches 15 min back", exact=True).wait_for()
    assert "The log keeps a message for 15 min." == page.text("#forecast")
    for _ in range(50):
        server.publish("a", "x" * 1_000)
    page.page.clock.fast_forward(5_000)
    page.page.get_by_text("50 of 200", exact=True).wait_for()

    retained = server.manager.window.size
    assert f"{retained / 1000:.0f} kB of 34 MB" == page.text("#log-bytes-text")
    reach = re.fullmatch(r"reaches (\d+) s back", page.text("#log-reach"))
    assert reach is not None
    assert pytest.approx(200 / (50 / 5), abs=5) == int(reach[1])
    assert page.text("#forecast").endswith("a drop of 5 s loses nothing, one of 30 s ends in a gap.")


@pytest.mark.long
def test_a_stalled_reader_falls_behind_alone_and_catches_up(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.press("Stall reading")
    page.page.get_by_text("messages behind. All others go on, and so does this page.").wait_for()
    page.view("connections")
    # The scale ends at 10 or more.
    page.page.locator("tr.behind .lag", has_text=re.compile(r"\d\d")).wait_for()
    levels = [level(page, "this page"), level(page, "stalled reader")]
    own = [each.lag for each in server.manager.connections if each.transport == "websocket"]
    page.view("recovery")
    page.press("Read on")
    page.page.get_by_text("The second connection has caught up").wait_for()

    assert [0] == own
    assert 0 == page.counters()["lost"]
    assert [0, 1] == levels


def level(page: ConsolePage, mark: str) -> int:
    """Return whether the newest value in the chart of a connection is at the bottom, 0, or at the top, 1."""
    row = page.page.locator("#connections-rows tr", has_text=mark)
    points = row.locator("polyline").get_attribute("points") or ""
    return round((19 - float(points.rpartition(",")[2])) / 18)


# Code


@pytest.mark.long
@pytest.mark.parametrize("language", ["curl", "Python"])
def test_the_code_for_publishing_publishes(server: LiveServer, opened: OpenConsole, language: str) -> None:
    page = opened(server)
    page.page.get_by_label("Text of the message").fill("It's here")
    page.press("Publish P")
    page.page.get_by_role("tab", name=language).click()
    code = page.text("#code")

    command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    variables = {"UNMISSED_URL": server.url, "UNMISSED_TOKEN": token_for(server)}
    subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, timeout=30)  # noqa: S603  # the code under test
    page.wait_until("count('received') === 2")

    published, clicked = (row.split(" ", 2)[2] for row in page.rows())
    assert clicked == published


@pytest.mark.long
def test_code_is_copied_without_the_token_and_the_token_on_its_own(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server, permissions=["clipboard-read", "clipboard-write"])

    copied = []
    for button in ("#copy-code", "#copy-token"):
        page.page.click(button)
        page.page.locator(button, has_text="Copied").wait_for()
        copied.append(page.page.evaluate("navigator.clipboard.readText()"))

    assert "$UNMISSED_TOKEN" in copied[0]
    assert "eyJ" not in copied[0]
    assert copied[1].startswith(f"export UNMISSED_URL={server.url} UNMISSED_TOKEN=eyJ")
