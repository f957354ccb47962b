"""What the console shows to operators, in a real browser."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from browser.console_page import ConsolePage, token_for
from browser.crowd import LONG, MARKUP, connected
from support import nth
from unmissed.testing import LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.live, pytest.mark.long]

ShowConsole = Callable[..., ConsolePage]
OpenConsole = Callable[..., ConsolePage]

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def client(server: LiveServer, user: str, *topics: str) -> ClientConnection:
    headers = {"Authorization": f"Bearer {server.token(user, topics=topics)}"}
    return connect(server.websocket_url, additional_headers=headers, proxy=None, max_queue=None)


def close_code(connection: ClientConnection) -> int | None:
    """Read until the server closes the connection."""
    with suppress(ConnectionClosed):
        while True:
            connection.recv(timeout=30)
    return connection.close_code


# Connections


def test_connections_are_listed_with_what_an_operator_needs(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "alice", "orders.42", "orders.43"):
        page.view("connections")
        row = page.page.locator("#connections-rows tr", has_text="alice")
        row.wait_for()
        cells = row.locator("td").all_inner_texts()
        own = page.page.locator("#connections-rows tr", has_text="this page").locator(".user").inner_text()

    address, topics, transport, position, _, lag = cells
    assert ("127.0.0.1", "orders.42, orders.43", "websocket") == (address.split(":")[0], topics, transport)
    assert (str(nth(0)), "0") == (position, lag)
    assert "dev" in own


def test_a_crowd_is_counted_searched_and_paged(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with connected(server, 200):
        page.view("connections")
        page.page.locator("#connections-total", has_text=re.compile("^201$")).wait_for()
        first = page.names("connections")
        page.press("Next")
        page.page.wait_for_function(
            "seen => document.querySelector('#connections-rows th').innerText !== seen", arg=first[0]
        )
        page.press("Previous")
        page.page.wait_for_function(
            "seen => document.querySelector('#connections-rows th').innerText === seen", arg=first[0]
        )
        page.page.locator("#connections-search").fill("FEATHERSTONE")
        page.page.locator("#connections-total", has_text="20 of 201").wait_for()
        found = page.names("connections")
        page.page.reload()
        page.page.locator("#connections-total", has_text="20 of 201").wait_for()

    assert 50 == len(first)
    assert {True} == {name.startswith(LONG) for name in found}
    assert "#connections?search=FEATHERSTONE" in page.page.url


def test_connections_are_sorted_by_lag(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "alice"):
        page.press("Stall reading")
        page.page.get_by_text("messages behind. All others go on").wait_for()
        page.view("connections")
        page.page.locator("#connections-rows tr:first-child", has_text="stalled reader").wait_for()
        page.page.locator("#connections-sort").select_option("User")
        page.page.locator("#connections-rows tr:first-child", has_text="alice").wait_for()

    assert "sort=user+asc" in page.page.url


def test_a_disconnected_client_comes_back(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("connections")
    [connection] = server.manager.connections

    page.page.get_by_role("button", name="dev").click()
    page.press("Disconnect")
    page.page.locator("#question").get_by_role("button", name="Disconnect").click()
    page.page.locator(f"[data-connection='{connection.id}']").wait_for(state="detached")
    page.page.locator("#connections-rows tr", has_text="this page").wait_for()

    assert [connection.id] != [each.id for each in server.manager.connections]


def test_a_user_is_logged_out_after_a_confirmation(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "alice") as first, client(server, "alice") as second, client(server, "bob"):
        page.view("connections")
        page.page.get_by_role("button", name="alice").first.click()
        page.press("Log out the user")
        page.press("Cancel")
        before = len(server.manager.connections)
        page.press("Log out the user")
        page.page.locator("#question").get_by_role("button", name="Log out").click()
        codes = [close_code(first), close_code(second)]
        page.page.locator("#connections-total", has_text=re.compile("^2$")).wait_for()
        assert not page.page.locator("#inspector").is_visible()
        assert {"dev this page", "bob"} == {" ".join(name.split()) for name in page.names("connections")}

    assert (4, [4401, 4401]) == (before, codes)


def test_a_token_is_refused_with_its_connection(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "alice") as connection:
        page.view("connections")
        page.page.get_by_role("button", name="alice").click()
        page.press("Refuse its token")
        page.page.locator("#question").get_by_role("button", name="Refuse its token").click()

        assert 4401 == close_code(connection)


def test_a_name_is_text_and_turns_nothing_around(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with connected(server, 10):
        page.view("connections")
        page.page.locator("#connections-total", has_text=re.compile("^11$")).wait_for()
        names = page.names("connections")
        page.page.get_by_role("button", name="onerror").click()
        title = page.text("#inspector-title")
        page.page.locator("#inspector-close").click()
        page.page.get_by_role("button", name="u202e").click()
        page.press("Log out the user")
        question = page.text("#question-text")

    assert MARKUP in names
    assert "\\u202egpj.tnemetats\\u202c" in names
    assert MARKUP == title
    assert "\\u202egpj.tnemetats\\u202c" in question
    assert [] == page.errors


# Topics


def test_topics_lead_to_their_connections(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "alice", "orders.42"), client(server, "bob", "orders.42", "rooms.1"):
        page.view("topics")
        page.page.locator("#topics-total", has_text=re.compile("^2$")).wait_for()
        topics = [" ".join(text.split()) for text in page.page.locator("#topics-rows tr").all_inner_texts()]
        page.page.locator("#topics-search").fill("ROOM")
        page.page.locator("#topics-total", has_text="1 of 2").wait_for()
        page.page.get_by_role("link", name="rooms.1").click()
        page.page.locator("#connections-total", has_text="1 of 3").wait_for()
        found = page.names("connections")

    assert ["orders.42 2", "rooms.1 1"] == topics
    assert ["bob"] == found
    assert "rooms.1" == page.page.locator("#connections-topic").input_value()


# Log


def test_the_log_has_the_messages_of_all_users(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server, permissions=CLIPBOARD)
    server.publish("chat", {"text": "tea"}, users=["bob"])
    server.publish("order", {"total": 12.5}, topics=["orders.42"])
    server.publish("chat", {"text": "\N{RIGHT-TO-LEFT OVERRIDE}eert"})

    page.view("log")
    page.page.locator("#log-total", has_text=re.compile("^3 messages$")).wait_for()
    numbers = page.names("log")
    audiences = page.page.locator("#log-rows td:nth-of-type(3)").all_inner_texts()
    filtered = [
        numbers_with(page, **filters)
        for filters in ({"type": "chat"}, {"user": "bob"}, {"topic": "orders.42"}, {"search": "TEA"}, {"type": "none"})
    ]
    page.page.get_by_role("button", name=str(nth(3))).click()
    shown = page.text("#inspector-code")
    page.press("Copy JSON")
    page.page.get_by_role("button", name="Copied").wait_for()
    copied = page.page.evaluate("navigator.clipboard.readText()")

    assert [str(nth(n)) for n in (3, 2, 1)] == numbers
    assert ["everyone", "orders.42", "user bob"] == audiences
    assert [[nth(3), nth(1)], [nth(1)], [nth(2)], [nth(1)], []] == filtered
    assert "\\u202eeert" in shown
    assert {"type": "chat", "data": {"text": "\N{RIGHT-TO-LEFT OVERRIDE}eert"}}.items() <= json.loads(copied).items()


def numbers_with(page: ConsolePage, **filters: str) -> list[int]:
    """Return the numbers that are listed with these filters, and remove them."""
    for name, value in filters.items():
        page.page.locator(f"#log-{name}").fill(value)
    page.page.locator("#log-total", has_text=re.compile(r"^\d+ of ")).wait_for()
    numbers = [int(number) for number in page.names("log")]
    for name in filters:
        page.page.locator(f"#log-{name}").fill("")
    page.page.locator("#log-total", has_text=re.compile("^3 messages$")).wait_for()
    return numbers


def test_a_long_log_is_read_page_by_page(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    for number in range(120):
        server.publish("tick", number)

    page.view("log")
    page.page.get_by_role("button", name=str(nth(120))).wait_for()
    for newest in (70, 20):
        page.press("Older")
        page.page.locator("#log-rows tr:first-child", has_text=str(nth(newest))).wait_for()
    last = page.names("log")
    page.press("Newer")
    page.page.locator("#log-rows tr:first-child", has_text=str(nth(70))).wait_for()

    assert [str(nth(n)) for n in range(20, 0, -1)] == last


# Publish


def test_any_message_is_published(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("publish")
    fields = {"type": "order.shipped", "topics": "orders.42 rooms.1", "users": "alice\nbob", "data": '{"n": 1}'}

    with client(server, "alice") as connection:
        for name, value in fields.items():
            page.page.locator(f"#publish-{name}").fill(value)
        audience = page.text("#publish-audience")
        page.page.locator("#publish-data").press("Tab")
        page.page.keyboard.press("Enter")
        page.page.get_by_text("Published at").wait_for()
        received = next(frame for text in connection if (frame := json.loads(text))["type"] == "order.shipped")

    assert "The message is for the followers of these 2 topics and these 2 users." == audience
    assert ({"n": 1}, nth(1)) == (received["data"], received["sequence_number"])
    assert ["orders.42", "rooms.1"] == sorted(received["topics"])


def test_what_is_wrong_is_said_beside_its_field(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("publish")

    page.page.locator("#publish-data").fill("{'n': 1}")
    page.page.locator("#publish-button").click()
    focused, error = page.page.evaluate("document.activeElement.id"), page.text("#publish-data-error")
    page.page.locator("#publish-data").fill('{"n": 1}')
    after = page.text("#publish-data-error")
    page.page.locator("#publish-type").fill("heartbeat")
    page.page.locator("#publish-button").click()
    page.page.locator("#publish-type-error", has_text="heartbeat").wait_for()

    assert ("publish-data", "") == (focused, after)
    assert error.startswith("This is not JSON")
    assert "true" == page.page.locator("#publish-type").get_attribute("aria-invalid")
    assert nth(0) == server.manager.window.latest


def test_trying_again_publishes_once(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("publish")
    page.page.route("**/websocket/messages", lambda route: (route.fetch(), route.abort()), times=1)

    page.page.locator("#publish-button").click()
    page.page.get_by_text("trying again does not publish it twice").wait_for()
    lost = server.manager.window.latest
    page.press("Try again")
    page.page.get_by_text("Published at").wait_for()
    again = server.manager.window.latest
    page.press("Publish another one")
    page.page.get_by_text(str(nth(2))).wait_for()

    assert (nth(1), nth(1), nth(2)) == (lost, again, server.manager.window.latest)


# History and server


def test_the_last_hour_has_what_happened_to_clients(start: Callable[..., LiveServer], opened: OpenConsole) -> None:
    server = start(max_messages=20)
    page = opened(server)
    with client(server, "alice"):
        pass
    for number in range(40):
        server.publish("tick", number)
    headers = {"Authorization": f"Bearer {server.token('bob')}"}
    with connect(f"{server.websocket_url}?since={nth(3)}", additional_headers=headers, proxy=None):
        page.view("history")
        page.page.get_by_text("Gap: up to 17 lost").wait_for()
        page.page.locator("#history-rows tr.close", has_text="alice").wait_for()
        chips = page.page.locator("#history-kinds").inner_text().split("\n")
        chart = page.page.locator("#history-chart").get_attribute("aria-label") or ""
        page.press("Gaps 1")
        page.page.locator("#history-rows tr.close").first.wait_for(state="detached")
        page.page.locator("#history-rows button").click()
        reason = page.text("#inspector-facts")

    assert {"Gaps 1", "Closes 1", "Stalls 0"} <= {chip.strip() for chip in chips}
    assert "Gaps 1" in chart
    assert f"of the numbers {nth(4)} to {nth(20)}, the log had evicted some" in reason


def test_everything_of_the_status_is_shown(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    server.publish("a", "x" * 1_000)

    page.view("server")
    page.page.locator("#status-facts", has_text=str(nth(1))).wait_for()
    page.page.locator("#nodes-rows tr", has_text="this node").wait_for()
    facts = page.text("#status-facts")

    node = server.manager.running.node_id
    assert [] == [text for text in (node, server.manager.window.epoch, "15 min", "500", "34 MB") if text not in facts]
    assert 20 == page.page.locator("#status-facts dt").count()
    assert node in page.names("nodes")[0]
    assert "ready" in page.text("#nodes-rows")


def test_what_each_rule_keeps_is_shown(start: Callable[..., LiveServer], opened: OpenConsole) -> None:
    server = start(retention="rooms.*=100/7d")
    page = opened(server)
    for _ in range(12):
        server.publish("chat", topics=["rooms.1"])
    server.manager.publish_threadsafe({"type": "cart", "key": "cart", "topics": ["rooms.2"]})
    page.view("server")
    page.page.locator("#rules-rows tr", has_text="rooms.*").wait_for()
    rows = page.text("#rules-rows")

    assert "no rule" in rows
    assert "13\t1\t1" in rows
    assert "100 messages of each for 7 d" in rows


# What is out of date, and what is not allowed


def test_figures_look_stale_while_the_server_is_away(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("connections")
    view = page.page.locator("#connections-view")
    colour = "getComputedStyle(document.querySelector('#connections-rows .link')).color"
    fresh = page.page.evaluate(colour)

    server.stop()
    page.page.locator("#connections-view[data-freshness=stale]").wait_for()
    as_of, rows, stale = view.locator(".as-of").inner_text(), page.names("connections"), page.page.evaluate(colour)
    server.start()
    page.page.locator("#connections-view[data-freshness=fresh]").wait_for()

    assert re.fullmatch(r"As of \d\d:\d\d:\d\d: the server cannot be reached", as_of)
    assert 1 == len(rows)
    assert fresh != stale
    assert "" == view.locator(".as-of").inner_text()


def test_a_server_that_does_not_answer_leaves_the_figures_stale(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server).view("topics")

    page.page.route("**/websocket/topics*", lambda _: None)
    page.page.locator("#topics-view[data-freshness=stale]").wait_for()

    assert "the server does not answer" in page.page.locator("#topics-view .as-of").inner_text()


@pytest.mark.parametrize("view", ["connections", "topics", "log", "history", "server"])
def test_a_view_names_the_scope_that_is_missing(server: LiveServer, show: ShowConsole, view: str) -> None:
    page = show(server).open(token_for(server, scope="messages:publish"))

    page.page.locator(f"nav a[href='#{view}']").click()
    refusal = page.page.locator(f"[data-view={view}] .refusal:visible").first
    refusal.wait_for()

    assert "admin" in refusal.inner_text()
    assert not page.page.locator(f"[data-view={view}] .figures").first.is_visible()


def test_publishing_without_the_scope_names_it(server: LiveServer, show: ShowConsole) -> None:
    page = show(server).open(token_for(server, scope="admin"))

    page.view("publish").page.locator("#publish-button").click()

    page.page.locator("#publish-form .bad", has_text="messages:publish").wait_for()


# Ways through the page


def test_the_keyboard_reaches_a_connection_and_comes_back(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    focused = "(document.activeElement.id || document.activeElement.textContent).trim()"
    keyboard = page.page.keyboard

    path = []
    for keys in ("Tab Tab Enter", "Tab Tab Tab Tab", "Enter", "Escape"):
        for key in keys.split():
            keyboard.press(key)
        page.page.locator("#connections-rows .link").wait_for()
        path.append(page.page.evaluate(focused))

    assert ["connections-title", "dev", "inspector-close", "dev"] == path


def test_views_are_in_the_history_of_the_browser(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.view("log").view("server")
    page.page.go_back()
    page.page.locator("[data-view=log]:not([hidden])").wait_for()
    page.page.evaluate("location.hash = '#no-such-view'")
    page.page.locator("[data-view=recovery]:not([hidden])").wait_for()

    assert ["Recovery"] == page.page.locator("nav [aria-current=page]").all_inner_texts()


def test_a_row_keeps_the_focus_while_the_order_changes(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    with client(server, "zoe"), client(server, "alice"):
        page.page.goto(f"{page.page.url}#connections?sort=user+asc")
        page.page.get_by_role("button", name="zoe").focus()
        page.page.route("**/websocket/connections?*", reverse)
        page.page.locator("#connections-rows tr:first-child", has_text="zoe").wait_for()
        focused = page.page.evaluate("document.activeElement.textContent")

    assert "zoe" == focused


def reverse(route: "Route") -> None:
    """Answer with the connections in another order."""
    response = route.fetch()
    page = response.json()
    route.fulfill(response=response, json={**page, "connections": page["connections"][::-1]})
