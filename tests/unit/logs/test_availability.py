"""Whether a part of a log works."""

import logging

import pytest

from unmissed.logs.availability import Availability


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
