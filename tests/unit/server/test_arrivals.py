"""The queue of new connections, and which endpoints admit handshakes themselves."""

import asyncio
from typing import Any, cast

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import ServerState

from unmissed.main import ServedApplication, create_app
from unmissed.server.arrivals import HANDSHAKES_PER_TURN, Arrivals
from unmissed.server.uvicorn_names import Config
from unmissed.testing import SECRET


class FakeTransport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class Newcomer:
    """A connection that writes down when its turn comes."""

    def __init__(self, arrived: list[int], number: int, *, broken: bool = False) -> None:
        self.transport = cast("Any", FakeTransport())
        self._arrived = arrived
        self._number = number
        self._broken = broken

    def arrive(self) -> None:
        if self._broken:
            raise ValueError("broken on purpose")
        self._arrived.append(self._number)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve nothing."""


def admit(scope: Any, open_socket: Any) -> bool:  # noqa: ARG001  # the signature of an Admission
    return True


def arrivals(application: Any = app, **options: Any) -> Arrivals:
    config = Config(application, log_config=None, **options)
    config.load()
    return Arrivals(config, asyncio.get_running_loop())


async def test_a_few_handshakes_are_answered_in_each_turn_in_their_order() -> None:
    queue, arrived = arrivals(), list[int]()
    for number in range(2 * HANDSHAKES_PER_TURN + 3):
        queue.wait(Newcomer(arrived, number))

    after_turns = []
    for _ in range(4):
        await asyncio.sleep(0)
        after_turns.append(len(arrived))

    assert [8, 16, 19, 19] == after_turns
    assert sorted(arrived) == arrived


async def test_a_broken_handshake_is_ended_and_the_others_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    queue, arrived = arrivals(), list[int]()
    broken = Newcomer(arrived, 0, broken=True)
    for newcomer in (broken, Newcomer(arrived, 1)):
        queue.wait(newcomer)

    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [1] == arrived
    assert broken.transport.aborted
    assert "unexpected error in its handshake" in caplog.text


async def test_connections_of_one_server_share_a_queue() -> None:
    one, other, loop = ServerState(), ServerState(), asyncio.get_running_loop()
    config = Config(app, log_config=None)

    assert Arrivals.of(one, config, loop) is Arrivals.of(one, config, loop)
    assert Arrivals.of(one, config, loop) is not Arrivals.of(other, config, loop)


async def test_an_endpoint_is_remembered_for_the_path_that_led_to_it() -> None:
    known = arrivals()

    known.learn("/ws", app, admit)

    assert known.admission("/ws") is admit
    assert known.admission("/other") is None


@pytest.mark.parametrize("proxy_headers", [True, False])
async def test_an_application_behind_another_one_is_not_remembered(*, proxy_headers: bool) -> None:
    known = arrivals(ProxyHeadersMiddleware(cast("Any", app)), proxy_headers=proxy_headers)

    known.learn("/ws", app, admit)

    assert (known.admission("/ws") is None) == proxy_headers


async def test_the_application_of_the_environment_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    application = ServedApplication(create_app)
    known = arrivals(application)

    known.learn("/ws", application.unmissed_application, admit)

    assert known.admission("/ws") is admit


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "203.0.113.7"), ({"forwarded_allow_ips": "10.0.0.1"}, "127.0.0.1"), ({"proxy_headers": False}, "127.0.0.1")],
)
async def test_the_address_is_the_forwarded_one_if_the_proxy_is_trusted(options: Any, expected: str) -> None:
    scope = {"type": "websocket", "client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"203.0.113.7")]}

    arrivals(**options).apply_proxy_headers(scope)

    assert expected == cast("Any", scope["client"])[0]
