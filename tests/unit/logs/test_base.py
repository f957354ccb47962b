"""The contract of a log, which all of them fulfil."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from places import LOGS, SHARED, Place
from support import until
from unmissed.core.audience import Audience
from unmissed.core.errors import IdempotencyConflict, TooManyRequests
from unmissed.core.messages import Draft, Message
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Outcome, Window
from unmissed.logs.base import Log
from unmissed.testing import ManualClock

lasting = pytest.mark.parametrize("place", LOGS[1:], indirect=True)
shared = pytest.mark.parametrize("place", LOGS[-len(SHARED) :], indirect=True)


def drafts(count: int, *, of: str = "") -> list[Draft]:
    return [Draft.of({"type": "chat", "data": f"{of}{number}"}, max_bytes=1_000) for number in range(count)]


def numbers(messages: Sequence[Message]) -> list[int]:
    return [message.sequence_number for message in messages]


def payloads(window: Window) -> list[bytes]:
    return [message.payload for message in window]


async def until_reached(window: Window, number: int) -> None:
    await until(lambda: window.latest >= number)


class RecordingListener:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def make_room(self, messages: Sequence[Draft | Message]) -> None: ...

    def appended(self) -> None:
        self.calls.append("appended")

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:  # noqa: ARG002
        self.calls.append("wait")

    def before_restart(self) -> None:
        self.calls.append("restart")


class OfferingListener(RecordingListener):
    """A listener that offers messages to connections when it must make room, and counts those that were not offered."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.offers = self.lost = 0
        self._window = window
        self._offered, self._offered_bytes = window.latest, window.appended_bytes

    def make_room(self, messages: Sequence[Draft | Message]) -> None:
        self._count_lost()
        retention = self._window.retention
        waiting, waiting_bytes = self._window.latest - self._offered, self._window.appended_bytes - self._offered_bytes
        size = sum(each.size_in_log for each in messages)
        if waiting and (waiting + len(messages) > retention.max_messages or waiting_bytes + size > retention.max_bytes):
            self.offers += 1
            self._offered, self._offered_bytes = self._window.latest, self._window.appended_bytes

    def appended(self) -> None:
        self._count_lost()

    def _count_lost(self) -> None:
        self.lost += max(0, self._window.evicted_through - self._offered)


async def test_a_new_log_is_available_and_empty(place: Place) -> None:
    log, window = await place.open()

    assert log.unavailable is None
    assert 0 == len(window)
    assert window.first_number == window.oldest == window.latest + 1
    assert Outcome.COMPLETE is window.locate(window.latest).outcome


async def test_numbers_are_contiguous_from_the_first(place: Place) -> None:
    log, window = await place.open()

    batch = await log.publish(drafts(3))
    single = await log.publish(drafts(1))

    assert [*range(window.first_number, window.first_number + 4)] == numbers([*batch.messages, *single.messages])
    assert (window.first_number, 3, window.epoch) == (batch.receipt.first, batch.receipt.count, batch.receipt.epoch)
    assert not batch.repeated


async def test_what_is_published_is_in_the_window_with_the_same_bytes(place: Place) -> None:
    log, window = await place.open()

    publication = await log.publish(drafts(3))

    assert [message.payload for message in publication.messages] == payloads(window)
    assert {publication.receipt.timestamp} == {message.timestamp for message in publication.messages}
    assert ["0", "1", "2"] == [message.as_dict()["data"] for message in window]


async def test_an_audience_reaches_the_window(place: Place) -> None:
    log, window = await place.open()
    draft = Draft.of({"type": "a", "users": ["ä b\n"], "topics": ["t"], "data": "x\ny"}, max_bytes=1_000)

    await log.publish([draft])

    [message] = window
    assert Audience.of(users=["ä b\n"], topics=["t"]) == message.audience
    assert "x\ny" == message.as_dict()["data"]


