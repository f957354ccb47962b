"""The periodic checks: one that fails is reported, and ends no other."""

import asyncio
import logging

import pytest

from support import ManualLog, connect, managed, nth, shape, until
from unmissed.core.errors import NODE_FAILS
from unmissed.testing import ManualClock


class FailingLog(ManualLog):
    """A log of an application whose ``expire`` raises while a test says so."""

    error: Exception | None = None
    failures = 0

    def expire(self) -> None:
        if self.error is not None:
            self.failures += 1
            raise self.error
        super().expire()


async def test_a_check_that_fails_is_a_problem_that_is_logged_once_and_ends_no_other(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = FailingLog(clock)
    async with managed(clock, log=log, heartbeat_seconds=0.02) as manager:
        socket, _ = connect(manager)
        log.error = OSError("the log of an application failed")
        await until(lambda: log.failures > 3)
        problem, detailed = manager.running.problem, manager.running.detailed_problem
        heartbeats = shape(socket).count(("heartbeat", nth(0)))
        clock.advance(1)
        await until(lambda: shape(socket).count(("heartbeat", nth(0))) > heartbeats)
        log.error = None
        await until(lambda: manager.running.problem is None)

    assert NODE_FAILS == problem
    assert "the periodic checks fail: OSError('the log of an application failed')" == detailed
    assert 1 == sum(record.levelno == logging.ERROR for record in caplog.records)
    assert 1 == caplog.text.count("the periodic checks work again")


async def test_checks_end_with_their_manager_also_while_they_fail(clock: ManualClock) -> None:
    log = FailingLog(clock)
    async with managed(clock, log=log, heartbeat_seconds=0.02):
        log.error = OSError("the log of an application failed")
        await until(lambda: log.failures)

    assert 1 == len(asyncio.all_tasks())
