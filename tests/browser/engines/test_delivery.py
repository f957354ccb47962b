"""What a page receives, in every engine and over every transport."""

import pytest

from browser.engines.conftest import TRANSPORTS, Connect, OpenPage, StartSite
from browser.engines.gateway import Request
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import FIRST, nth, nths
from unmissed.lab.proxy import WebSocketSupport

pytestmark = [pytest.mark.live, pytest.mark.long]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
streaming = pytest.mark.parametrize("transport", ["websocket", "events"])

UNICODE = "Žluťoučký 🦆 was here:\u2028\u0000\u202e שלום \ufeff\U0010ffff"


def all_of(site: Site) -> list[int]:
    """Return the numbers of all messages that were published."""
    return [*range(FIRST, site.server.manager.window.latest + 1)]


@each_transport
def test_messages_arrive_in_order(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.publish(3)
    page.received(3)

    assert [(nth(1), False), (nth(2), False), (nth(3), False)] == page.flags
    assert [] == page.evaluate("seen.errors")


@each_transport
def test_a_stream_that_drops_its_connection_recovers(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)
    site.publish(2)
    page.received(2)

    page.evaluate("stream.drop(300)")
    site.publish(3)
    page.received(5).live()
    site.publish()
    page.received(6)

    assert nths(1, 2, 3, 4, 5, 6) == page.numbers


@each_transport
def test_what_was_missed_during_an_outage_is_recovered(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)
    site.publish(2)
    page.received(2)

    site.cut_off()
    page.wait_until("stream.status === 'waiting'")
    site.publish(3)
    site.let_in()
    page.received(5).live()
    site.publish()
    page.received(6)

    missed = [(nth(3), True), (nth(4), True), (nth(5), True)]
    assert [(nth(1), False), (nth(2), False), *missed, (nth(6), False)] == page.flags


@each_transport
def test_cuts_during_the_recovery_lose_nothing(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.network.limit = 100_000
    site.network.cut()
    site.publish(60, size=10_000)
    page.wait_until("seen.codes.length > 2")
    site.network.limit = None
    page.received(60)

    assert all_of(site) == page.numbers


@each_transport
def test_a_restart_is_a_reset_and_then_what_is_new(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)
    site.publish(3)
    page.received(3)

    site.server.restart()
    site.publish(2)
    page.received(5)

    assert [["reset", {"type": "reset", "epoch": site.server.manager.window.epoch}]] == page.events
    assert nths(1, 2, 3, 1, 2) == page.numbers


@each_transport
def test_lost_messages_are_a_gap_and_a_new_snapshot(start_site: StartSite, connect: Connect, transport: str) -> None:
    site = start_site(max_messages=5)
    page = connect(transport, site=site, snapshots={})

    site.cut_off()
    page.wait_until("stream.status === 'waiting'")
    site.publish(10)
    site.let_in()
    page.received(5)

    [[kind, detail]] = page.events
    assert ("gap", nth(1), nth(5)) == (kind, detail["from"], detail["to"])
    assert nths(6, 7, 8, 9, 10) == page.numbers
    assert 2 == page.evaluate("seen.snapshots")


@streaming
def test_a_network_that_has_become_silent_is_noticed(start_site: StartSite, connect: Connect, transport: str) -> None:
    site = start_site(heartbeat_seconds=0.4)
    page = connect(transport, site=site)

    site.network.silence()
    site.publish(3)
    page.received(3).live()

    assert nths(1, 2, 3) == page.numbers


@each_transport
def test_the_oldest_position_receives_all_that_is_retained(site: Site, open_page: OpenPage, transport: str) -> None:
    site.publish(3)

    page = open_page().connect(site.token(), transports=[transport], since=0).received(3)

    assert [(nth(1), True), (nth(2), True), (nth(3), True)] == page.flags


@each_transport
def test_a_burst_arrives_complete(start_site: StartSite, connect: Connect, transport: str) -> None:
    site = start_site(max_messages=5_000)
    page = connect(transport, site=site)

    site.publish(2_000)
    page.received(2_000)

    assert all_of(site) == page.numbers


@each_transport
def test_large_messages_arrive_complete(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.publish(100, size=60_000)
    page.received(100)

    assert all_of(site) == page.numbers
    assert [60_000] * 100 == page.evaluate("seen.messages.map(([, , data]) => data.length)")


@each_transport
def test_every_character_survives(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.server.publish("chat", {UNICODE: UNICODE})
    page.received(1)

    assert {UNICODE: UNICODE} == page.evaluate("seen.messages[0][2]")


@each_transport
def test_a_page_sees_only_what_is_for_it(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.server.publish("chat", users=["bob"])
    site.server.publish("chat", topics=["elsewhere"])
    site.server.publish("chat", users=["alice"])
    page.received(1)

    assert nths(3) == page.numbers


@each_transport
def test_a_loop_receives_everything_also_over_an_outage(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)
    page.evaluate(
        """void (globalThis.looped = (async () => {
            const numbers = [];
            for await (const { sequence_number } of stream) if (numbers.push(sequence_number) === 4) return numbers;
        })())"""
    )
    site.publish(2)
    page.received(2)

    site.network.cut()
    site.publish(2)

    assert nths(1, 2, 3, 4) == page.evaluate("looped")


@each_transport
def test_a_token_is_renewed_without_a_pause(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry()
    tokens: list[str | None] = [site.token(expires_in=5), site.token()]
    page.connect(tokens, transports=[transport]).live()

    page.evaluate("void (globalThis.expired = Date.now() + 5000)")
    page.wait_until("Date.now() > expired")
    site.publish()
    page.received(1)

    assert 2 == page.evaluate("seen.tokens")
    assert "waiting" not in page.evaluate("seen.statuses")


@each_transport
def test_tokens_that_are_refused_for_half_a_minute_end_the_stream(
    site: Site,  # noqa: ARG001  # the page is of it
    open_page: OpenPage,
    transport: str,
) -> None:
    page = open_page().hurry().connect("garbage", transports=[transport]).wait_until("seen.tokens > 1")
    assert [] == page.events

    page.pass_time(30)
    page.wait_until("stream.status === 'closed'")

    [[kind, detail]] = page.events
    assert ("unauthorized", 4401) == (kind, detail["code"])


def without_events(request: Request) -> bytes | None:
    """Answer requests for an event stream with nothing, as a proxy that is broken."""
    return b"" if request.path.startswith("/websocket/events") else None


def receives_over(page: EnginePage, site: Site, transport: str) -> None:
    """Wait until the page uses this transport, and receives over it."""
    page.wait_until(f"stream.status === 'live' && stream.transport === '{transport}'")
    site.publish()
    page.wait_until(f"stream.position >= {site.server.manager.window.latest}")


@pytest.mark.parametrize("transport", ["events", "polling"])
def test_another_transport_replaces_websockets_and_gives_way_to_them_again(
    site: Site, open_page: OpenPage, transport: str
) -> None:
    site.network.faults.websockets = WebSocketSupport.NONE
    if transport == "polling":
        site.gateway.answer = without_events
    page = open_page().hurry().connect(site.token())
    receives_over(page, site, transport)
    number = page.evaluate("stream.publish({ type: 'chat' })")

    site.network.faults.websockets = WebSocketSupport.FULL
    receives_over(page, site, "websocket")

    assert nth(2) == number
    assert all_of(site) == page.numbers
    assert [] == page.events


def test_a_page_whose_websockets_stop_working_changes_without_loss(site: Site, open_page: OpenPage) -> None:
    page = open_page().hurry().connect(site.token())
    receives_over(page, site, "websocket")

    site.network.faults.websockets = WebSocketSupport.NONE
    site.network.cut()
    site.publish(3)
    receives_over(page, site, "events")

    assert all_of(site) == page.numbers


def test_streams_of_one_page_follow_topics_of_their_own(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token(topics=("a", "b")), topics=["a"]).live()
    page.evaluate("void (globalThis.first = [stream, seen])")
    page.connect(site.token(topics=("a", "b")), topics=["b"]).live()

    site.publish(topics=["a"])
    site.publish(topics=["b"])
    site.network.cut()
    site.publish(topics=["a"])
    site.publish(topics=["b"])
    page.received(2).wait_until("first[1].messages.length === 2")

    assert nths(1, 3) == page.evaluate("first[1].messages.map(([number]) => number)")
    assert nths(2, 4) == page.numbers