async def test_the_window_evicts_what_exceeds_the_retention(place: Place) -> None:
    log, window = await place.open(retention=Retention(max_messages=3))

    for _ in range(5):
        await log.publish(drafts(1))

    assert 3 == len(window)
    assert Outcome.GAP is window.locate(window.first_number).outcome


async def test_messages_older_than_the_retention_expire(place: Place) -> None:
    log, window = await place.open(retention=Retention(max_age=0.05))
    await log.publish(drafts(2))

    def is_empty() -> bool:
        log.expire()
        return not len(window)

    await until(is_empty)
    assert window.latest == window.evicted_through


async def test_a_known_key_gets_the_first_receipt_and_publishes_nothing(place: Place) -> None:
    log, window = await place.open()
    first = await log.publish(drafts(2), idempotency_key="key")
    await log.publish(drafts(1), idempotency_key="another")

    again = await log.publish(drafts(2), idempotency_key="key")

    assert replace(first, repeated=True) == again
    assert 3 == len(window)


async def test_a_repeat_returns_the_first_messages_although_they_are_evicted(place: Place) -> None:
    log, window = await place.open(retention=Retention(max_messages=3))
    first = await log.publish(drafts(2), idempotency_key="key")
    await log.publish(drafts(3))

    again = await log.publish(drafts(2), idempotency_key="key")

    assert window.evicted_through == first.messages[-1].sequence_number
    assert replace(first, repeated=True) == again


async def test_a_known_key_is_known_in_another_trace(place: Place) -> None:
    """A repetition has a span of its own, and the first message keeps that of the first publish."""
    log, window = await place.open()
    first, again = (
        [Draft.of({"type": "chat", "data": 1}, max_bytes=1_000, traceparent=trace)]
        for trace in ("00-first", "00-again")
    )
    await log.publish(first, idempotency_key="key")

    repeated = await log.publish(again, idempotency_key="key")

    assert repeated.repeated
    [payload] = payloads(window)
    assert (b'"traceparent":"00-first"' in payload, b"again" in payload) == (True, False)


@pytest.mark.parametrize("others", [drafts(1), drafts(3), drafts(2, of="other "), [*reversed(drafts(2))]])
async def test_a_known_key_with_other_messages_is_refused_and_publishes_nothing(
    place: Place, others: list[Draft]
) -> None:
    log, window = await place.open()
    await log.publish(drafts(2), idempotency_key="key")

    with pytest.raises(IdempotencyConflict):
        await log.publish(others, idempotency_key="key")

    assert 2 == len(window)


bounded = pytest.mark.parametrize("place", LOGS[:-1], indirect=True)
"""Logs that count the keys of each publisher: all but NATS, whose stream holds messages and no keys besides."""


async def add_keys(log: Log, owner: str, count: int) -> int:
    """Publish with new keys until one is refused, and return how many were not."""
    for number in range(count):
        try:
            await log.publish(drafts(1), idempotency_key=f"{owner}:{number}")
        except TooManyRequests:
            return number
    return count


@bounded
async def test_a_publisher_with_too_many_keys_is_refused_and_no_key_is_forgotten(place: Place) -> None:
    log, window = await place.open(retention=Retention(max_keys=40))
    first = await log.publish(drafts(1, of="bob"), idempotency_key="bob:payment")

    known = await add_keys(log, "mallory", 40)

    assert 10 < known < 20
    assert known + 1 == len(window)
    assert first.receipt == (await log.publish(drafts(1, of="bob"), idempotency_key="bob:payment")).receipt
    for number in range(known):
        assert (await log.publish(drafts(1), idempotency_key=f"mallory:{number}")).repeated
    with pytest.raises(IdempotencyConflict):
        await log.publish(drafts(2), idempotency_key="mallory:0")
    assert not (await log.publish(drafts(1))).repeated


@bounded
async def test_publishers_with_very_many_keys_leave_room_for_others(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_keys=40))
    for number in range(3):
        assert await add_keys(log, f"mallory {number}", 40) < 20

    assert 1 <= await add_keys(log, "bob", 1)


