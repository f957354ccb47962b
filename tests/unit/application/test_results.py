"""The results of commands, kept within bounds."""

import asyncio

import pytest

from unmissed.application import results
from unmissed.application.results import Results
from unmissed.core.errors import CommandError
from unmissed.testing import ManualClock


class Runs:
    """Counts how often something ran. Each run returns as many bytes as wanted."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, size: int = 1) -> bytes:
        self.count += 1
        return b"x" * size


async def test_a_key_is_forgotten_with_the_retention(clock: ManualClock) -> None:
    kept, runs = Results(max_age=10.0, clock=clock), Runs()

    for seconds in (0.0, 9.0, 1.0, 1.0):
        clock.advance(seconds)
        await kept.once("a", runs.run, fingerprint=b"")

    assert 2 == runs.count


@pytest.mark.parametrize(("limit", "value"), [("MAX_RESULTS", 3), ("MAX_BYTES", 250)])
async def test_the_oldest_results_are_forgotten_over_a_limit(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(results, limit, value)
    kept, runs = Results(max_age=10.0, clock=clock), Runs()
    for key in "abcde":
        await kept.once(key, lambda: runs.run(100), fingerprint=b"")
        await asyncio.sleep(0)

    assert len(kept) <= 3
    await kept.once("e", runs.run, fingerprint=b"")
    assert 5 == runs.count
    await kept.once("a", runs.run, fingerprint=b"")
    assert 6 == runs.count


async def test_another_fingerprint_is_refused(clock: ManualClock) -> None:
    kept, runs = Results(max_age=10.0, clock=clock), Runs()
    await kept.once("a", runs.run, fingerprint=b"1")

    with pytest.raises(CommandError, match="this id was used for another command"):
        await kept.once("a", runs.run, fingerprint=b"2")


async def test_a_run_goes_on_when_its_caller_is_cancelled(clock: ManualClock) -> None:
    kept, may_end, done = Results(max_age=10.0, clock=clock), asyncio.Event(), list[bool]()

    async def run() -> bytes:
        await may_end.wait()
        done.append(True)
        return b"done"

    caller = asyncio.create_task(kept.once("a", run, fingerprint=b""))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    may_end.set()

    assert b"done" == await kept.once("a", run, fingerprint=b"")
    assert [True] == done


async def test_a_run_that_has_not_ended_is_not_forgotten_and_is_cancelled_with_the_others(clock: ManualClock) -> None:
    kept, runs = Results(max_age=10.0, clock=clock), list[int]()

    async def run() -> bytes:
        runs.append(1)
        await asyncio.Event().wait()
        return b""

    callers = [asyncio.create_task(kept.once("a", run, fingerprint=b""))]
    await asyncio.sleep(0)
    clock.advance(100.0)
    callers.append(asyncio.create_task(kept.once("a", run, fingerprint=b"")))
    await asyncio.sleep(0)
    kept.cancel()

    results = await asyncio.gather(*callers, return_exceptions=True)

    assert [1] == runs
    assert [asyncio.CancelledError] * 2 == [type(result) for result in results]
    assert 0 == len(kept)
