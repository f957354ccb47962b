"""The way into a window."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from support import FIRST, nth, nths
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention
from unmissed.core.window import Window
from unmissed.logs.feed import Feed, Record
from unmissed.testing import ManualClock

NOON_MS = 1_769_860_800_000


def records(*ns: int, unix_ms: int = NOON_MS) -> list[Record]:
    return [Record(number, unix_ms, unix_ms, Draft.of({"type": "a"}, max_bytes=100)) for number in nths(*ns)]


def feed_of(*, max_messages: int = 500, max_bytes: int = 1_000_000, clock: ManualClock | None = None) -> Feed:
    window = Window(Retention(max_messages=max_messages, max_bytes=max_bytes), epoch="life", first_number=FIRST)
    return Feed(window, clock=clock or ManualClock())


def ages(feed: Feed, now: float) -> list[float]:
    return [now - message.appended_at for message in feed.window]


class WatchingListener:
    """A listener that records its calls, each with the epoch and the latest number of the window at that time."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.calls: list[tuple[str, str, int]] = []
        self.room: list[tuple[int, int, int]] = []
        """The latest number, and for how many messages and bytes room was made then."""

    def make_room(self, messages: Sequence[Draft | Message]) -> None:
        self.room.append((self.window.latest, len(messages), sum(each.size_in_log for each in messages)))

    def appended(self) -> None:
        self._record("appended")

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:  # noqa: ARG002
        self._record("wait")

    def before_restart(self) -> None:
        self._record("restart")

    def _record(self, call: str) -> None:
        self.calls.append((call, self.window.epoch, self.window.latest))


def watched(feed: Feed) -> WatchingListener:
    listener = WatchingListener(feed.window)
    feed.subscribe(listener)
    return listener