@bounded
async def test_keys_that_are_used_in_one_write_are_counted_together(place: Place) -> None:
    log, window = await place.open(retention=Retention(max_keys=40))

    results = await asyncio.gather(
        *(log.publish(drafts(1), idempotency_key=f"mallory:{number}") for number in range(40)), return_exceptions=True
    )

    refused = [result for result in results if isinstance(result, TooManyRequests)]
    assert 20 < len(refused) < 30
    assert 40 - len(refused) == len(window)


@bounded
async def test_a_publisher_that_was_refused_may_add_keys_when_the_old_ones_are_forgotten(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_keys=10, max_age=1.0))
    assert await add_keys(log, "bob", 10) < 10

    async def added() -> int:
        log.expire()
        return await add_keys(log, "bob", 1)

    await until(added)


async def test_without_a_key_the_same_message_is_published_twice(place: Place) -> None:
    log, window = await place.open()

    await log.publish(drafts(1))
    await log.publish(drafts(1))

    assert 2 == len(window)


async def test_one_key_used_at_the_same_time_publishes_once(place: Place) -> None:
    log, window = await place.open()

    publications = await asyncio.gather(*(log.publish(drafts(2), idempotency_key="key") for _ in range(20)))

    assert 1 == len({publication.receipt for publication in publications})
    assert 2 == len(window)


async def test_many_publishers_get_contiguous_blocks(place: Place) -> None:
    log, window = await place.open()

    publications = await asyncio.gather(*(log.publish(drafts(1 + index % 4)) for index in range(100)))

    published = sorted(numbers([message for each in publications for message in each.messages]))
    assert [*range(window.first_number, window.latest + 1)] == published
    for each in publications:
        assert [*range(each.receipt.first, each.receipt.first + each.receipt.count)] == numbers(each.messages)


async def test_one_publisher_keeps_its_order(place: Place) -> None:
    log, _ = await place.open()

    publishes = [asyncio.ensure_future(log.publish(drafts(1))) for _ in range(50)]
    published = numbers([message for each in await asyncio.gather(*publishes) for message in each.messages])

    assert sorted(published) == published


async def test_a_batch_as_large_as_the_retention_is_published_as_a_whole(place: Place) -> None:
    log, window = await place.open()

    await log.publish(drafts(500))

    assert [f'"{number}"' for number in range(500)] == [
        message.payload.rsplit(b":")[-1].decode().removesuffix("}") for message in window
    ]


async def test_a_publish_that_is_cancelled_leaves_the_log_in_order(place: Place) -> None:
    log, window = await place.open()

    cancelled = [asyncio.ensure_future(log.publish(drafts(1))) for _ in range(5)]
    await asyncio.sleep(0)
    for each in cancelled:
        each.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    publication = await log.publish(drafts(1, of="after"))

    assert window.latest == publication.receipt.first
    assert [*range(window.first_number, window.latest + 1)] == numbers([*window])


async def test_a_listener_is_called_after_each_publish(place: Place) -> None:
    log, _ = await place.open()
    listener = RecordingListener()
    log.subscribe(listener)

    await log.publish(drafts(2), idempotency_key="key")
    await log.publish(drafts(2), idempotency_key="key")
    await log.publish(drafts(1))

    assert ["appended", "appended"] == [call for call in listener.calls if call != "wait"]


async def test_nothing_is_evicted_for_which_no_room_was_made(place: Place) -> None:
    """Room is made for each message before it is appended, and by its size: the listener delivers what it evicts."""
    log, window = await place.open(retention=Retention(max_messages=40, max_bytes=40_000))
    listener = OfferingListener(window)
    log.subscribe(listener)

    await log.publish(drafts(40))
    await log.publish([Draft.of({"type": "large", "data": "x" * 4_000}, max_bytes=5_000)] * 8)
    await asyncio.gather(*(log.publish(drafts(7)) for _ in range(10)))
    await asyncio.gather(
        log.publish(drafts(2)), log.publish([Draft.of({"type": "a", "data": "x" * 39_000}, max_bytes=39_500)])
    )

    assert 0 == listener.lost
    assert 0 < listener.offers < 10


