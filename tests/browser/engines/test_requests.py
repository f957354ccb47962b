"""What a page asks of the server, in every engine and over every transport."""

import pytest

from browser.engines.conftest import TRANSPORTS, Connect, OpenPage
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import nth, nths

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.parametrize("transport", TRANSPORTS)]

FAILS = ".then(() => 'done', ({ code }) => code)"
"""Turns the rejection of a request into its code."""


def publish_from(page: EnginePage, *data: int) -> None:
    """Let the page publish this without a pause; ``answers`` is the promise of the numbers."""
    messages = [{"type": "mine", "data": each} for each in data]
    page.evaluate(f"void (globalThis.answers = Promise.all({messages}.map((each) => stream.publish(each))))")


def stored(site: Site) -> list[int]:
    """Return the data of all messages in the log."""
    return [each.as_dict()["data"] for each in site.server.manager.get_messages_since(0).messages]


def test_a_page_publishes(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    publish_from(page, 1, 2, 3)

    assert nths(1, 2, 3) == page.evaluate("answers")
    assert nths(1, 2, 3) == page.received(3).numbers
    assert [1, 2, 3] == stored(site)


def test_what_is_published_offline_arrives_once_and_in_order(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.cut_off()
    page.wait_until("stream.status === 'waiting'")
    publish_from(page, 1, 2, 3)
    site.let_in()

    assert nths(1, 2, 3) == page.evaluate("answers")
    assert [1, 2, 3] == stored(site)
    assert nths(1, 2, 3) == page.received(3).numbers


def test_what_is_published_before_the_first_connection_arrives(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry()
    page.evaluate("import('/websocket/client.js').then(() => 'loaded')")

    site.cut_off()
    page.connect(site.token(), transports=[transport])
    publish_from(page, 1, 2)
    page.wait_until("stream.status === 'waiting'")
    site.let_in()

    assert nths(1, 2) == page.evaluate("answers")
    assert [1, 2] == stored(site)


def test_what_is_published_over_cuts_is_stored_once(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport).hurry()

    publish_from(page, *range(30))
    page.evaluate("void (globalThis.done = 0, answers.then(() => (done = 1)))")
    for count in (5, 10, 15, 20):
        page.wait_until(f"stream.position >= {nth(count)} || done")
        site.network.cut()

    assert 30 == len({*page.evaluate("answers")})
    assert [*range(30)] == sorted(stored(site))


def test_what_is_published_for_a_topic_reaches_those_who_follow_it(
    site: Site, open_page: OpenPage, transport: str
) -> None:
    page = open_page().hurry().connect(site.token(topics=("rooms.1",)), transports=[transport]).live()

    page.evaluate("stream.publish({ type: 'mine', topics: ['rooms.1'] })")

    assert nths(1) == page.received(1).numbers


def test_a_page_follows_and_unfollows(site: Site, open_page: OpenPage, transport: str) -> None:
    token = site.token(topics=("news", "rooms.*"))
    page = open_page().hurry().connect(token, transports=[transport]).live()

    assert ["news", "rooms.1"] == sorted(page.evaluate("stream.follow('rooms.1')"))
    page.live()
    site.publish(topics=["rooms.1"])
    page.received(1)
    assert ["news"] == page.evaluate("stream.unfollow('rooms.1')")
    page.live()
    site.publish(topics=["rooms.1"])
    site.publish(topics=["news"])
    page.received(2)

    assert nths(1, 3) == page.numbers


def test_a_topic_that_is_not_granted_is_refused(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry().connect(site.token(topics=("news",)), transports=[transport]).live()

    code = page.evaluate(f"stream.follow('secret'){FAILS}")
    site.publish(topics=["news"])
    page.received(1)

    assert 4403 == code
    assert [] == page.events


def test_a_followed_topic_survives_an_outage(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry().connect(site.token(topics=("news", "rooms.*")), transports=[transport]).live()
    page.evaluate("stream.follow('rooms.1')")
    page.live()

    site.network.cut()
    site.publish(topics=["rooms.1"])
    page.received(1)

    assert nths(1) == page.numbers


def test_a_page_calls_a_command(site: Site, connect: Connect, transport: str) -> None:
    @site.server.manager.command("double")
    def double(number: int) -> int:
        return 2 * number

    page = connect(transport)

    assert 42 == page.evaluate("stream.command('double', 21)")
    assert 4400 == page.evaluate(f"stream.command('double', 'x'){FAILS}")
    assert 4400 == page.evaluate(f"stream.command('unknown'){FAILS}")
    assert "live" == page.evaluate("stream.status")


def test_a_command_that_was_called_offline_runs_once(site: Site, connect: Connect, transport: str) -> None:
    calls: list[int] = []

    @site.server.manager.command("count")
    def count(number: int) -> int:
        calls.append(number)
        return len(calls)

    page = connect(transport)

    site.cut_off()
    page.wait_until("stream.status === 'waiting'")
    page.evaluate("void (globalThis.answer = stream.command('count', 7))")
    site.let_in()

    assert 1 == page.evaluate("answer")
    assert [7] == calls


def test_a_page_that_may_not_publish_is_refused_and_stays(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry().connect(site.token(scope=""), transports=[transport]).live()

    code = page.evaluate(f"stream.publish({{ type: 'mine' }}){FAILS}")
    site.publish()
    page.received(1)

    assert 4403 == code
    assert nths(1) == page.numbers
    assert [] == page.events


def test_a_request_that_is_too_large_is_refused_and_stays(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    code = page.evaluate(f"stream.publish({{ type: 'mine', data: 'x'.repeat(70_000) }}){FAILS}")
    publish_from(page, 1)

    assert 1009 == code
    assert nths(1) == page.evaluate("answers")
    assert [1] == stored(site)


def test_closing_rejects_what_is_not_answered(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport)

    site.cut_off()
    page.wait_until("stream.status === 'waiting'")
    page.evaluate(f"void (globalThis.code = stream.publish({{ type: 'mine' }}){FAILS})")
    page.evaluate("stream.close()")
    site.let_in()

    assert 1000 == page.evaluate("code")
    assert "closed" == page.evaluate("stream.status")
