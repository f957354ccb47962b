"""Obstacles that stay, in every engine: 5 seconds after its start a page is live in another way."""

import time
from collections.abc import Callable
from http import HTTPStatus

import pytest
from jose import jwt

from browser.engines.conftest import TRANSPORTS, OpenPage
from browser.engines.gateway import Answer, Request, response
from browser.engines.obstacles import HTML, JSON, LIVE_SECONDS, must_work, nightly, seconds_until_live
from browser.engines.site import Site
from support import nths
from unmissed.lab.proxy import WebSocketSupport
from unmissed.testing import SECRET

pytestmark = [pytest.mark.live, pytest.mark.long]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


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
    must_work(page, site)


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
    must_work(page, site)


@each_transport
def test_a_browser_that_claims_to_be_offline_is_not_believed(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page().hurry()
    page.evaluate("void Object.defineProperty(navigator, 'onLine', { value: false })")
    page.connect(site.token(), transports=[transport])

    assert seconds_until_live(page) < LIVE_SECONDS
    page.evaluate("void dispatchEvent(new Event('offline'))")
    must_work(page, site)


@each_transport
@pytest.mark.parametrize("hours", nightly([1, -1], otherwise=1))
def test_the_clock_of_the_page_may_be_wrong(site: Site, open_page: OpenPage, transport: str, hours: int) -> None:
    page = open_page().hurry()
    page.evaluate(f"((now) => void (Date.now = () => now() + {hours} * 3_600_000))(Date.now)")
    page.connect(site.token(expires_in=600), transports=[transport])

    assert seconds_until_live(page) < LIVE_SECONDS
    must_work(page, site)
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
    must_work(page, site)


STORAGES = {"full": ["setItem"], "blocked": ["getItem", "setItem"]}


@pytest.mark.parametrize("methods", STORAGES.values(), ids=STORAGES)
def test_a_storage_that_does_not_work_is_reported_once(site: Site, open_page: OpenPage, methods: list[str]) -> None:
    page = open_page()
    for method in methods:
        page.evaluate(f"void (Storage.prototype.{method} = () => {{ throw new Error('of the storage'); }})")
    page.connect(site.token(), stored=True)

    assert seconds_until_live(page) < LIVE_SECONDS
    must_work(page, site)
    assert 1 >= len(page.evaluate("seen.errors"))