async def released(*waiting: asyncio.Task[None]) -> list[bool]:
    """Run whatever is ready, and return which of these tasks are done."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in waiting]


async def end(*waiting: asyncio.Task[None]) -> None:
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def waiting_for(feed: Feed, *ns: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(feed.reached(number)) for number in nths(*ns)]
    await asyncio.sleep(0)
    return tasks


async def test_a_record_becomes_a_message_with_its_number_and_its_time() -> None:
    feed = feed_of()

    await feed.append(records(1, 2))

    assert [(nth(1), "2026-01-31T12:00:00.000Z"), (nth(2), "2026-01-31T12:00:00.000Z")] == [
        (message.sequence_number, message.timestamp) for message in feed.window.messages_after(nth(0))
    ]


async def test_records_count_as_new_unless_the_time_of_the_log_is_known() -> None:
    clock = ManualClock(50.0)
    feed = feed_of(clock=clock)

    await feed.append(records(1))

    assert [0.0] == ages(feed, 50.0)


@pytest.mark.parametrize(
    ("log_ms", "expected"),
    [(NOON_MS + 2_500.0, 2.5), (NOON_MS, 0.0), (NOON_MS - 3_600_000.0, 0.0)],
    ids=["later", "now", "stepped back"],
)
async def test_the_age_is_the_time_since_the_stamp_on_the_clock_of_the_log(log_ms: float, expected: float) -> None:
    """Only that clock is read, so it may be ahead of the one of this machine, or behind. No message is from later."""
    feed = feed_of(clock=ManualClock(50.0))

    await feed.append(records(1), log_ms=log_ms)

    assert [expected] == ages(feed, 50.0)


async def test_messages_that_are_old_already_expire_when_they_are_appended() -> None:
    feed = feed_of()

    await feed.append([*records(1), *records(2, unix_ms=NOON_MS + 900_000)], log_ms=NOON_MS + 900_000.0)

    assert (nth(1), nth(2)) == (feed.window.evicted_through, feed.window.latest)


async def test_a_quarter_of_the_retention_is_appended_at_a_time() -> None:
    """The listener can deliver each block before the next ones evict it."""
    feed = feed_of(max_messages=8)
    listener = watched(feed)

    await feed.append(records(1, 2, 3, 4, 5))

    assert [
        ("wait", "life", nth(0)),
        ("appended", "life", nth(2)),
        ("wait", "life", nth(2)),
        ("appended", "life", nth(4)),
        ("wait", "life", nth(4)),
        ("appended", "life", nth(5)),
    ] == listener.calls


async def test_a_quarter_of_the_bytes_is_appended_at_a_time() -> None:
    feed = feed_of(max_bytes=4 * 2 * records(1)[0].draft.size_in_log)
    listener = watched(feed)

    await feed.append(records(1, 2, 3, 4, 5))

    assert nths(2, 4, 5) == [latest for call, _, latest in listener.calls if call == "appended"]


async def test_room_is_made_for_messages_before_they_are_appended() -> None:
    feed = feed_of(max_messages=8)
    listener = watched(feed)
    messages = [record.message(appended_at=0.0) for record in records(1, 2, 3)]

    feed.extend(messages)

    assert [(nth(0), 3, sum(each.size_in_log for each in messages))] == listener.room
    assert [("appended", "life", nth(3))] == listener.calls


async def test_one_record_is_appended_at_a_time_if_the_retention_is_tiny() -> None:
    feed = feed_of(max_messages=1)
    listener = watched(feed)

    await feed.append(records(1, 2))

    assert ["wait", "appended", "wait", "appended"] == [call for call, *_ in listener.calls]


async def test_no_records_cause_no_call() -> None:
    feed = feed_of()
    listener = watched(feed)

    await feed.append([])

    assert [] == listener.calls


async def test_the_listener_is_called_after_a_skip_and_before_a_restart() -> None:
    feed = feed_of()
    listener = watched(feed)
    await feed.append(records(1))
    listener.calls.clear()

    feed.skip(nth(7))
    feed.restart(epoch="next", first_number=nth(20))

    assert [("appended", "life", nth(7)), ("restart", "life", nth(7))] == listener.calls
    assert ("next", nth(19)) == (feed.window.epoch, feed.window.latest)


async def test_a_feed_without_a_listener_fills_its_window() -> None:
    feed = feed_of()

    await feed.append(records(1, 2))
    feed.skip(nth(7))
    feed.restart(epoch="next", first_number=nth(20))

    assert nth(19) == feed.window.latest


async def test_a_number_that_the_window_has_is_not_waited_for() -> None:
    feed = feed_of()
    await feed.append(records(1, 2))

    reached = asyncio.ensure_future(feed.reached(nth(2)))
    await asyncio.sleep(0)

    assert reached.done()


async def test_an_append_releases_those_who_wait_for_its_numbers_and_only_those() -> None:
    feed = feed_of()
    waiting = await waiting_for(feed, 1, 2, 2, 3)

    await feed.append(records(1, 2))

    assert [True, True, True, False] == await released(*waiting)
    await end(*waiting)


async def test_a_skip_releases_those_who_wait_for_numbers_that_are_passed_and_only_those() -> None:
    feed = feed_of()
    waiting = await waiting_for(feed, 3, 7, 8)

    feed.skip(nth(7))

    assert [True, True, False] == await released(*waiting)
    await end(*waiting)


async def test_a_restart_releases_those_who_wait_for_numbers_before_it_and_only_those() -> None:
    feed = feed_of()
    waiting = await waiting_for(feed, 3, 19, 20)

    feed.restart(epoch="next", first_number=nth(20))

    assert [True, True, False] == await released(*waiting)
    await feed.append(records(20))
    assert [True] == await released(waiting[2])


async def test_one_who_gives_up_waiting_leaves_the_others_waiting() -> None:
    feed = feed_of()
    impatient, patient = await waiting_for(feed, 1, 1)

    impatient.cancel()
    await released(impatient)
    await feed.append(records(1))

    assert impatient.cancelled()
    assert [True] == await released(patient)
    assert not patient.cancelled()


async def test_one_who_gives_up_just_after_the_release_disturbs_nobody() -> None:
    feed = feed_of()
    impatient, patient = await waiting_for(feed, 1, 1)

    await feed.append(records(1))
    impatient.cancel()

    assert [True, True] == await released(impatient, patient)
    assert impatient.cancelled()
    assert not patient.cancelled()


async def test_one_who_gives_up_just_before_the_release_disturbs_nobody() -> None:
    feed = feed_of()
    impatient, patient = await waiting_for(feed, 1, 1)

    impatient.cancel()
    await feed.append(records(1))

    assert [True, True] == await released(impatient, patient)
    assert not patient.cancelled()
    assert None is patient.exception()


@pytest.mark.parametrize(
    ("after", "latest", "expected"),
    [
        (None, 6, True),
        (None, 5, False),
        (None, 7, False),
        (3, 2, False),
        (3, 3, True),
        (3, 6, True),
        (3, 7, False),
    ],
)
def test_a_record_continues_the_number_before_it_or_what_the_log_has_skipped_since(
    after: int | None, latest: int, *, expected: bool
) -> None:
    [record] = records(7)
    record = replace(record, after=None if after is None else nth(after))

    assert expected is record.continues(nth(latest))
