"""The throttle on a loop that moves by hand."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from unmissed.delivery.throttle import MAX_PAUSE, Throttle


class Handle:
    """A scheduled callback."""

    def __init__(self, at: float, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.at = at
        self.callback = callback
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """The four things that a throttle needs of an event loop, with a clock that moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.scheduled: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_later(0.0, callback, *arguments)

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle(self.now + delay, callback, arguments)
        self.scheduled.append(handle)
        return handle

    def advance(self, seconds: float) -> None:
        """Move the clock, and run what is due in order."""
        end = self.now + seconds
        while due := [each for each in self.scheduled if not each.cancelled and each.at <= end]:
            first = min(due, key=lambda each: each.at)
            self.scheduled.remove(first)
            self.now = max(self.now, first.at)
            first.callback(*first.arguments)
        self.now = end


class Flushes:
    """A flush that costs time, and when it ran."""

    def __init__(self, loop: ManualLoop, *, seconds: float, slices: int) -> None:
        self.loop = loop
        self.seconds = seconds
        self.slices = slices
        self.at: list[float] = []

    def flush(self) -> None:
        self.at.append(self.loop.now)
        self.loop.now += self.seconds

    def flush_slice(self) -> bool:
        self.flush()
        return len(self.at) % self.slices == 0


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


def throttled(loop: ManualLoop, *, seconds: float, slices: int = 1) -> tuple[Throttle, Flushes]:
    flushes = Flushes(loop, seconds=seconds, slices=slices)
    return Throttle(flushes, loop=cast("Any", loop)), flushes


def test_a_request_is_flushed_at_once(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)

    throttle.request()

    assert [0.0] == flushes.at


def test_requests_during_the_pause_are_one_flush_after_it(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()
    for _ in range(10):
        throttle.request()
    assert [0.0] == flushes.at

    loop.advance(1.0)

    assert 2 == len(flushes.at)


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 0.0), (0.001, 0.001), (0.004, 0.004), (0.1, MAX_PAUSE)])
def test_the_pause_lasts_as_long_as_the_flush_took_and_at_most_5_ms(
    loop: ManualLoop, seconds: float, pause: float
) -> None:
    throttle, flushes = throttled(loop, seconds=seconds)
    throttle.request()
    throttle.request()

    loop.advance(10.0)

    assert 0.005 == MAX_PAUSE
    assert [0.0, pytest.approx(seconds + pause)] == flushes.at


def test_other_callbacks_run_between_two_slices(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001, slices=3)
    others: list[float] = []

    throttle.request()
    loop.call_soon(lambda: others.append(loop.now))
    loop.advance(1.0)

    assert [0.002] == others
    assert [0.0, 0.001, 0.002] == flushes.at


def test_a_request_during_a_flush_in_slices_is_flushed_after_a_pause_as_long_as_the_last_slice(
    loop: ManualLoop,
) -> None:
    throttle, flushes = throttled(loop, seconds=0.001, slices=3)
    throttle.request()
    throttle.request()

    loop.advance(1.0)

    assert [pytest.approx(at / 1_000) for at in (0, 1, 2, 4, 5, 6)] == flushes.at


def test_a_complete_flush_replaces_the_slices_that_are_left(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001, slices=3)
    throttle.request()

    throttle.flush_now()
    loop.advance(1.0)

    assert [0.0, 0.001] == flushes.at


def test_the_pause_includes_what_the_loop_writes_after_the_flush(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()
    throttle.request()
    loop.now += 0.002  # The event loop writes.

    loop.advance(10.0)

    assert [0.0, pytest.approx(0.006)] == flushes.at


def test_without_a_request_nothing_is_flushed_after_the_pause(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()

    loop.advance(10.0)

    assert [0.0] == flushes.at


def test_after_the_pause_a_request_is_flushed_at_once(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()
    loop.advance(1.0)

    throttle.request()

    assert 2 == len(flushes.at)


def test_flush_now_does_not_wait_and_takes_the_requests_with_it(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()
    throttle.request()

    throttle.flush_now()
    loop.advance(10.0)

    assert 2 == len(flushes.at)


def test_a_stopped_throttle_flushes_no_more(loop: ManualLoop) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    throttle.request()
    throttle.request()

    throttle.stop()
    loop.advance(10.0)

    assert [0.0] == flushes.at


def test_a_flush_that_fails_is_logged_and_the_next_request_is_flushed(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    throttle, flushes = throttled(loop, seconds=0.001)
    flush = flushes.flush

    def fail() -> None:
        raise OSError("a flush failed")

    flushes.flush = fail  # type: ignore[method-assign]  # what no flush should do
    throttle.request()
    throttle.request()
    loop.advance(1.0)
    flushes.flush = flush  # type: ignore[method-assign]

    throttle.request()

    assert [1.0] == flushes.at
    assert 2 == caplog.text.count("OSError: a flush failed")
