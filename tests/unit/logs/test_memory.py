"""The memory log: first numbers, ages, and one process only."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import FIRST, nth, nths
from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome, Window
from unmissed.logs.memory import MemoryLog
from unmissed.testing import ManualClock


async def opened(**options: Any) -> tuple[MemoryLog, Window]:
    log = MemoryLog(**{"first_number": FIRST, **options})
    return log, await log.open()


def drafts(count: int) -> list[Draft]:
    return [Draft.of({"type": "chat", "data": number}, max_bytes=1_000) for number in range(count)]


async def test_the_first_number_is_the_start_on_the_wall_clock_in_microseconds_plus_one() -> None:
    log, window = await opened(first_number=None, wall_clock=ManualClock(1_795_409_482.123468))

    publication = await log.publish(drafts(2))

    assert 1_795_409_482_123_468 == window.first_number - 1 == window.evicted_through
    assert [1_795_409_482_123_469, 1_795_409_482_123_470] == [each.sequence_number for each in publication.messages]


async def test_the_first_number_may_be_given() -> None:
    log, _ = await opened(first_number=nth(41))

    assert nths(41, 42) == [each.sequence_number for each in (await log.publish(drafts(2))).messages]


@pytest.mark.parametrize("step", [3_600.0, 0.0, -3_600.0])
@pytest.mark.parametrize("first_number", [None, FIRST])
async def test_no_number_is_used_in_two_lives_whatever_the_wall_clock_does(
    step: float, first_number: int | None
) -> None:
    wall_clock = ManualClock(1_795_409_482.0)
    log, first_life = await opened(first_number=first_number, wall_clock=wall_clock)
    await log.publish(drafts(3))
    await log.close()
    wall_clock.advance(step)

    second_life = await log.open()
    await log.publish(drafts(50))

    assert second_life.first_number > first_life.latest + 1
    for position in range(first_life.first_number, first_life.latest + 1):
        assert Outcome.RESET is second_life.locate(position).outcome


async def test_a_batch_has_one_timestamp_of_the_wall_clock_and_one_age_of_the_other() -> None:
    log, _window = await opened(clock=ManualClock(5.0), wall_clock=ManualClock(1_769_860_800.0))

    publication = await log.publish(drafts(2))

    assert [message.timestamp for message in publication.messages] == ["2026-01-31T12:00:00.000Z"] * 2
    assert [5.0, 5.0] == [message.appended_at for message in publication.messages]
    assert "2026-01-31T12:00:00.000Z" == publication.receipt.timestamp


async def test_a_key_is_forgotten_after_max_age() -> None:
    clock = ManualClock()
    log, _window = await opened(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(1), idempotency_key="key")
    clock.advance(11.25)

    again = await log.publish(drafts(1), idempotency_key="key")

    assert nth(2) == again.receipt.first
    assert not again.repeated


async def test_a_key_is_known_until_just_before_max_age() -> None:
    clock = ManualClock()
    log, _window = await opened(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(1), idempotency_key="key")
    clock.advance(9.999)

    again = await log.publish(drafts(1), idempotency_key="key")

    assert again.repeated


async def test_a_first_answer_outlives_the_eviction_of_its_messages() -> None:
    log, _window = await opened(retention=Retention(max_messages=1))
    first = await log.publish(drafts(1), idempotency_key="key")
    await log.publish(drafts(5))

    again = await log.publish(drafts(1), idempotency_key="key")

    assert first.receipt == again.receipt


async def test_expiry_lets_go_of_what_is_too_old() -> None:
    clock = ManualClock()
    log, window = await opened(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(2), idempotency_key="key")
    clock.advance(10.0)

    log.expire()

    assert 0 == len(window)
    assert nth(2) == window.evicted_through


@given(wall_jumps=st.lists(st.sampled_from([-3_600.0, 0.0, 3_600.0]), max_size=5))
async def test_the_wall_clock_changes_nothing_but_timestamps(wall_jumps: list[float]) -> None:
    wall_clock = ManualClock(1_769_860_800.0)
    log, window = await opened(retention=Retention(max_age=10.0), clock=ManualClock(), wall_clock=wall_clock)
    for jump in wall_jumps:
        wall_clock.advance(jump)
        await log.publish(drafts(1))
        log.expire()

    assert nth(len(wall_jumps)) == nth(len(window)) == window.latest


async def test_a_restart_begins_another_life_with_nothing_in_it() -> None:
    log, first_life = await opened()
    await log.publish(drafts(3), idempotency_key="key")
    await log.close()

    second_life = await log.open()
    again = await log.publish(drafts(1), idempotency_key="key")

    assert first_life.epoch != second_life.epoch
    assert second_life.first_number == again.receipt.first
    assert not again.repeated
    assert 1 == len(second_life)


async def test_a_log_does_not_open_in_one_of_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/venv/bin/uvicorn", "shop:app", "--workers", "4"])

    with pytest.raises(ConfigurationError, match="run one worker"):
        await MemoryLog().open()