async def test_a_closed_log_begins_another_epoch_or_goes_on(place: Place) -> None:
    log, before = await place.open()
    await log.publish(drafts(3))
    await place.close(log)

    log, after = await place.open()
    await log.publish(drafts(1))

    if after.epoch == before.epoch:
        assert before.latest + 1 == after.latest
    else:
        assert before.latest < after.first_number - 1
        assert Outcome.RESET is after.locate(before.latest).outcome


@lasting
async def test_a_lasting_log_goes_on_with_the_same_bytes(place: Place) -> None:
    log, before = await place.open()
    await log.publish(drafts(3))
    await log.publish([Draft.of({"type": "a", "topics": ["t"]}, max_bytes=1_000)])
    await place.close(log)

    _, after = await place.open()

    assert (before.epoch, before.first_number, before.latest) == (after.epoch, after.first_number, after.latest)
    assert payloads(before) == payloads(after)
    assert [each.audience for each in before] == [each.audience for each in after]


@lasting
async def test_a_lasting_log_keeps_receipts(place: Place) -> None:
    log, _ = await place.open()
    first = await log.publish(drafts(2), idempotency_key="key")
    await place.close(log)
    log, window = await place.open()

    again = await log.publish(drafts(2), idempotency_key="key")

    assert first.receipt == again.receipt
    assert 2 == len(window)
    with pytest.raises(IdempotencyConflict):
        await log.publish(drafts(1), idempotency_key="key")


@pytest.mark.parametrize("place", LOGS[1:-1], indirect=True)
async def test_a_lasting_log_goes_on_counting_keys(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_keys=40))
    assert await add_keys(log, "mallory", 40) < 20
    await place.close(log)

    log, _ = await place.open(retention=Retention(max_keys=40))

    with pytest.raises(TooManyRequests):
        await log.publish(drafts(1), idempotency_key="mallory:new")
    assert 1 == await add_keys(log, "bob", 1)


@lasting
async def test_a_lasting_log_declares_what_it_does_not_retain(place: Place) -> None:
    log, before = await place.open(retention=Retention(max_messages=10))
    for _ in range(25):
        await log.publish(drafts(1))
    await place.close(log)

    _, after = await place.open(retention=Retention(max_messages=10))

    assert before.latest == after.latest
    assert [*range(after.latest - 9, after.latest + 1)] == numbers([*after])
    assert Outcome.GAP is after.locate(after.latest - 11).outcome
    assert Outcome.COMPLETE is after.locate(after.latest - 10).outcome


@lasting
async def test_a_lasting_log_does_not_return_messages_that_have_expired(place: Place) -> None:
    clocks = {"clock": ManualClock(5_000.0), "wall_clock": ManualClock(1_796_000_000.0)}
    log, _ = await place.open(**clocks)
    await log.publish(drafts(2))
    for clock in clocks.values():
        clock.advance(600.0)
    await log.publish(drafts(1))
    await place.close(log)

    log, after = await place.open(retention=Retention(max_age=600.0), **clocks)
    log.expire()

    assert [after.latest] == numbers([*after])
    assert Outcome.GAP is after.locate(after.latest - 2).outcome
    assert Outcome.COMPLETE is after.locate(after.latest - 1).outcome


@pytest.mark.parametrize("jump", [3_600.0, -3_600.0], ids=["forward", "back"])
async def test_a_jump_of_the_wall_clock_forgets_no_key_and_expires_nothing(place: Place, jump: float) -> None:
    clock, wall_clock = ManualClock(5_000.0), ManualClock(1_796_000_000.0)
    log, window = await place.open(clock=clock, wall_clock=wall_clock)
    first = await log.publish(drafts(2), idempotency_key="key")

    wall_clock.advance(jump)
    clock.advance(898.0)
    log.expire()
    again = await log.publish(drafts(2), idempotency_key="key")
    later = await log.publish(drafts(1))

    assert first.receipt == again.receipt
    assert again.repeated
    assert first.receipt.first + 2 == later.receipt.first
    assert 3 == len(window)


