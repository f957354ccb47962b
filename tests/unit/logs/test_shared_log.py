"""SharedLog on an engine in memory."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from support import FIRST, nth, nths, until
from unit.logs.test_base import RecordingListener, drafts, numbers, payloads
from unmissed.core.errors import ConfigurationError, IdempotencyConflict, LogUnavailable, NotRunning
from unmissed.core.messages import Draft, rfc3339
from unmissed.core.receipts import Receipt
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Located, Outcome, Window
from unmissed.logs.engine import Archive, Seen, State
from unmissed.logs.feed import Record
from unmissed.logs.shared_log import SharedLog
from unmissed.logs.writer import Stored, Write
from unmissed.testing import ManualClock

NOON_MS = 1_769_860_800_000
AWAY = "the engine is away"


class FakeEngine:
    """An engine in memory. It can be away, fail, lose messages, and begin another epoch."""

    def __init__(self, *, count: int = 0) -> None:
        self.epoch, self.first_number, self.latest = "life", FIRST, nth(0)
        self.store_ms = NOON_MS
        self.away = False
        self.read_failures: deque[Exception] = deque()
        """Raised one after another by reading."""
        self.write_failures: deque[Exception] = deque()
        """Raised one after another by writing, once it has stored the messages."""
        self.connect_failure: Exception | None = None
        self.states = 0
        self.closed = 0
        self.opens = 0
        self._records: list[Record] = []
        self._receipts: dict[str, tuple[bytes, Receipt]] = {}
        self._changed = asyncio.Event()
        self.store(drafts(count))

    async def connect(self) -> None:
        self._check()
        if self.connect_failure is not None:
            raise self.connect_failure
        self.opens += 1

    async def state(self, seen: Seen | None) -> State:
        self.states += 1
        await asyncio.sleep(0)  # As long as a network takes at least.
        self._check()
        after = seen.latest if seen is not None and seen.epoch == self.epoch else 0
        oldest = min((record.number for record in self._records if record.number > after), default=self.latest + 1)
        return State(self.epoch, self.first_number, oldest, self.latest, float(self.store_ms))

    async def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        self._check()
        if self.read_failures:
            raise self.read_failures.popleft()
        yield []
        while True:
            self._check()
            if self.read_failures:
                raise self.read_failures.popleft()
            if found := [record for record in self._records if record.number > after]:
                after = found[-1].number
                yield found
            else:
                await self._changed.wait()

    async def archive(self, *, before: int) -> Archive:
        self._check()
        return Archive(unknown=before - 1)

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | IdempotencyConflict]:
        self._check()
        if seen.epoch != self.epoch:
            raise LogUnavailable("a new epoch has begun")
        results = [self._write(write) for write in writes]
        if self.write_failures:
            raise self.write_failures.popleft()
        return results

    async def send(self, note: bytes) -> None: ...

    async def receive(self) -> AsyncGenerator[bytes]:
        yield b""

    async def close(self) -> None:
        self.closed += 1

    def store(self, new: Sequence[Draft]) -> int:
        """Store messages, as another node would, and return the number of the first."""
        first = self.latest + 1
        self._records += [
            Record(number, self.store_ms, self.store_ms, draft) for number, draft in enumerate(new, start=first)
        ]
        self.latest += len(new)
        self._notify()
        return first

    def lose(self, *lost: int) -> None:
        """Delete the messages of these numbers."""
        self._records = [record for record in self._records if record.number not in lost]

    def restart(self, *, epoch: str, first_number: int) -> None:
        """Lose everything, and begin an epoch."""
        self.epoch, self.first_number, self.latest = epoch, first_number, first_number - 1
        self._records.clear()
        self._notify()

    def leave(self) -> None:
        """Be away until ``come_back``."""
        self.away = True
        self._notify()

    def come_back(self) -> None:
        self.away = False

    def fail_to_read(self, *failures: Exception) -> None:
        """Raise these, also for those who wait for new messages."""
        self.read_failures += failures
        self._notify()

    def _write(self, write: Write) -> Stored | IdempotencyConflict:
        key = write.key or write.id
        known = self._receipts.get(key)
        if known is None:
            receipt = Receipt(self.store(write.drafts), len(write.drafts), self.epoch, rfc3339(self.store_ms / 1000))
            self._receipts[key] = (write.fingerprint, receipt)
            return Stored(receipt, new=True)
        fingerprint, receipt = known
        return Stored(receipt, new=write.key is None) if fingerprint == write.fingerprint else IdempotencyConflict()

    def _check(self) -> None:
        if self.away:
            raise LogUnavailable(AWAY)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@asynccontextmanager
async def opened(
    engine: FakeEngine, *, max_messages: int = 100, clock: ManualClock | None = None
) -> AsyncIterator[tuple[SharedLog, Window]]:
    log = SharedLog(engine, retention=Retention(max_messages=max_messages), clock=clock or ManualClock())
    window = await log.open()
    yield log, window
    await log.close()


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that has 3 messages."""
    return FakeEngine(count=3)


