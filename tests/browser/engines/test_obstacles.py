"""What is in the way of a page, in every engine: it is live 5 seconds after the end of the obstacle at the latest.

Where the obstacle stays, the page is live 5 seconds after its start, over another transport.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from jose import jwt

from browser.engines.conftest import TRANSPORTS, OpenPage
from browser.engines.gateway import Answer, Request, response
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import FIRST, nth, nths
from unmissed.lab.proxy import WebSocketSupport
from unmissed.testing import SECRET

pytestmark = [pytest.mark.live, pytest.mark.long]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)

LIVE_SECONDS = 5.0
JSON, PROBLEM, HTML = "application/json", "application/problem+json", "text/html"
REFUSAL = {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "blocked by policy"}


def seconds_until_live(page: EnginePage) -> float:
    """Wait until the page is live, and return how long this took."""
    began = time.monotonic()
    page.live()
    return time.monotonic() - began


def works(page: EnginePage, site: Site) -> bool:
    """Return whether the page receives, publishes and recovers; its log must have been empty."""
    site.publish()
    number = page.received(1).evaluate("stream.publish({ type: 'mine' })")
    site.network.cut()
    site.publish()
    return bool(nth(2) == number and nths(1, 2, 3) == page.received(3).numbers and page.events == [])


def answered(status: HTTPStatus, body: Any = "<h1>no</h1>", content_type: str = HTML, headers: str = "") -> Answer:
    """Return an answer to everything but the files of the page."""
    content = body if isinstance(body, str) else json.dumps(body)
    answer = response(status, content, content_type=content_type, headers=headers)
    return lambda request: answer if request.is_of_the_service else None


# Obstacles that stay.


def only_websockets(content_type: str, body: str) -> Answer:
    """Return the answers of a web server that forwards only ``/ws`` to the service."""

    def answer(request: Request) -> bytes | None:
        is_forwarded = request.path.startswith("/ws") or not request.is_of_the_service
        return None if is_forwarded else response(HTTPStatus.NOT_FOUND, body, content_type=content_type)

    return answer


def short_heads(request: Request) -> bytes | None:
    """Refuse requests whose headers have more than 4 kB."""
    return response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) if len(request.head) > 4_096 else None


def through_network(support: WebSocketSupport) -> Callable[[Site], None]:
    return lambda site: setattr(site.network.faults, "websockets", support)


def through_gateway(answer: Answer) -> Callable[[Site], None]:
    return lambda site: setattr(site.gateway, "answer", answer)


STAYING = {
    "websockets that are refused": (through_network(WebSocketSupport.NONE), "events"),
    "websockets that are never answered": (through_network(WebSocketSupport.HANGING), "events"),
    "removed subprotocols": (through_network(WebSocketSupport.WITHOUT_SUBPROTOCOLS), "websocket"),
    "only /ws is forwarded": (through_gateway(only_websockets(HTML, "<h1>not here</h1>")), "websocket"),
    "only /ws is forwarded by an API": (through_gateway(only_websockets(JSON, '{"detail":"Not Found"}')), "websocket"),
    "a policy without ws:": (lambda site: setattr(site.gateway, "policy", "connect-src http:"), "events"),
}


@pytest.mark.parametrize(("obstruct", "transport"), STAYING.values(), ids=STAYING)
def test_an_obstacle_that_stays_is_passed_in_another_way(
    site: Site, open_page: OpenPage, obstruct: Callable[[Site], None], transport: str
) -> None:
    obstruct(site)
    page = open_page().connect(site.token())

    assert seconds_until_live(page) < LIVE_SECONDS
    assert transport == page.evaluate("stream.transport")
    assert works(page, site)


def test_a_token_that_is_too_large_for_a_header_is_sent_in_a_frame(site: Site, open_page: OpenPage) -> None:
    site.gateway.answer = short_heads
    page = open_page().connect(site.token(topics=tuple(f"rooms.{number:016}" for number in range(150))))

    assert seconds_until_live(page) < LIVE_SECONDS
    assert "websocket" == page.evaluate("stream.transport")


def test_websockets_that_are_never_answered_delay_a_reload_less(site: Site, open_page: OpenPage) -> None:
    site.network.faults.websockets = WebSocketSupport.HANGING
    page = open_page().connect(site.token(), stored=True)
    assert seconds_until_live(page) < LIVE_SECONDS
    site.publish()
    page.received(1)

    page.reload().connect(site.token(), stored=True)
    site.publish()

    assert seconds_until_live(page) < LIVE_SECONDS
    assert nths(2) == page.received(1).numbers


def test_where_only_polling_works_a_page_polls(site: Site, open_page: OpenPage) -> None:
    """Without WebSockets, and behind a proxy that collects an answer before it forwards it."""
    site.network.faults.websockets = WebSocketSupport.NONE
    site.gateway.answer = lambda request: b"" if request.path.startswith("/websocket/events") else None
    page = open_page().connect(site.token())

    assert seconds_until_live(page) < LIVE_SECONDS
    assert "polling" == page.evaluate("stream.transport")
    assert works(page, site)


@each_transport
def test_a_browser_that_claims_to_be_offline_is_not_believed(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry()
    page.evaluate("void Object.defineProperty(navigator, 'onLine', { value: false })")
    page.connect(site.token(), transports=[transport])

    assert seconds_until_live(page) < LIVE_SECONDS
    page.evaluate("void dispatchEvent(new Event('offline'))")
    assert works(page, site)


@each_transport
@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_the_page_may_be_wrong(site: Site, open_page: OpenPage, transport: str, hours: int) -> None:
    page = open_page().hurry()
    page.evaluate(f"((now) => void (Date.now = () => now() + {hours} * 3_600_000))(Date.now)")
    page.connect(site.token(expires_in=600), transports=[transport])

    assert seconds_until_live(page) < LIVE_SECONDS
    assert works(page, site)
    # It would not end with the first of many tokens.
    assert page.evaluate("seen.tokens") <= 3


@each_transport
def test_a_token_whose_time_begins_in_two_seconds_is_accepted(site: Site, open_page: OpenPage, transport: str) -> None:
    """The clock of its issuer is ahead."""
    now = time.time()
    token = jwt.encode(
        {"sub": "alice", "scope": "messages:publish", "nbf": now + 2, "iat": now + 2, "exp": now + 600}, SECRET
    )
    page = open_page().hurry().connect(token, transports=[transport])

    assert seconds_until_live(page) < LIVE_SECONDS
    assert works(page, site)


STORAGES = {"full": ["setItem"], "blocked": ["getItem", "setItem"]}


@pytest.mark.parametrize("methods", STORAGES.values(), ids=STORAGES)
def test_a_storage_that_does_not_work_is_reported_once(site: Site, open_page: OpenPage, methods: list[str]) -> None:
    page = open_page()
    for method in methods:
        page.evaluate(f"void (Storage.prototype.{method} = () => {{ throw new Error('of the storage'); }})")
    page.connect(site.token(), stored=True)

    assert seconds_until_live(page) < LIVE_SECONDS
    assert works(page, site)
    assert 1 >= len(page.evaluate("seen.errors"))


# Obstacles that end.


ANSWERS = {
    "401 of a gateway": answered(HTTPStatus.UNAUTHORIZED, {"detail": "log in"}, JSON),
    "403 of a gateway": answered(HTTPStatus.FORBIDDEN, {"message": "forbidden"}, JSON),
    "403 with a problem": answered(HTTPStatus.FORBIDDEN, REFUSAL, PROBLEM),
    "401 with a problem": answered(HTTPStatus.UNAUTHORIZED, {**REFUSAL, "status": 401}, PROBLEM),
    "404 with a problem": answered(HTTPStatus.NOT_FOUND, {**REFUSAL, "status": 404}, PROBLEM),
    "404 of another application": answered(HTTPStatus.NOT_FOUND, {"detail": "Not Found"}, JSON),
    "429 of a gateway": answered(HTTPStatus.TOO_MANY_REQUESTS, "slow down"),
    "502 of a gateway": answered(HTTPStatus.BAD_GATEWAY, {"message": "upstream"}, JSON),
    "503 for maintenance": answered(HTTPStatus.SERVICE_UNAVAILABLE, headers="Retry-After: 3600\r\n"),
    "a login page": answered(HTTPStatus.OK, "<h1>Log in to the hotel</h1>"),
    "a redirect to a login page": answered(HTTPStatus.FOUND, headers="Location: /page\r\n"),
    "another application": answered(HTTPStatus.OK, {"messages": "of another kind"}, JSON),
}
each_answer = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)


def outlives(page: EnginePage, site: Site, begin: Callable[[], None], end: Callable[[], None]) -> bool:
    """Put an obstacle in the way of a live page for some attempts, and return whether it loses nothing by it."""
    site.publish(2)
    page.received(2)
    begin()
    page.wait_until("stream.status === 'waiting'")
    site.publish(2)
    page.evaluate("void (globalThis.answer = stream.publish({ type: 'mine' }))")
    page.wait_until("seen.pauses.length >= 4")

    end()

    assert seconds_until_live(page) < LIVE_SECONDS
    assert nth(5) == page.evaluate("answer")
    return nths(1, 2, 3, 4, 5) == page.received(5).numbers and page.events == []


def begin_answers(site: Site, answer: Answer) -> None:
    site.gateway.answer = answer
    site.network.cut()


def end_answers(site: Site) -> None:
    site.gateway.answer = lambda _: None


@each_answer
def test_answers_of_others_do_not_end_a_page(site: Site, open_page: OpenPage, answer: Answer) -> None:
    page = open_page().connect(site.token()).live()

    assert outlives(page, site, partial(begin_answers, site, answer), partial(end_answers, site))


@pytest.mark.parametrize("transport", ["events", "polling"])
@pytest.mark.parametrize("name", ["401 of a gateway", "403 of a gateway", "401 with a problem", "403 with a problem"])
def test_refusals_of_others_do_not_end_a_page_that_uses_http(
    site: Site, open_page: OpenPage, name: str, transport: str
) -> None:
    page = open_page().connect(site.token(), transports=[transport]).live()

    assert outlives(page, site, partial(begin_answers, site, ANSWERS[name]), partial(end_answers, site))


@pytest.mark.parametrize("name", ["401 with a problem", "403 with a problem"])
@pytest.mark.parametrize("transports", [TRANSPORTS, ["events"]])
def test_refusals_of_others_end_no_page_also_after_a_minute(
    site: Site, open_page: OpenPage, name: str, transports: list[str]
) -> None:
    page = open_page().hurry().connect(site.token(), transports=transports).live()

    begin_answers(site, ANSWERS[name])
    page.wait_until("seen.pauses.length >= 3")
    page.pass_time(60)
    page.wait_until("seen.pauses.length >= 6")
    end_answers(site)

    assert seconds_until_live(page) < LIVE_SECONDS
    assert [] == page.events


@each_answer
def test_answers_of_others_before_the_first_connection_do_not_end_a_page(
    site: Site, open_page: OpenPage, answer: Answer
) -> None:
    site.gateway.answer = answer
    page = open_page().connect(site.token()).wait_until("seen.pauses.length >= 3")

    end_answers(site)

    assert seconds_until_live(page) < LIVE_SECONDS
    assert works(page, site)


def test_an_outage_of_the_network_is_over_for_a_page_soon_after_its_end(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token()).live()

    assert outlives(page, site, site.cut_off, site.let_in)


@pytest.mark.parametrize("seconds", [4, 10])
def test_an_outage_of_some_seconds_is_over_for_a_page_soon_after_its_end(
    site: Site, open_page: OpenPage, seconds: int
) -> None:
    page = open_page().connect(site.token()).live()

    site.cut_off()
    page.evaluate(f"void (globalThis.over = performance.now() + 1000 * {seconds})")
    site.publish(3)
    page.wait_until("performance.now() > over")
    site.let_in()

    assert seconds_until_live(page) < LIVE_SECONDS
    assert nths(1, 2, 3) == page.received(3).numbers


def test_a_service_that_is_away_behind_its_gateway_is_found_again(site: Site, open_page: OpenPage) -> None:
    page = open_page().connect(site.token()).live()

    site.server.stop()
    page.wait_until("seen.pauses.length >= 4")
    site.server.start()

    assert seconds_until_live(page) < LIVE_SECONDS
    site.publish()
    page.received(1)
    assert ["reset"] == [kind for kind, _ in page.events]


@each_transport
def test_a_login_of_eleven_seconds_is_waited_for(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry()
    page.evaluate("void (globalThis.login = new Promise((resolve) => setTimeout(resolve, 11_000)))")
    page.connect_with(f"login.then(() => {json.dumps(site.token())})", transports=[transport])
    page.evaluate("login")

    assert seconds_until_live(page) < LIVE_SECONDS
    assert 1 == page.evaluate("seen.tokens")
    assert works(page, site)


@each_transport
def test_a_login_that_fails_at_first_is_tried_again(site: Site, open_page: OpenPage, transport: str) -> None:
    tokens: list[str | None] = [None, None, None, site.token()]
    page = open_page().connect(tokens, transports=[transport]).wait_until("seen.tokens >= 3")

    assert seconds_until_live(page) < LIVE_SECONDS
    assert [] == page.events


@each_transport
def test_a_cookie_that_comes_later_is_enough(cookie_site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page(cookie_site.page).connect(None, transports=[transport]).wait_until("seen.pauses.length >= 3")

    page.evaluate("void (document.cookie = 'session=valid')")

    assert seconds_until_live(page) < LIVE_SECONDS
    assert works(page, cookie_site)


@pytest.mark.parametrize("transports", [TRANSPORTS, *([each] for each in TRANSPORTS)], ids=str)
def test_a_page_of_a_sub_domain_with_cookies_outlives_an_outage(
    cookie_site: Site, open_page: OpenPage, transports: list[str]
) -> None:
    page = sub_domain(cookie_site, open_page)
    page.connect(None, url=cookie_site.at("api.shop.localhost"), transports=transports, credentials="include").live()

    assert outlives(page, cookie_site, cookie_site.cut_off, cookie_site.let_in)


def test_a_page_of_a_sub_domain_without_credentials_outlives_an_outage(cookie_site: Site, open_page: OpenPage) -> None:
    """Only WebSockets send its cookies: other transports are refused, which must not end the page."""
    page = sub_domain(cookie_site, open_page)
    page.connect(None, url=cookie_site.at("api.shop.localhost")).live()

    assert outlives(page, cookie_site, cookie_site.cut_off, cookie_site.let_in)


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