@lasting
@pytest.mark.parametrize("jump", [3_600.0, -3_600.0], ids=["forward", "back"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_a_jump_of_the_wall_clock_is_no_gap_after_a_restart(place: Place, jump: float, *, running: bool) -> None:
    clock, wall_clock = ManualClock(5_000.0), ManualClock(1_796_000_000.0)
    log, before = await place.open(clock=clock, wall_clock=wall_clock)
    first = await log.publish(drafts(2), idempotency_key="key")
    if running:
        wall_clock.advance(jump)
        await log.publish(drafts(1))
    await place.close(log)
    if not running:
        wall_clock.advance(jump)

    log, after = await place.open(clock=clock, wall_clock=wall_clock)
    log.expire()
    again = await log.publish(drafts(2), idempotency_key="key")

    assert payloads(before) == payloads(after)
    assert first.receipt == again.receipt
    assert Outcome.COMPLETE is after.locate(after.first_number - 1).outcome


@shared
async def test_a_node_whose_clock_stood_still_ages_no_messages(place: Place) -> None:
    """As that of a machine that was suspended, on Linux."""
    clock, suspended = ManualClock(5_000.0), ManualClock(7_000.0)
    (one, first), (two, second) = await place.open(clock=clock), await place.open(clock=suspended)
    await one.publish(drafts(1, of="early "))
    clock.advance(800.0)
    await one.publish(drafts(1, of="one "))
    await until_reached(second, first.latest)
    await two.publish(drafts(1, of="two "), idempotency_key="key")
    await until_reached(first, second.latest)

    later = ManualClock(9_000.0)
    log, window = await place.open(clock=later)
    later.advance(200.0)
    log.expire()

    assert payloads(first)[1:] == payloads(window)


@lasting
async def test_a_message_that_cannot_be_read_is_skipped_and_logged_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    log, before = await place.open()
    first = await log.publish(drafts(3), idempotency_key="key")
    await place.close(log)
    await place.add_foreign(before)

    log, after = await place.open()
    again = await log.publish(drafts(3), idempotency_key="key")
    later = await log.publish(drafts(2, of="later "))

    assert first.receipt == again.receipt
    assert before.epoch == after.epoch
    assert before.latest < later.receipt.first == after.latest - 1
    assert payloads(after)[-2:] == [message.payload for message in later.messages]
    assert Outcome.COMPLETE is after.locate(later.receipt.first - 1).outcome
    assert log.unavailable is None
    assert 1 == len([record for record in caplog.records if record.levelname == "WARNING"])


@shared
async def test_a_message_that_cannot_be_read_stops_no_node_and_hides_nothing(place: Place) -> None:
    (one, first), (two, second) = await place.open(), await place.open()
    start = (await one.publish(drafts(1))).receipt.first

    await place.add_foreign(first)
    async with asyncio.timeout(10):
        later = await two.publish(drafts(1, of="later "))
        await until_reached(first, later.receipt.first)
        await until_reached(second, later.receipt.first)

    assert payloads(first) == payloads(second)
    assert [Outcome.COMPLETE] * 2 == [window.locate(start).outcome for window in (first, second)]
    assert (None, None) == (one.unavailable, two.unavailable)


@shared
async def test_nodes_have_the_same_bytes_in_the_same_order(place: Place) -> None:
    (one, first), (two, second) = await place.open(), await place.open()

    await asyncio.gather(*(log.publish(drafts(2, of=name)) for log, name in ((one, "one "), (two, "two ")) * 25))
    await until_reached(first, second.latest)
    await until_reached(second, first.latest)

    assert 100 == len(first)
    assert first.epoch == second.epoch
    assert payloads(first) == payloads(second)


@shared
async def test_a_node_that_is_behind_catches_up_with_what_is_stored(place: Place) -> None:
    (one, behind), (two, _) = await place.open(), await place.open()
    publication = await two.publish(drafts(100))
    last = publication.receipt.first + 99

    await one.catch_up(last)

    assert last == behind.latest
    async with asyncio.timeout(30):
        await one.catch_up(last + 1_000)


@shared
async def test_a_key_is_known_to_every_node(place: Place) -> None:
    (one, first), (two, _) = await place.open(), await place.open()

    receipts = {
        (await each).receipt
        for each in [asyncio.ensure_future(log.publish(drafts(2), idempotency_key="key")) for log in (one, two) * 5]
    }

    assert 1 == len(receipts)
    assert 2 == len(first)


@shared
async def test_a_node_that_reads_nothing_for_a_while_does_not_stop_the_others(place: Place) -> None:
    """A node whose readers are not ready is delayed alone."""

    class SlowListener(RecordingListener):
        def __init__(self) -> None:
            super().__init__()
            self.ready = asyncio.Event()

        async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:  # noqa: ARG002
            await self.ready.wait()

    (slow, behind), (fast, ahead) = await place.open(), await place.open()
    listener = SlowListener()
    slow.subscribe(listener)

    for _ in range(20):
        await fast.publish(drafts(1))

    assert 20 == len(ahead)
    assert 0 == len(behind)
    listener.ready.set()
    await until_reached(behind, ahead.latest)
    assert payloads(ahead) == payloads(behind)


RULES = Retention(max_messages=20, rules=(Rule("rooms.*", 10, 3_600.0), Rule("@*", 10, 3_600.0)))
RULED = [{"#rooms.a"}, {"#rooms.b"}, {"@alice"}, {"@bob", "#rooms.b"}, {"@carol"}]
"""Keys of clients that have a rule."""

archiving = pytest.mark.parametrize(
    "place",
    ["sqlite", "sqlite-normal", *(pytest.param(name, marks=pytest.mark.live) for name in ("redis", "nats"))],
    indirect=True,
)


def about(number: int, **fields: Any) -> Draft:
    return Draft.of({"type": "chat", "data": number, **fields}, max_bytes=1_000)


async def publish_others(log: Log, count: int = 300) -> None:
    """Publish messages without a rule: so many that no log has the earlier ones in its tail."""
    for first in range(0, count, 100):
        await log.publish([about(number, topics=["lobby"]) for number in range(first, first + 100)])


def ruled(window: Window) -> list[bytes]:
    """Return the messages that a rule or a key retains."""
    return [
        message.payload
        for message in window
        if message.value is not None or window.retention.rule_of(message.audience.first) is not None
    ]


def verdicts(window: Window, positions: Sequence[int], keys: set[str]) -> list[Outcome]:
    return [window.locate(position, keys=frozenset(keys)).outcome for position in positions]


@archiving
async def test_a_node_that_starts_has_what_rules_and_keys_retain_and_the_same_verdicts(place: Place) -> None:
    log, before = await place.open(retention=RULES)
    firsts = [before.latest]

    async def publish(*drafts: Draft) -> None:
        firsts.append((await log.publish(drafts)).receipt.first)

    for number in range(25):
        await publish(about(number, topics=["rooms.a"]), about(number, users=["alice"]))
        await publish(about(number, topics=["rooms.b"], key="cart"), about(number, users=["bob"], key="name"))
        if number < 5:
            await publish(about(number, users=["carol"]), about(number, topics=["rooms.c"]))
    await publish(about(1, topics=["rooms.b"], key="text"), about(2, topics=["rooms.b"], key="text", append=True))
    await publish(about(3, users=["bob"], key="name", deleted=True), about(4, topics=["lobby"], key="topic"))
    await publish(about(5, key="banner"), about(6, key="banner"))
    await publish_others(log)
    await publish(about(7, topics=["rooms.a"]), about(8, topics=["rooms.b"], key="text", append=True))
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert (before.epoch, before.latest) == (after.epoch, after.latest)
    assert ruled(before) == ruled(after)
    assert 10 + 10 + 5 + 5 < len(ruled(after))
    for keys in RULED:
        assert verdicts(before, firsts, keys) == verdicts(after, firsts, keys), keys
    assert {Outcome.COMPLETE, Outcome.GAP} == {*verdicts(after, firsts, {"#rooms.a"})}
    assert [Outcome.COMPLETE] == [*{*verdicts(after, firsts, {"@carol"})}]


@archiving
async def test_what_nobody_keeps_is_lost_for_clients_without_a_rule_alone(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    start = (await log.publish([about(1, topics=["rooms.a"])])).receipt.first - 1
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert Outcome.COMPLETE is after.locate(start, keys=frozenset({"#rooms.a", "@alice"})).outcome
    assert Outcome.GAP is after.locate(start, keys=frozenset({"#lobby"})).outcome


@archiving
async def test_a_message_to_everyone_that_is_lost_is_a_gap_for_every_client(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    start = (await log.publish([about(1, topics=["rooms.a"])])).receipt.first
    broadcast = (await log.publish([about(2)])).receipt.first
    await publish_others(log)
    await log.publish([about(3)])
    await place.close(log)

    _, after = await place.open(retention=RULES)

    keys = frozenset({"#rooms.a", "@alice"})
    assert (Outcome.GAP, broadcast) == (after.locate(start, keys=keys).outcome, after.lost_through(keys))
    assert Outcome.COMPLETE is after.locate(broadcast, keys=keys).outcome


@archiving
async def test_a_message_that_another_topic_decides_about_is_a_gap_for_the_followers_of_the_rest(place: Place) -> None:
    """It is kept in the room of its first topic, if any, and counted there."""
    log, _ = await place.open(retention=RULES)
    start = (await log.publish([about(1, topics=["rooms.b"])])).receipt.first
    mixed = (await log.publish([about(2, topics=["lobby", "rooms.b"], users=["alice"])])).receipt.first
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=RULES)

    for keys in ({"#rooms.b"}, {"@alice"}):
        assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(after, [start, mixed], keys)
    assert [Outcome.COMPLETE] == verdicts(after, [start], {"#rooms.a"})


@archiving
async def test_messages_of_a_room_that_are_too_old_are_lost_for_its_followers_alone(place: Place) -> None:
    clocks = {"clock": ManualClock(5_000.0), "wall_clock": ManualClock(1_796_000_000.0)}
    log, _ = await place.open(retention=RULES, **clocks)
    first = (await log.publish([about(1, topics=["rooms.a"]), about(2, users=["alice"], key="cart")])).receipt.first
    for clock in clocks.values():
        clock.advance(3_601.0)
    await log.publish([about(3, topics=["rooms.b"])])
    await publish_others(log)
    await place.close(log)

    log, after = await place.open(retention=RULES, **clocks)
    log.expire()

    assert ["3"] == [str(message.as_dict()["data"]) for message in after if message.audience.first == "#rooms.b"]
    assert [] == [message for message in after if message.audience.first in ("#rooms.a", "@alice")]
    for keys, lost in (({"#rooms.a"}, True), ({"@alice"}, True), ({"#rooms.b"}, False), ({"@carol"}, False)):
        assert [Outcome.GAP if lost else Outcome.COMPLETE] == verdicts(after, [first - 1], keys)


@archiving
async def test_a_node_whose_rules_are_new_declares_what_was_published_before_them(place: Place) -> None:
    log, _ = await place.open(retention=Retention(max_messages=20))
    start = (await log.publish([about(1, topics=["rooms.a"])])).receipt.first - 1
    await publish_others(log)
    await place.close(log)

    log, first = await place.open(retention=RULES)
    later = (await log.publish([about(2, topics=["rooms.a"])])).receipt.first
    await publish_others(log)
    await place.close(log)
    _, second = await place.open(retention=RULES)

    assert [Outcome.GAP] == verdicts(first, [start], {"#rooms.a"})
    assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(second, [start, later - 1], {"#rooms.a"})
    assert ["2"] == [str(message.as_dict()["data"]) for message in second if message.audience.first == "#rooms.a"]


@archiving
async def test_values_that_were_replaced_a_thousand_times_are_restored_once(place: Place) -> None:
    log, before = await place.open(retention=RULES)
    start = before.latest
    for round_ in range(20):
        await log.publish([about(round_, users=["alice"], key=f"key-{number}") for number in range(200)])
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert [19] * 200 == [message.as_dict()["data"] for message in after]
    assert payloads(before) == payloads(after)
    assert [Outcome.COMPLETE] == verdicts(after, [start], {"@alice"})


@archiving
async def test_a_value_that_lacks_a_piece_is_not_restored_as_if_it_were_whole(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    text = {"users": ["alice"], "key": "text"}
    start = (await log.publish([about(1, **text), about(2, append=True, **text)])).receipt.first
    for number in range(10):
        await log.publish([about(number, users=["alice"])])
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert [] == [message for message in after if message.key is not None and after.is_whole(message)]
    assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(after, [start, start + 1], {"@alice"})


@archiving
async def test_a_rule_that_is_added_declares_what_was_published_without_it(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    start = (await log.publish([about(1, topics=["rooms.a"]), about(2, topics=["hall"])])).receipt.first
    await publish_others(log)
    await place.close(log)
    more = replace(RULES, rules=(*RULES.rules, Rule("hall", 10, 3_600.0)))

    log, first = await place.open(retention=more)
    later = (await log.publish([about(3, topics=["hall"])])).receipt.first
    for number in range(300):
        await log.publish([about(number, topics=["rooms.a"])])
    await place.close(log)
    _, second = await place.open(retention=more)

    assert [Outcome.GAP] == verdicts(first, [start], {"#hall"})
    assert [Outcome.GAP, Outcome.COMPLETE] == verdicts(second, [start, later - 1], {"#hall"})


@archiving
async def test_a_value_that_was_deleted_stays_deleted(place: Place) -> None:
    log, _ = await place.open(retention=RULES)
    cart = {"users": ["alice"], "key": "cart"}
    await log.publish([about(1, **cart), about(2, deleted=True, **cart)])
    for number in range(10):
        await log.publish([about(number, users=["alice"])])
    await publish_others(log)
    await place.close(log)

    _, after = await place.open(retention=RULES)

    assert [*range(10)] == [message.as_dict()["data"] for message in after if message.audience.first == "@alice"]


@archiving
async def test_what_no_rule_is_about_is_lost_only_if_there_was_such_a_message(place: Place) -> None:
    """Values that were replaced are no loss for a client whose own messages have no rule."""
    rooms = Retention(max_messages=20, rules=(Rule("rooms.*", 10, 3_600.0),))
    log, _ = await place.open(retention=rooms)
    await log.publish([about(1, users=["bob"])])
    mixed = (await log.publish([about(2, topics=["rooms.a"], users=["bob"])])).receipt.first
    kept = (await log.publish([about(3, topics=["lobby"], key="subject")])).receipt.first
    for _ in range(20):
        await log.publish([about(number, topics=["rooms.a"], key=f"chair-{number}") for number in range(10)])
    newest = (await log.publish([about(4, users=["bob"])])).receipt.first
    await place.close(log)

    _, after = await place.open(retention=rooms)

    keys = {"#rooms.a", "#lobby", "@alice"}
    assert [Outcome.COMPLETE] == verdicts(after, [mixed], keys)
    assert after.lost_through(frozenset({"@bob"})) <= mixed
    assert {kept, newest} < {message.sequence_number for message in after}
