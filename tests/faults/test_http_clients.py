"""Rows 19 and 21: an HTTP client that is slow, silent or greedy is closed, and delays nobody."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from raw_client import RawClient, authorization
from support import SOCKETS, native_only
from unmissed import ConnectionManager, Settings, create_router
from unmissed.testing import SECRET, LiveServer

POST = b"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n%b\r\n\r\n"
GET = b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every deadline."""
    for name, seconds in (("HEAD", 0.2), ("BODY", 0.2), ("LINGER", 0.2), ("_TICK", 0.05)):
        monkeypatch.setattr(f"unmissed.server.deadlines.{name}_SECONDS", seconds)
    monkeypatch.setattr("unmissed.server.arriving.HEAD_SECONDS", 0.2)


def post(server: LiveServer, *fields: str) -> bytes:
    return POST % "\r\n".join([authorization(server), *fields]).encode()


@native_only
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "sent", [pytest.param(b"", id="nothing"), pytest.param(b"GET /livez HTTP/1.1\r\nHo", id="half a head")]
)
def test_a_client_that_does_not_complete_its_first_head_is_closed(server: LiveServer, sent: bytes) -> None:
    with RawClient(server.url) as client:
        client.send(sent)

        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
def test_a_client_that_trickles_its_head_is_closed(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        client.send_until_answered(b"x", seconds_between=0.02)

        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
def test_half_a_second_request_is_closed(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(GET % b"/livez" + b"GET /livez HT")

        assert (200, b'{"status":"alive"}') == client.answer()
        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("sent", [b"", b"{"], ids=["no body", "half a body"])
def test_a_body_that_stays_away_is_closed(server: LiveServer, sent: bytes) -> None:
    with RawClient(server.url) as client:
        client.send(post(server, "Content-Length: 1000") + sent)

        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
def test_a_body_that_trickles_is_closed(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(post(server, "Content-Length: 1000"))
        client.send_until_answered(b" ", seconds_between=0.02)

        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
def test_a_body_that_arrives_at_a_fair_speed_is_read_whatever_its_length(server: LiveServer) -> None:
    """A fair speed is 1 kB a second, which is more time than the 200 ms that a body has at first."""
    with RawClient(server.url) as client:
        client.send(post(server, "Content-Length: 10028") + b'{"type":"slow","data":"')
        for _ in range(100):
            client.send(b"x" * 100)
            time.sleep(0.01)
        client.send(b'"}   ')

        assert 201 == client.answer()[0]


@native_only
def test_trailers_without_end_are_refused(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(post(server, "Transfer-Encoding: chunked") + b"1\r\n{\r\n0\r\n")

        assert client.send_without_reading(b"X-Line: aaaaaaaaaaaaaaaaa\r\n" * 100, total=20_000_000) < 20_000_000


@native_only
def test_line_breaks_without_end_after_an_answer_are_refused(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(GET % b"/livez")
        assert 200 == client.answer()[0]

        assert client.send_without_reading(b"\r\n" * 500, total=20_000_000) < 20_000_000


@native_only
@pytest.mark.usefixtures("hurried")
def test_an_answer_before_the_end_of_the_body_is_read_by_the_client_and_then_closed(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(POST % b"Content-Length: 1000000" + b"x" * 10_000)

        assert 401 == client.answer()[0]
        assert b"" == client.rest()


@native_only
@pytest.mark.usefixtures("hurried")
def test_a_client_that_goes_on_with_the_body_of_an_answered_request_is_closed(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(POST % b"Content-Length: 1000000000")

        assert client.send_without_reading(b"x" * 10_000, total=100_000_000) < 100_000_000


# What an application sees


@dataclass
class Recorder:
    """An application that answers ``/number/<n>`` with ``<n>``, and ``/endless`` without end."""

    order: list[int] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        number = int(scope["path"].rpartition("/")[2])
        self.order.append(number)
        await send({"type": "http.response.body", "body": b"%06d" % number})

    async def endless(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI passes it
        await send({"type": "http.response.start", "status": 200})
        sending = asyncio.create_task(self._send_forever(send))
        while (await receive())["type"] != "http.disconnect":
            pass
        sending.cancel()
        self.left.set()

    async def _send_forever(self, send: Send) -> None:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def recorded(recorder: Recorder) -> Iterator[LiveServer]:
    """Serve the recorder, to clients that must read their answers within a second."""
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET, stall_seconds=1))
    app = FastAPI(lifespan=manager.lifespan)
    app.mount("/number", recorder)
    app.mount("/endless", recorder.endless)
    with LiveServer(app, manager=manager, **SOCKETS["native"]) as server:
        yield server


def test_an_answer_that_is_never_read_is_aborted(
    recorded: LiveServer, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmissed.server.deadlines._TICK_SECONDS", 0.05)
    with RawClient(recorded.url, receive_buffer=4_096) as client:
        client.send(GET % b"/endless/")

        assert recorder.left.wait(20)


@pytest.mark.long
def test_an_application_with_its_own_lifespan_has_the_stall_time_of_its_router(recorder: Recorder) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET, stall_seconds=1))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with manager:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(create_router(manager))
    app.mount("/endless", recorder.endless)
    with (
        LiveServer(app, manager=manager, **SOCKETS["native"]) as server,
        RawClient(server.url, receive_buffer=4_096) as client,
    ):
        client.send(GET % b"/endless/")

        assert recorder.left.wait(20)


def test_an_answer_that_is_read_slowly_is_not_aborted(recorded: LiveServer, recorder: Recorder) -> None:
    with RawClient(recorded.url, receive_buffer=4_096) as client:
        client.send(GET % b"/endless/")
        for _ in range(100):
            client.exactly(40_000)
            time.sleep(0.02)

        assert not recorder.left.is_set()


def test_pipelined_requests_are_answered_in_order_and_let_others_in(recorded: LiveServer, recorder: Recorder) -> None:
    """The server's event loop is blocked until everything is sent, so its own order decides and no thread's luck."""
    count = 1_000
    blocked, sent = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        sent.wait(20)

    blocking = threading.Thread(target=recorded.call, args=[block])
    with RawClient(recorded.url) as pipelining, RawClient(recorded.url) as other:
        blocking.start()
        blocked.wait(20)
        pipelining.send(b"".join(GET % b"/number/%d" % number for number in range(1, count + 1)))
        other.send(GET % b"/number/0")
        sent.set()
        answers = [int(pipelining.answer()[1]) for _ in range(count)]
        assert (200, b"000000") == other.answer()
        blocking.join()

    assert list(range(1, count + 1)) == answers
    assert recorder.order.index(0) < recorder.order.index(count)