def in_window(window: Window) -> list[int]:
    return numbers([*window])


async def test_an_open_log_has_what_the_engine_retains(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        assert ("life", FIRST) == (window.epoch, window.first_number)
        assert nths(1, 2, 3) == in_window(window)
        assert None is log.unavailable
        assert engine is log.channel


async def test_what_was_stored_earlier_is_as_old_as_the_engine_says_and_what_is_new_is_new(engine: FakeEngine) -> None:
    clock = ManualClock(50.0)
    engine.store_ms += 10_000
    async with opened(engine, clock=clock) as (_, window):
        engine.store(drafts(1))
        await until(lambda: window.latest == nth(4))

        assert [40.0, 40.0, 40.0, 50.0] == [message.appended_at for message in window.messages_after(nth(0))]


async def test_messages_expire_on_the_clock_of_the_node(engine: FakeEngine) -> None:
    clock = ManualClock()
    async with opened(engine, clock=clock) as (log, window):
        clock.advance(900.0)
        log.expire()

        assert (0, nth(3)) == (len(window), window.evicted_through)


async def test_what_is_published_is_stored_and_has_come_back(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        publication = await log.publish(drafts(2))

        assert nth(5) == window.latest == engine.latest
        assert [message.payload for message in publication.messages] == payloads(window)[-2:]


async def test_what_is_published_is_stamped_once(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        publication = await log.publish(drafts(2))

        assert [*map(id, window.messages_after(nth(3)))] == [*map(id, publication.messages)]


class BusyEngine(FakeEngine):
    """An engine with which something else happens as soon as it has stored a publish."""

    def __init__(self, then: Callable[[FakeEngine], object]) -> None:
        super().__init__()
        self._then = then

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | IdempotencyConflict]:
        results = await super().write(writes, seen)
        self._then(self)
        return results


@pytest.mark.parametrize(
    "then",
    [
        lambda engine: engine.store(drafts(5)),
        lambda engine: engine.lose(*nths(1, 2)),
        lambda engine: engine.restart(epoch="next", first_number=nth(20)),
    ],
    ids=["evicted", "lost", "another epoch"],
)
async def test_what_is_not_in_the_window_any_more_is_returned_as_it_was_published(
    then: Callable[[FakeEngine], object],
) -> None:
    async with opened(BusyEngine(then), max_messages=2) as (log, window):
        publication = await log.publish(drafts(2))

        assert [] == [each for each in publication.messages if each in window]
        assert ("life", nth(1)) == (publication.receipt.epoch, publication.receipt.first)
    assert [(nth(1), "0"), (nth(2), "1")] == [
        (each.sequence_number, each.as_dict()["data"]) for each in publication.messages
    ]


async def test_what_other_nodes_publish_comes_too_and_the_listener_is_called(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        listener = RecordingListener()
        log.subscribe(listener)

        engine.store(drafts(2))
        await until(lambda: window.latest == nth(5))

        assert ["wait", "appended"] == listener.calls


async def test_an_unexpected_error_while_reading_is_logged_and_reading_goes_on(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(engine) as (log, window):
        engine.fail_to_read(RuntimeError("a bug"))
        await until(lambda: log.unavailable is not None)
        assert "an unexpected error: RuntimeError('a bug')" == log.unavailable

        await log.publish(drafts(1))

        assert None is log.unavailable
        assert nth(4) == window.latest
    assert ["reading the log failed"] == [record.message for record in caplog.records if record.exc_info is not None]
    assert "the log can be read again" == caplog.records[-1].message


async def test_an_engine_that_cannot_be_read_is_unavailable_until_it_can(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(engine) as (log, window):
        engine.leave()
        await until(lambda: log.unavailable is not None)
        assert AWAY == log.unavailable

        engine.store(drafts(2))
        engine.come_back()
        await until(lambda: log.unavailable is None)
        await until(lambda: window.latest == nth(5))

    assert [
        (logging.ERROR, f"the log cannot be read: {AWAY}"),
        (logging.WARNING, "the log can be read again"),
    ] == [(record.levelno, record.message) for record in caplog.records]


async def test_an_engine_that_tells_its_state_but_cannot_be_read_is_reported_once(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(engine) as (log, window):
        engine.fail_to_read(*[LogUnavailable(AWAY)] * 4)
        states = engine.states
        await until(lambda: engine.states >= states + 4)
        engine.store(drafts(1))
        await until(lambda: window.latest == nth(4))

        assert None is log.unavailable
    assert [f"the log cannot be read: {AWAY}", "the log can be read again"] == [
        record.message for record in caplog.records
    ]


async def test_numbers_that_are_missing_lead_to_the_state_again(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        listener = RecordingListener()
        log.subscribe(listener)
        states = engine.states

        engine.leave()
        engine.store(drafts(4))
        engine.lose(*nths(4, 5))
        engine.come_back()
        await until(lambda: window.latest == nth(7))

        assert states < engine.states
        assert nths(6, 7) == in_window(window)
        assert Located(Outcome.GAP, nth(3), nth(5)) == window.locate(nth(3))
        assert Located(Outcome.COMPLETE, nth(5), nth(5)) == window.locate(nth(5))
        assert "restart" not in listener.calls


async def test_a_hole_among_the_messages_is_declared_as_a_gap(engine: FakeEngine) -> None:
    engine.store(drafts(3))
    engine.lose(*nths(4))

    async with opened(engine) as (log, window):
        assert nths(5, 6) == in_window(window)
        assert Outcome.GAP is window.locate(nth(3)).outcome
        assert None is log.unavailable
        assert nth(7) == (await log.publish(drafts(1))).receipt.first


async def test_what_the_engine_lost_at_the_end_is_not_waited_for() -> None:
    engine = FakeEngine(count=3)
    engine.lose(*nths(1, 2, 3))

    async with opened(engine) as (log, window):
        assert (0, nth(3), nth(3)) == (len(window), window.latest, window.evicted_through)
        assert nth(4) == (await log.publish(drafts(1))).receipt.first


async def test_a_new_epoch_is_told_once_before_it_begins(engine: FakeEngine) -> None:
    class EpochListener(RecordingListener):
        def before_restart(self) -> None:
            self.calls.append(f"restart of {window.epoch} at {window.latest}")

    async with opened(engine) as (log, window):
        listener = EpochListener()
        log.subscribe(listener)

        engine.restart(epoch="next", first_number=nth(20))
        engine.store(drafts(1))
        engine.fail_to_read(LogUnavailable(AWAY), LogUnavailable(AWAY))
        await until(lambda: window.latest == nth(20))

        assert [f"restart of life at {nth(3)}", "wait", "appended"] == listener.calls
        assert ("next", nth(20), nths(20)) == (window.epoch, window.first_number, in_window(window))
        assert Outcome.RESET is window.locate(nth(3)).outcome
        assert "next" == (await log.publish(drafts(1))).receipt.epoch


async def test_a_publish_goes_into_the_epoch_that_has_begun(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        engine.leave()
        waiting = asyncio.create_task(log.publish(drafts(1)))
        await until(lambda: log.unavailable is not None)

        engine.restart(epoch="next", first_number=nth(20))
        engine.come_back()
        async with asyncio.timeout(10):
            publication = await waiting

        assert ("next", nth(20)) == (publication.receipt.epoch, publication.receipt.first)
        assert nths(20) == in_window(window)


async def test_a_node_catches_up_with_what_is_stored(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        engine.store(drafts(4))

        await log.catch_up(nth(6))

        assert nth(6) <= window.latest


async def test_a_number_that_is_not_stored_is_not_waited_for(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        async with asyncio.timeout(30):
            await log.catch_up(nth(1_000))

        assert nth(3) == window.latest


async def test_a_number_that_the_window_has_needs_no_engine(engine: FakeEngine) -> None:
    async with opened(engine) as (log, _):
        states = engine.states

        await log.catch_up(nth(3))

        assert states == engine.states


async def test_clients_that_come_at_the_same_time_share_one_question(engine: FakeEngine) -> None:
    async with opened(engine) as (log, _):
        states = engine.states

        await asyncio.gather(*(log.catch_up(nth(1_000)) for _ in range(100)))

        assert 1 <= engine.states - states <= 2


async def test_a_new_epoch_without_messages_is_noticed_when_a_client_is_ahead(engine: FakeEngine) -> None:
    """A reader of the engine that waits for the next message does not notice it."""
    async with opened(engine) as (log, window):
        engine.epoch, engine.first_number, engine.latest = "next", nth(20), nth(19)

        async with asyncio.timeout(30):
            await log.catch_up(nth(19))

        assert ("next", nth(19)) == (window.epoch, window.latest)


async def test_an_answer_that_a_new_epoch_has_overtaken_is_ignored() -> None:
    class SlowEngine(FakeEngine):
        overtaken: asyncio.Event | None = None

        async def state(self, seen: Seen | None) -> State:
            state = await super().state(seen)
            if (waiting := self.overtaken) is not None:
                self.overtaken = None
                await waiting.wait()
            return state

    slow = SlowEngine(count=3)
    async with opened(slow) as (log, window):
        overtaken = slow.overtaken = asyncio.Event()
        catching_up = asyncio.create_task(log.catch_up(nth(100)))
        await until(lambda: slow.overtaken is None)
        slow.restart(epoch="next", first_number=nth(20))
        slow.fail_to_read(LogUnavailable(AWAY))
        await until(lambda: window.epoch == "next")

        overtaken.set()
        await catching_up

        assert ("next", nth(20)) == (window.epoch, window.first_number)


async def test_whether_a_node_is_behind_is_unknown_while_the_engine_is_away(engine: FakeEngine) -> None:
    async with opened(engine) as (log, _):
        engine.leave()

        with pytest.raises(LogUnavailable, match=AWAY):
            await log.catch_up(nth(4))


async def test_publishing_while_the_engine_is_away_waits_and_gets_through(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        engine.leave()
        waiting = asyncio.create_task(log.publish(drafts(2)))
        await until(lambda: log.unavailable is not None)
        assert not waiting.done()

        engine.come_back()
        async with asyncio.timeout(10):
            publication = await waiting

        assert nths(4, 5) == numbers(publication.messages)
        assert nths(1, 2, 3, 4, 5) == in_window(window)
        assert None is log.unavailable


async def test_a_publish_whose_answer_was_lost_is_stored_once(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        engine.write_failures.append(LogUnavailable("the answer was lost"))

        publication = await log.publish(drafts(2))

        assert nths(4, 5) == numbers(publication.messages)
        assert nths(1, 2, 3, 4, 5) == in_window(window)


async def test_a_key_that_is_known_gets_the_first_receipt_or_a_conflict(engine: FakeEngine) -> None:
    async with opened(engine) as (log, window):
        first = await log.publish(drafts(2), idempotency_key="key")

        again = await log.publish(drafts(2), idempotency_key="key")
        with pytest.raises(IdempotencyConflict):
            await log.publish(drafts(1), idempotency_key="key")

        assert replace(first, repeated=True) == again
        assert nth(5) == window.latest


async def test_a_reason_to_be_unavailable_may_be_that_of_writing_alone(engine: FakeEngine) -> None:
    async with opened(engine) as (log, _):
        engine.write_failures += [LogUnavailable("out of memory")] * 1_000
        waiting = asyncio.create_task(log.publish(drafts(1)))

        await until(lambda: log.unavailable is not None)
        assert "out of memory" == log.unavailable

        engine.write_failures.clear()
        await waiting
        assert None is log.unavailable


async def test_an_engine_that_cannot_be_reached_is_refused_and_closed(engine: FakeEngine) -> None:
    engine.leave()

    with pytest.raises(ConfigurationError, match=f"UNMISSED_LOG_URL: {AWAY}"):
        await SharedLog(engine, open_seconds=0.2).open()

    assert 1 == engine.closed


async def test_an_engine_that_is_lost_between_its_state_and_the_first_message_is_refused_and_closed(
    engine: FakeEngine,
) -> None:
    before = asyncio.all_tasks()
    engine.read_failures.extend([LogUnavailable(AWAY)] * 1_000)

    with pytest.raises(ConfigurationError, match=f"UNMISSED_LOG_URL: {AWAY}"):
        await SharedLog(engine, open_seconds=0.2).open()

    assert 1 == engine.closed
    assert before == asyncio.all_tasks()


async def test_an_engine_that_never_answers_is_refused_and_closed(engine: FakeEngine) -> None:
    class SilentEngine(FakeEngine):
        async def connect(self) -> None:
            await asyncio.Event().wait()

    engine = SilentEngine()

    with pytest.raises(ConfigurationError, match="UNMISSED_LOG_URL: no answer"):
        await SharedLog(engine, open_seconds=0.2).open()

    assert 1 == engine.closed


async def test_an_engine_that_can_never_be_used_is_refused_at_once_and_closed(engine: FakeEngine) -> None:
    engine.connect_failure = ConfigurationError("the engine is too old")

    with pytest.raises(ConfigurationError, match="the engine is too old"):
        await SharedLog(engine).open()

    assert 1 == engine.closed


async def test_an_engine_that_is_away_for_a_moment_is_waited_for(engine: FakeEngine) -> None:
    engine.leave()
    asyncio.get_running_loop().call_later(0.02, engine.come_back)
    log = SharedLog(engine)

    window = await log.open()

    assert nths(1, 2, 3) == in_window(window)
    await log.close()


async def test_a_closed_log_ends_its_tasks_and_closes_the_engine_once(engine: FakeEngine) -> None:
    before = asyncio.all_tasks()

    async with opened(engine) as (log, _):
        await log.publish(drafts(1))

    assert 1 == engine.closed
    assert before == asyncio.all_tasks()


async def test_what_cannot_be_written_at_the_end_is_refused(engine: FakeEngine) -> None:
    async with opened(engine) as (log, _):
        engine.leave()
        waiting = asyncio.create_task(log.publish(drafts(1)))
        await until(lambda: log.unavailable is not None)

    with pytest.raises(NotRunning):
        await waiting


async def test_a_log_that_is_opened_again_continues_the_epoch(engine: FakeEngine) -> None:
    log = SharedLog(engine)
    before = await log.open()
    await log.publish(drafts(1))
    await log.close()

    after = await log.open()
    await log.publish(drafts(1))

    assert (before.epoch, before.latest + 1) == (after.epoch, after.latest)
    await log.close()


class ArchivingEngine(FakeEngine):
    """An engine that keeps messages below its tail, which begins at the oldest that it can read."""

    def __init__(self, *, count: int) -> None:
        super().__init__(count=count)
        self.lost = 0
        self.archived: list[Record] = []
        self.reads: list[int] = []
        """The number before which the archive was read, each time."""

    async def state(self, seen: Seen | None) -> State:
        return replace(await super().state(seen), lost=self.lost)

    async def archive(self, *, before: int) -> Archive:
        self.reads.append(before)
        return Archive(self.archived, {"#rooms.a": nth(1)}, everyone=0, unknown=0)

    def trim(self, *ns: int) -> None:
        """Move some messages from the tail to the archive."""
        numbers = nths(*ns)
        self.archived += [record for record in self._records if record.number in numbers]
        self.lose(*range(self._records[0].number, max(numbers) + 1))

    def jump(self, number: int, *, is_lost: bool) -> None:
        """Go on after a number: what was stored before may be lost, or the numbers were not used."""
        after, self.latest = self.latest, number
        first = self.store(drafts(1, of="after "))
        if is_lost:
            self.lost = number
        else:
            self._records[-1] = replace(self._records[-1], after=after)
        assert first == number + 1


ROOM = frozenset({"#rooms.a"})
RULES = Retention(max_messages=100, rules=(Rule("rooms.*", 10, 3_600.0),))


def room_drafts(count: int) -> list[Draft]:
    return [Draft.of({"type": "a", "topics": ["rooms.a"], "data": n}, max_bytes=1_000) for n in range(count)]


@asynccontextmanager
async def ruled(engine: FakeEngine) -> AsyncIterator[tuple[SharedLog, Window]]:
    log = SharedLog(engine, retention=RULES, clock=ManualClock(50.0))
    window = await log.open()
    yield log, window
    await log.close()


async def test_a_node_that_starts_has_the_archive_below_the_tail() -> None:
    engine = ArchivingEngine(count=0)
    engine.store(room_drafts(5))
    engine.store_ms += 10_000
    engine.trim(2, 4)
    engine.store(drafts(2))

    async with ruled(engine) as (log, window):
        assert [nth(5)] == engine.reads
        assert nths(2, 4, 5, 6, 7) == in_window(window)
        assert [40.0, 40.0, 40.0, 50.0, 50.0] == [message.appended_at for message in window]
        assert [Outcome.GAP, Outcome.COMPLETE] == [window.locate(nth(n), keys=ROOM).outcome for n in (0, 1)]
        assert nth(4) == window.lost_through(frozenset({"#lobby"}))
        assert nth(8) == (await log.publish(drafts(1))).receipt.first


async def test_a_node_that_starts_after_a_disaster_has_the_archive() -> None:
    engine = ArchivingEngine(count=0)
    engine.store(room_drafts(5))
    engine.trim(2, 4)
    engine.lose(*nths(1, 3, 5))
    engine.jump(nth(1_000), is_lost=True)

    async with ruled(engine) as (_, window):
        assert nths(2, 4, 1_001) == in_window(window)
        assert (nth(1), nth(1_000)) == window.locate(nth(0), keys=ROOM).lost


async def test_a_node_whose_engine_has_everything_reads_no_archive() -> None:
    engine = ArchivingEngine(count=3)

    async with ruled(engine) as (_, window):
        assert ([], nths(1, 2, 3)) == (engine.reads, in_window(window))


async def test_a_node_that_has_fallen_out_of_the_tail_reads_the_archive() -> None:
    engine = ArchivingEngine(count=0)
    engine.store(room_drafts(2))
    async with ruled(engine) as (log, window):
        listener = RecordingListener()
        log.subscribe(listener)
        engine.leave()
        engine.store(room_drafts(3))
        engine.trim(1, 2, 4)
        engine.store(drafts(2))
        waiting = asyncio.create_task(log.publish(drafts(1)))
        engine.come_back()
        await waiting

        assert [nth(5)] == engine.reads
        assert nths(1, 2, 4, 5, 6, 7, 8) == in_window(window)
        assert Outcome.COMPLETE is window.locate(nth(1), keys=ROOM).outcome
        assert "restart" not in listener.calls


async def test_numbers_that_the_engine_has_lost_leave_what_is_retained() -> None:
    engine = ArchivingEngine(count=3)
    async with ruled(engine) as (log, window):
        engine.jump(nth(1_000), is_lost=True)
        await until(lambda: window.latest == nth(1_001))

        assert nths(1, 2, 3, 1_001) == in_window(window)
        assert [] == engine.reads
        for keys in (ROOM, frozenset({"@alice"})):
            assert Outcome.GAP is window.locate(nth(3), keys=keys).outcome
            assert Outcome.COMPLETE is window.locate(nth(1_000), keys=keys).outcome
        assert nth(1_002) == (await log.publish(drafts(1))).receipt.first


async def test_numbers_that_were_lost_are_declared_by_a_node_that_starts_later() -> None:
    engine = ArchivingEngine(count=3)
    engine.jump(nth(1_000), is_lost=True)

    async with ruled(engine) as (_, window):
        assert nths(1, 2, 3, 1_001) == in_window(window)
        assert Outcome.GAP is window.locate(nth(3), keys=ROOM).outcome

    engine.trim(1, 2, 3)
    async with ruled(engine) as (_, window):
        assert nths(1, 2, 3, 1_001) == in_window(window)
        assert Outcome.GAP is window.locate(nth(3), keys=ROOM).outcome


async def test_numbers_that_were_never_used_are_no_loss() -> None:
    engine = ArchivingEngine(count=3)
    async with ruled(engine) as (log, window):
        reached = asyncio.create_task(log.catch_up(nth(500)))
        engine.jump(nth(1_000), is_lost=False)
        await until(lambda: window.latest == nth(1_001))
        await reached

        assert nths(1, 2, 3, 1_001) == in_window(window)
        assert Outcome.COMPLETE is window.locate(nth(0)).outcome
