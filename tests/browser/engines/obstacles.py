"""What tests of obstacles share: what other web servers answer, and what a page must do despite it."""

import json
import os
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import pytest

from browser.engines.gateway import Answer, forward, response
from browser.engines.page import EnginePage
from browser.engines.site import Site
from support import nth, nths

Case = TypeVar("Case")

LIVE_SECONDS = 5.0
"""How long after the end of an obstacle, or after its own start, a page may take to be live."""

JSON, PROBLEM, HTML = "application/json", "application/problem+json", "text/html"
_REFUSAL = {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "blocked by policy"}


def seconds_until_live(page: EnginePage) -> float:
    """Wait until the page is live, and return how long this took."""
    began = time.monotonic()
    page.live()
    return time.monotonic() - began


def must_work(page: EnginePage, site: Site) -> None:
    """Let the page receive, publish, and recover over a cut. The log must have been empty."""
    site.publish()
    number = page.received(1).evaluate("stream.publish({ type: 'mine' })")
    site.network.cut()
    site.publish()
    page.received(3)

    assert nth(2) == number
    assert nths(1, 2, 3) == page.numbers
    assert [] == page.events


def must_outlive(page: EnginePage, site: Site, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Put an obstacle in the way of a live page for some attempts. The log must have been empty."""
    site.publish(2)
    page.received(2)
    begin()
    page.wait_until("stream.status === 'waiting'")
    site.publish(2)
    page.evaluate("void (globalThis.answer = stream.publish({ type: 'mine' }))")
    page.wait_until("seen.pauses.length >= 3")

    end()

    assert seconds_until_live(page) < LIVE_SECONDS
    assert nth(5) == page.evaluate("answer")
    assert nths(1, 2, 3, 4, 5) == page.received(5).numbers
    assert [] == page.events


def _answered(status: HTTPStatus, body: Any = "<h1>no</h1>", content_type: str = HTML, headers: str = "") -> Answer:
    """Return an answer to everything but the files of the page."""
    content = body if isinstance(body, str) else json.dumps(body)
    answer = response(status, content, content_type=content_type, headers=headers)
    return lambda request: answer if request.is_of_the_service else None


ANSWERS = {
    "401 with a problem": _answered(HTTPStatus.UNAUTHORIZED, {**_REFUSAL, "status": 401}, PROBLEM),
    "403 of a gateway": _answered(HTTPStatus.FORBIDDEN, {"message": "forbidden"}, JSON),
    "404 of another application": _answered(HTTPStatus.NOT_FOUND, {"detail": "Not Found"}, JSON),
    "502 of a gateway": _answered(HTTPStatus.BAD_GATEWAY, {"message": "upstream"}, JSON),
    "a login page": _answered(HTTPStatus.OK, "<h1>Log in to the hotel</h1>"),
    "another application": _answered(HTTPStatus.OK, {"messages": "of another kind"}, JSON),
    "401 of a gateway": _answered(HTTPStatus.UNAUTHORIZED, {"detail": "log in"}, JSON),
    "403 with a problem": _answered(HTTPStatus.FORBIDDEN, _REFUSAL, PROBLEM),
    "404 with a problem": _answered(HTTPStatus.NOT_FOUND, {**_REFUSAL, "status": 404}, PROBLEM),
    "429 of a gateway": _answered(HTTPStatus.TOO_MANY_REQUESTS, "slow down"),
    "503 for maintenance": _answered(HTTPStatus.SERVICE_UNAVAILABLE, headers="Retry-After: 3600\r\n"),
    "a redirect to a login page": _answered(HTTPStatus.FOUND, headers="Location: /page\r\n"),
}


def nightly(cases: Sequence[Case], *, otherwise: int) -> list[Case]:
    """Return all cases if ``EVERY_CASE`` is set, as it is nightly, and the first ones otherwise."""
    return list(cases if os.environ.get("EVERY_CASE") else cases[:otherwise])


each_answer = pytest.mark.parametrize("name", nightly([*ANSWERS], otherwise=6))


def begin_answers(site: Site, answer: Answer) -> None:
    """Let the gateway answer in place of the service."""
    site.gateway.answer = answer
    site.network.cut()


def end_answers(site: Site) -> None:
    site.gateway.answer = forward
