"""The pauses between attempts, and what is known to fail."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.retrying import Availability, Backoff


def test_the_longest_pause_doubles_with_each_failure_up_to_the_most() -> None:
    backoff = Backoff(first=0.25, most=1.5)

    assert [0.25, 0.5, 1.0, 1.5, 1.5] == [backoff.failed(1.0) for _ in range(5)]


def test_a_pause_is_a_fraction_of_the_longest() -> None:
    backoff = Backoff(first=0.25, most=1.5)

    assert [0.0, 0.25, 0.75] == [backoff.failed(fraction) for fraction in (0.0, 0.5, 0.75)]


def test_pauses_are_short_again_after_a_success() -> None:
    backoff = Backoff(first=0.25, most=1.5)
    for _ in range(5):
        backoff.failed(1.0)

    backoff.succeeded()

    assert 0.25 == backoff.failed(1.0)


def test_it_is_failing_from_a_failure_to_the_next_success() -> None:
    backoff = Backoff(first=0.25, most=1.5)
    failing = [backoff.failing]
    backoff.failed(0.5)
    failing.append(backoff.failing)
    backoff.succeeded()
    failing.append(backoff.failing)

    assert [False, True, False] == failing


def test_any_number_of_failures_is_counted_without_an_overflow() -> None:
    backoff = Backoff(first=0.25, most=1.5)

    assert {1.5} == {backoff.failed(1.0) for _ in range(5_000)} - {0.25, 0.5, 1.0}


@given(fractions=st.lists(st.floats(0, 1), max_size=40))
def test_no_pause_is_longer_than_the_most(fractions: list[float]) -> None:
    backoff = Backoff(first=0.05, most=1.0)

    assert all(0.0 <= backoff.failed(fraction) <= 1.0 for fraction in fractions)


def test_a_part_works_until_it_fails_and_after_it_succeeds() -> None:
    availability = Availability("written")
    reasons = [availability.reason]
    availability.failed("no answer")
    reasons.append(availability.reason)
    availability.failed("out of memory")
    reasons.append(availability.reason)
    availability.succeeded()
    reasons.append(availability.reason)

    assert [None, "no answer", "out of memory", None] == reasons


def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    availability = Availability("read")

    for reason in ("no answer", "no answer", "out of memory", None, None, "no answer"):
        if reason is None:
            availability.succeeded()
        else:
            availability.failed(reason)

    assert [
        (logging.ERROR, "the log cannot be read: no answer"),
        (logging.WARNING, "the log can be read again"),
        (logging.ERROR, "the log cannot be read: no answer"),
    ] == [(record.levelno, record.message) for record in caplog.records]


def test_a_part_that_never_failed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    Availability("read").succeeded()

    assert "" == caplog.text


def test_the_next_attempt_is_within_a_second_however_often_it_failed() -> None:
    availability = Availability("read")

    pauses = [availability.failed("no answer") for _ in range(200)]

    assert all(0.0 <= pause <= 1.0 for pause in pauses)
    assert pauses[0] <= 0.05


def test_the_attempt_after_a_success_is_soon_again() -> None:
    availability = Availability("read")
    for _ in range(50):
        availability.failed("no answer")

    availability.succeeded()

    assert availability.failed("no answer") <= 0.05
