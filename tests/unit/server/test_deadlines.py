"""The deadlines of an HTTP connection, on an event loop whose time moves by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from unmissed.server.deadlines import Deadlines

STALL_SECONDS = 30.0


@dataclass(eq=False)
class Timer:
    """A call at a moment."""

    at: float
    call: Callable[[], None]
    timers: list["Timer"]

    def cancel(self) -> None:
        if self in self.timers:
            self.timers.remove(self)


class Loop:
    """As much of an event loop as a timer needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        assert delay > 0, "a timer that is due at once would keep the event loop busy"
        self.timers.append(Timer(self.now + delay, call, self.timers))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda each: each.at)
            timer.cancel()
            self.now = timer.at
            timer.call()
        self.now = end


class Transport:
    """As much of a transport as a timer needs."""

    def __init__(self) -> None:
        self.unsent = 0
        self.ended: str | None = None

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Flow:
    read_paused = False


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def deadlines(loop: Loop, transport: Transport, flow: Flow) -> Deadlines:
    return Deadlines(cast("Any", loop), cast("Any", transport), flow=flow, stall_seconds=STALL_SECONDS)


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        pytest.param(Deadlines.expect_head, 10, id="head"),
        pytest.param(Deadlines.expect_body, 20, id="body"),
        pytest.param(Deadlines.linger, 2, id="rest of an answered body"),
    ],
)
def test_a_deadline_closes_when_its_time_is_over_and_not_before(
    deadlines: Deadlines, loop: Loop, transport: Transport, start: Callable[[Deadlines], None], seconds: float
) -> None:
    start(deadlines)
    loop.advance(seconds - 0.1)
    assert None is transport.ended

    loop.advance(0.2)

    assert "closed" == transport.ended


def test_an_application_may_take_any_time(deadlines: Deadlines, loop: Loop, transport: Transport) -> None:
    deadlines.expect_head()
    deadlines.expect_body()
    deadlines.expect_nothing()

    loop.advance(3_600)

    assert None is transport.ended


def test_each_kilobyte_of_a_body_gives_a_second(deadlines: Deadlines, loop: Loop, transport: Transport) -> None:
    deadlines.expect_body()
    for _ in range(60):
        deadlines.received_body(1_000)
        loop.advance(1)
    assert None is transport.ended

    loop.advance(21)

    assert "closed" == transport.ended


def test_time_does_not_count_while_this_side_does_not_read(
    deadlines: Deadlines, loop: Loop, transport: Transport, flow: Flow
) -> None:
    deadlines.expect_body()
    flow.read_paused = True
    loop.advance(300)
    assert None is transport.ended

    flow.read_paused = False
    loop.advance(26)

    assert "closed" == transport.ended


def test_an_answer_of_which_nothing_is_read_is_aborted(deadlines: Deadlines, loop: Loop, transport: Transport) -> None:
    deadlines.expect_nothing()
    transport.unsent = 1_000
    loop.advance(STALL_SECONDS - 1)
    assert None is transport.ended

    # The timer looks every five seconds, and first has to see the answer.
    loop.advance(11)

    assert "aborted" == transport.ended


def test_an_answer_of_which_something_is_read_is_kept(deadlines: Deadlines, loop: Loop, transport: Transport) -> None:
    deadlines.expect_nothing()
    for unsent in range(10, 0, -1):
        transport.unsent = unsent
        loop.advance(STALL_SECONDS - 6)

    assert None is transport.ended


@pytest.mark.parametrize("start", [Deadlines.expect_head, Deadlines.expect_body], ids=["head", "body"])
def test_a_shutdown_leaves_a_slow_client_two_seconds(
    deadlines: Deadlines, loop: Loop, transport: Transport, start: Callable[[Deadlines], None]
) -> None:
    start(deadlines)
    deadlines.hurry()
    loop.advance(1.9)
    assert None is transport.ended

    loop.advance(0.2)

    assert "closed" == transport.ended


def test_a_shutdown_leaves_a_client_that_does_not_read_about_two_seconds(
    deadlines: Deadlines, loop: Loop, transport: Transport
) -> None:
    deadlines.expect_nothing()
    transport.unsent = 1_000
    deadlines.hurry()

    loop.advance(3)

    assert "aborted" == transport.ended


def test_no_timer_is_left_after_the_end(deadlines: Deadlines, loop: Loop) -> None:
    deadlines.expect_head()

    deadlines.stop()

    assert [] == loop.timers
