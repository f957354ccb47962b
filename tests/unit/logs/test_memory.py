"""The memory log: numbers, first answers, epochs, and one process only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft
from unmissed.core.window import Retention
from unmissed.logs.memory import MemoryLog, refuse_several_workers
from unmissed.testing import ManualClock


def drafts(count: int) -> list[Draft]:
    return [Draft.of({"type": "chat", "data": number}, max_bytes=1_000) for number in range(count)]


async def test_numbers_start_at_one() -> None:
    publication = await MemoryLog().publish(drafts(1))

    assert [1] == [message.sequence_number for message in publication.messages]


async def test_a_batch_gets_contiguous_numbers_and_one_receipt() -> None:
    log = MemoryLog()
    await log.publish(drafts(2))

    publication = await log.publish(drafts(3))

    assert [3, 4, 5] == [message.sequence_number for message in publication.messages]
    assert [0, 1, 2] == [message.as_dict()["data"] for message in publication.messages]
    assert (3, 3, log.epoch) == (publication.receipt.first, publication.receipt.count, publication.receipt.epoch)
    assert not publication.repeated


async def test_what_is_published_is_in_the_window() -> None:
    log = MemoryLog()

    publication = await log.publish(drafts(3))

    assert publication.messages == log.window.since(0, now=0.0).messages


async def test_a_batch_has_one_timestamp_of_the_wall_clock_and_one_age_of_the_other() -> None:
    log = MemoryLog(clock=ManualClock(5.0), wall_clock=ManualClock(1_769_860_800.0))

    publication = await log.publish(drafts(2))

    assert [message.timestamp for message in publication.messages] == ["2026-01-31T12:00:00.000Z"] * 2
    assert [5.0, 5.0] == [message.appended_at for message in publication.messages]
    assert "2026-01-31T12:00:00.000Z" == publication.receipt.timestamp


async def test_the_log_tells_of_every_growth_once() -> None:
    grown: list[int] = []
    log = MemoryLog()
    await log.start(appended=lambda: grown.append(log.window.latest))

    await log.publish(drafts(3), idempotency_key="key")
    await log.publish(drafts(3), idempotency_key="key")
    await log.publish(drafts(1))

    assert [3, 4] == grown


async def test_a_known_key_gets_the_first_receipt_and_publishes_nothing() -> None:
    log = MemoryLog()
    first = await log.publish(drafts(2), idempotency_key="key")
    await log.publish(drafts(1), idempotency_key="another")

    again = await log.publish(drafts(1), idempotency_key="key")

    assert first.receipt == again.receipt
    assert () == again.messages
    assert again.repeated
    assert 3 == log.window.latest


async def test_without_a_key_the_same_message_is_published_twice() -> None:
    log = MemoryLog()
    await log.publish(drafts(1))
    await log.publish(drafts(1))

    assert 2 == log.window.latest


async def test_a_key_is_forgotten_after_max_age() -> None:
    clock = ManualClock()
    log = MemoryLog(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(1), idempotency_key="key")
    clock.advance(10.0)

    again = await log.publish(drafts(1), idempotency_key="key")

    assert 2 == again.receipt.first
    assert not again.repeated


async def test_a_key_is_known_until_just_before_max_age() -> None:
    clock = ManualClock()
    log = MemoryLog(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(1), idempotency_key="key")
    clock.advance(9.999)

    again = await log.publish(drafts(1), idempotency_key="key")

    assert again.repeated


async def test_a_first_answer_outlives_the_eviction_of_its_messages() -> None:
    log = MemoryLog(retention=Retention(max_messages=1))
    first = await log.publish(drafts(1), idempotency_key="key")
    await log.publish(drafts(5))

    again = await log.publish(drafts(1), idempotency_key="key")

    assert first.receipt == again.receipt


async def test_expiry_lets_go_of_what_is_too_old() -> None:
    clock = ManualClock()
    log = MemoryLog(retention=Retention(max_age=10.0), clock=clock)
    await log.publish(drafts(2), idempotency_key="key")
    clock.advance(10.0)

    log.expire()

    assert 0 == len(log.window)
    assert 2 == log.window.evicted_through


@given(wall_jumps=st.lists(st.sampled_from([-3_600.0, 0.0, 3_600.0]), max_size=5))
async def test_the_wall_clock_changes_nothing_but_timestamps(wall_jumps: list[float]) -> None:
    wall_clock = ManualClock(1_769_860_800.0)
    log = MemoryLog(retention=Retention(max_age=10.0), clock=ManualClock(), wall_clock=wall_clock)
    for jump in wall_jumps:
        wall_clock.advance(jump)
        await log.publish(drafts(1))
        log.expire()

    assert len(wall_jumps) == len(log.window) == log.window.latest


async def test_a_restart_begins_another_epoch_with_nothing_in_it() -> None:
    log = MemoryLog()
    await log.start(appended=lambda: None)
    first_epoch = log.epoch
    await log.publish(drafts(3), idempotency_key="key")
    await log.stop()

    await log.start(appended=lambda: None)
    again = await log.publish(drafts(1), idempotency_key="key")

    assert first_epoch != log.epoch
    assert 1 == again.receipt.first
    assert not again.repeated


async def test_a_stopped_log_is_in_another_epoch_already() -> None:
    log = MemoryLog()
    await log.start(appended=lambda: None)
    first_epoch = log.epoch
    await log.publish(drafts(1))

    await log.stop()

    assert first_epoch != log.epoch
    assert 0 == log.window.latest


async def test_a_stopped_log_tells_nobody_of_growth() -> None:
    grown: list[int] = []
    log = MemoryLog()
    await log.start(appended=lambda: grown.append(1))
    await log.stop()

    await log.publish(drafts(1))

    assert [] == grown


async def test_a_log_does_not_start_in_one_of_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/venv/bin/uvicorn", "shop:app", "--workers", "4"])

    with pytest.raises(ConfigurationError, match="run one worker"):
        await MemoryLog().start(appended=lambda: None)


@pytest.mark.parametrize(
    "command_line",
    [
        "uvicorn shop:app --workers 4",
        "/venv/bin/uvicorn --workers=2 shop:app",
        "/venv/lib/python3.11/site-packages/uvicorn/__main__.py shop:app --workers 2",
        "gunicorn -w 4 shop:app",
        "gunicorn -w4 shop:app",
        "/venv/bin/gunicorn shop:app --workers=4 -k uvicorn.workers.UvicornWorker",
        "gunicorn -k uvicorn.workers.UvicornWorker shop:app -w 2",
        "hypercorn shop:app --workers 2",
        "/venv/bin/fastapi run shop.py --workers 4",
    ],
)
def test_a_command_line_with_several_workers_is_refused_with_its_fix(command_line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        refuse_several_workers(command_line.split(), {})

    assert "run one worker (uvicorn --workers 1) and unset WEB_CONCURRENCY" in str(refused.value)


@pytest.mark.parametrize("command_line", ["uvicorn shop:app", "unmissed serve", "python"])
def test_web_concurrency_above_one_is_refused(command_line: str) -> None:
    with pytest.raises(ConfigurationError, match="unset WEB_CONCURRENCY"):
        refuse_several_workers(command_line.split(), {"WEB_CONCURRENCY": "2"})


@pytest.mark.parametrize("options", ["--workers 4", "--workers=4", "-w 4", "-w4"])
def test_workers_in_the_variable_of_gunicorn_are_refused(options: str) -> None:
    """Gunicorn reads options from there as if they were on its command line."""
    with pytest.raises(ConfigurationError, match="run one worker"):
        refuse_several_workers(["gunicorn", "shop:app"], {"GUNICORN_CMD_ARGS": options})


@pytest.mark.parametrize(
    "command_line",
    [
        "uvicorn shop:app",
        "uvicorn shop:app --workers 1",
        "uvicorn shop:app --workers=1",
        "uvicorn shop:app --workers",
        "gunicorn -w 1 shop:app",
        "gunicorn -k uvicorn.workers.UvicornWorker shop:app",
        "train.py --workers 4",
        "/home/me/train.py -w 8",
        "/srv/fastapi-shop/train.py --workers 4",
        "pytest -n 4",
        "unmissed serve",
        "-c",
    ],
)
def test_one_worker_and_the_workers_of_other_programs_are_fine(command_line: str) -> None:
    refuse_several_workers(command_line.split(), {})


def test_an_interpreter_without_a_command_line_is_fine() -> None:
    refuse_several_workers([""], {})


@pytest.mark.parametrize("count", ["1", "", "auto", "0"])
def test_web_concurrency_that_asks_for_no_more_than_one_is_fine(count: str) -> None:
    refuse_several_workers(["uvicorn", "shop:app"], {"WEB_CONCURRENCY": count})
