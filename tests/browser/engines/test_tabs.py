"""Tabs that share a connection, in every engine."""

import pytest

from browser.engines.conftest import OpenPage
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import nth, nths, wait_until

pytestmark = [pytest.mark.live, pytest.mark.long]

streaming = pytest.mark.parametrize("transport", ["websocket", "events"])


@pytest.fixture
def open_tabs(site: Site, open_page: OpenPage, transport: str) -> list[EnginePage]:
    """Return three pages that share a connection; the first one leads."""
    options = {"shared": True, "transports": [transport], "stored": True}
    return [open_page().connect(site.token(), **options).live() for _ in range(3)]


def used(site: Site) -> list[str]:
    """Return the transports of all connections of the server."""
    return [each.transport for each in site.server.manager.connections]


@streaming
def test_tabs_share_one_connection(site: Site, open_tabs: list[EnginePage], transport: str) -> None:
    site.publish(3)

    for page in open_tabs:
        assert nths(1, 2, 3) == page.received(3).numbers
    assert [transport] == used(site)


@streaming
def test_another_tab_connects_when_the_leader_is_closed(
    site: Site, open_tabs: list[EnginePage], transport: str
) -> None:
    leader, *others = open_tabs
    site.publish(2)
    for page in open_tabs:
        page.received(2)

    leader.close()
    site.publish(2)

    for page in others:
        assert nths(1, 2, 3, 4) == page.received(4).numbers
    # The end of the leader's connection may reach the server after the connection of its successor.
    wait_until(lambda: [transport] == used(site))


@streaming
def test_a_leader_that_is_reloaded_loses_nothing(site: Site, open_tabs: list[EnginePage], transport: str) -> None:
    leader, *others = open_tabs
    site.publish(2)
    for page in open_tabs:
        page.received(2)

    leader.reload()
    site.publish(2)
    leader.connect(site.token(), shared=True, transports=[transport], stored=True)

    assert nths(3, 4) == leader.received(2).numbers
    for page in others:
        assert nths(1, 2, 3, 4) == page.received(4).numbers


@streaming
def test_tabs_publish_through_the_leader(site: Site, open_tabs: list[EnginePage], transport: str) -> None:
    _, follower, other = open_tabs

    numbers = follower.evaluate("Promise.all([1, 2, 3].map((data) => stream.publish({ type: 'mine', data })))")

    assert nths(1, 2, 3) == numbers
    assert nths(1, 2, 3) == other.received(3).numbers
    assert [transport] == used(site)


@streaming
def test_what_a_tab_publishes_while_the_leader_leaves_is_stored_once(
    site: Site, open_tabs: list[EnginePage], transport: str
) -> None:
    leader, follower, other = open_tabs

    site.cut_off()
    leader.wait_until("stream.status === 'waiting'")
    follower.evaluate("void (globalThis.answer = stream.publish({ type: 'mine' }))")
    leader.close()
    site.let_in()

    assert nth(1) == follower.evaluate("answer")
    assert nths(1) == other.received(1).numbers
    wait_until(lambda: [transport] == used(site))


@streaming
def test_an_outage_of_the_leader_is_recovered_by_all_tabs(
    site: Site, open_tabs: list[EnginePage], transport: str
) -> None:
    site.publish()
    for page in open_tabs:
        page.received(1)

    site.cut_off()
    open_tabs[0].wait_until("stream.status === 'waiting'")
    site.publish(20)
    site.let_in()

    for page in open_tabs:
        assert nths(*range(1, 22)) == page.received(21).numbers
    assert [transport] == used(site)


@streaming
def test_a_restart_is_a_reset_in_all_tabs(site: Site, open_tabs: list[EnginePage], transport: str) -> None:
    site.publish(2)
    for page in open_tabs:
        page.received(2)

    site.server.restart()
    site.publish(2)

    for page in open_tabs:
        assert nths(1, 2, 1, 2) == page.received(4).numbers
        assert ["reset"] == [kind for kind, _ in page.events]
    assert [transport] == used(site)


def test_streams_of_one_page_share_a_connection(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token(), shared=True).live()
    page.evaluate("void (globalThis.first = stream)")
    page.connect(site.token(), shared=True).live()
    site.publish(2)
    page.received(2)
    assert 1 == len(site.server.manager.connections)

    page.evaluate("first.close()")
    site.publish(2)

    assert nths(1, 2, 3, 4) == page.received(4).numbers


def test_tabs_of_different_names_have_connections_of_their_own(site: Site, open_page: OpenPage) -> None:
    pages = [open_page().connect(site.token(), shared=name).live() for name in ("alice", "bob")]

    site.publish(2)

    for page in pages:
        assert nths(1, 2) == page.received(2).numbers
    assert 2 == len(site.server.manager.connections)
