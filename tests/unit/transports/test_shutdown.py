"""How an application knows that its server shuts down."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from unmissed.transports.shutdown import server_stops


class Server:
    """A server that handles signals as uvicorn does."""

    should_exit = False

    def handle_exit(self, number: int, frame: FrameType | None) -> None: ...


@pytest.fixture
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handler")
def test_a_server_stops_when_its_signal_handler_says_so() -> None:
    server = Server()
    signal.signal(signal.SIGTERM, server.handle_exit)
    before = server_stops()

    server.should_exit = True

    assert (False, True) == (before, server_stops())


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("other", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_other_handlers_say_nothing(other: signal.Handlers) -> None:
    signal.signal(signal.SIGTERM, other)

    assert not server_stops()
