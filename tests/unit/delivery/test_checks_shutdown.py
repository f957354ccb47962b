"""How an application knows that its server shuts down."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from support import connect, managed, shape, until
from unmissed import ConnectionManager
from unmissed.framework_names import server_stops
from unmissed.testing import ManualClock


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


@pytest.mark.usefixtures("handler")
async def test_when_the_server_stops_the_connections_are_closed_that_it_would_wait_for_and_no_others(
    manager: ConnectionManager,
) -> None:
    (bounded, _), (unbounded, _) = connect(manager, max_seconds=1_000.0), connect(manager)
    server = Server()
    signal.signal(signal.SIGTERM, server.handle_exit)
    manager.running.check()
    assert None is bounded.closed_with

    server.should_exit = True
    for _ in range(2):
        manager.running.check()

    assert ["connected", "reconnect"] == [kind for kind, _ in shape(bounded)]
    assert (1012, "the server is shutting down: reconnect shortly") == bounded.closed_with
    assert None is unbounded.closed_with
    await manager.emit("still accepted")


@pytest.mark.usefixtures("handler")
async def test_the_periodic_checks_notice_that_the_server_stops(clock: ManualClock) -> None:
    server = Server()
    signal.signal(signal.SIGTERM, server.handle_exit)
    async with managed(clock, heartbeat_seconds=0.02) as manager:
        socket, _ = connect(manager, max_seconds=1_000.0)

        server.should_exit = True

        await until(lambda: socket.closed_with)
        assert (1012, "the server is shutting down: reconnect shortly") == socket.closed_with
