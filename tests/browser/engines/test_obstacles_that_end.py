"""Obstacles that end, in every engine: 5 seconds later a page is live again, and has lost nothing."""

import json
import time
from collections.abc import Callable
from functools import partial

import pytest

from browser.engines.conftest import TRANSPORTS, OpenPage
from browser.engines.obstacles import (
    ANSWERS,
    LIVE_SECONDS,
    begin_answers,
    each_answer,
    end_answers,
    must_outlive,
    must_work,
    nightly,
    seconds_until_live,
)
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import FIRST, nths

pytestmark = [pytest.mark.live, pytest.mark.long]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@each_answer
def test_answers_of_others_do_not_end_a_page(site: Site, open_page: OpenPage, name: str) -> None:
    page = open_page().connect(site.token()).live()

    must_outlive(page, site, partial(begin_answers, site, ANSWERS[name]), partial(end_answers, site))


@pytest.mark.parametrize("transport", ["events", "polling"])
@pytest.mark.parametrize("name", nightly(["401 with a problem", "403 with a problem"], otherwise=1))
def test_refusals_of_others_do_not_end_a_page_that_uses_http(
    site: Site, open_page: OpenPage, name: str, transport: str
) -> None:
    page = open_page().connect(site.token(), transports=[transport]).live()

    must_outlive(page, site, partial(begin_answers, site, ANSWERS[name]), partial(end_answers, site))


@pytest.mark.parametrize("name", nightly(["401 with a problem", "403 with a problem"], otherwise=1))
@pytest.mark.parametrize("transports", [TRANSPORTS, ["events"]])
def test_refusals_of_others_end_no_page_also_after_a_minute(
    site: Site, open_page: OpenPage, name: str, transports: list[str]
) -> None:
    page = open_page().connect(site.token(), transports=transports).live()

    begin_answers(site, ANSWERS[name])
    page.wait_until("seen.pauses.length >= 3")
    page.pass_time(60)
    page.wait_until("seen.pauses.length >= 6 || stream.status === 'closed'")
    end_answers(site)

    assert seconds_until_live(page) < LIVE_SECONDS
    assert [] == page.events


@pytest.mark.parametrize(
    "name", nightly(["401 with a problem", "503 for maintenance", "404 with a problem", "a login page"], otherwise=2)
)
def test_answers_of_others_before_the_first_connection_do_not_end_a_page(
    site: Site, open_page: OpenPage, name: str
) -> None:
    site.gateway.answer = ANSWERS[name]
    page = open_page().connect(site.token()).wait_until("seen.pauses.length >= 3")

    end_answers(site)

    assert seconds_until_live(page) < LIVE_SECONDS
    must_work(page, site)


def test_an_outage_of_the_network_is_over_for_a_page_soon_after_its_end(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token()).live()

    must_outlive(page, site, site.cut_off, site.let_in)


OUTAGES = {
    "no connections for 10 s": (10, Site.cut_off, Site.let_in),
    "a gateway without its service for 30 s": (
        30,
        partial(begin_answers, answer=ANSWERS["502 of a gateway"]),
        end_answers,
    ),
}


@pytest.mark.parametrize(("seconds", "begin", "end"), OUTAGES.values(), ids=OUTAGES)
def test_a_long_outage_is_over_for_a_page_soon_after_its_end(
    site: Site, open_page: OpenPage, seconds: int, begin: Callable[[Site], None], end: Callable[[Site], None]
) -> None:
    page = open_page().connect(site.token()).live()

    begin(site)
    page.evaluate(f"void (globalThis.over = performance.now() + {1000 * seconds})")
    site.publish(3)
    page.wait_until("performance.now() > over")
    end(site)

    assert seconds_until_live(page) < LIVE_SECONDS
    assert nths(1, 2, 3) == page.received(3).numbers


def test_a_service_that_is_away_behind_its_gateway_is_found_again(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token()).live()

    site.server.stop()
    page.wait_until("seen.pauses.length >= 3")
    site.server.start()

    assert seconds_until_live(page) < LIVE_SECONDS
    site.publish()
    page.received(1)
    assert ["reset"] == [kind for kind, _ in page.events]


def test_a_login_of_eleven_seconds_is_waited_for(site: Site, open_page: OpenPage) -> None:
    """Longer than an attempt may take."""
    page = open_page()
    page.evaluate("void (globalThis.login = new Promise((resolve) => setTimeout(resolve, 11_000)))")
    page.connect_with(f"login.then(() => {json.dumps(site.token())})")
    page.evaluate("login")

    assert seconds_until_live(page) < LIVE_SECONDS
    assert 1 == page.evaluate("seen.tokens")
    must_work(page, site)


@each_transport
def test_a_login_that_fails_at_first_is_tried_again(site: Site, open_page: OpenPage, transport: str) -> None:
    tokens: list[str | None] = [None, None, None, site.token()]
    page = open_page().connect(tokens, transports=[transport]).wait_until("seen.tokens >= 3")

    assert seconds_until_live(page) < LIVE_SECONDS
    assert [] == page.events


@each_transport
def test_a_cookie_that_comes_later_is_enough(cookie_site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page(cookie_site.page).connect(None, transports=[transport])
    page.wait_until("seen.pauses.length >= 3")

    page.evaluate("void (document.cookie = 'session=valid')")

    assert seconds_until_live(page) < LIVE_SECONDS
    must_work(page, cookie_site)


@pytest.mark.parametrize("transports", nightly([TRANSPORTS, *([each] for each in TRANSPORTS)], otherwise=2), ids=str)
def test_a_page_of_a_sub_domain_with_cookies_outlives_an_outage(
    cookie_site: Site, open_page: OpenPage, transports: list[str]
) -> None:
    page = sub_domain(cookie_site, open_page)
    page.connect(None, url=cookie_site.at("api.shop.localhost"), transports=transports, credentials="include").live()

    must_outlive(page, cookie_site, cookie_site.cut_off, cookie_site.let_in)


def test_a_page_of_a_sub_domain_without_credentials_outlives_an_outage(cookie_site: Site, open_page: OpenPage) -> None:
    """Only WebSockets send its cookies: other transports are refused, which must not end the page."""
    page = sub_domain(cookie_site, open_page)
    page.connect(None, url=cookie_site.at("api.shop.localhost")).live()

    must_outlive(page, cookie_site, cookie_site.cut_off, cookie_site.let_in)


def sub_domain(site: Site, open_page: OpenPage) -> EnginePage:
    """Return a page of a sub-domain whose cookie is valid for its siblings."""
    page = open_page(site.at("app.shop.localhost") + "/page")
    page.evaluate("void (document.cookie = 'session=valid; domain=shop.localhost')")
    return page


def test_a_dead_connection_is_noticed_by_a_request(site: Site, open_page: OpenPage) -> None:
    """The network has changed without an event, and the next heartbeat would be missed only after a minute."""
    page = open_page().connect(site.token()).live()

    site.network.silence()
    began = time.monotonic()
    number = page.evaluate("stream.publish({ type: 'mine' })")

    assert FIRST == number
    assert time.monotonic() - began < 5.0 + LIVE_SECONDS
