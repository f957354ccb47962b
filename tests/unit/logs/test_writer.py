"""Group commit."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from support import until
from unmissed.core.errors import IdempotencyConflict, LogUnavailable, NotRunning, UnmissedError
from unmissed.core.messages import Draft
from unmissed.core.receipts import Receipt
from unmissed.logs.base import Publication
from unmissed.logs.writer import Write, Writer

LOST = LogUnavailable("the store is away")


class Store:
    """Numbers what it is passed, and notes it. Each call waits until ``ready``, and then fails if a failure is left."""

    def __init__(self) -> None:
        self.calls: list[list[Write]] = []
        self.failures: deque[Exception] = deque()
        self.refused: dict[str, UnmissedError] = {}
        """What becomes of messages of these types."""
        self.ready = asyncio.Event()
        self.ready.set()

    async def write(self, writes: Sequence[Write]) -> list[Publication | UnmissedError]:
        self.calls.append([*writes])
        await self.ready.wait()
        if self.failures:
            raise self.failures.popleft()
        return [self.refused.get(type_of(write)) or publication(type_of(write)) for write in writes]

    @property
    def types(self) -> list[str]:
        """The types in each call, as one string."""
        return ["".join(map(type_of, writes)) for writes in self.calls]


def type_of(write: Write) -> str:
    return write.drafts[0].head.decode().removeprefix('{"type":"').removesuffix('"')


def publication(message_type: str) -> Publication:
    return Publication(Receipt(ord(message_type), 1, "life", ""), ())


def draft(message_type: str, *, size: int = 0) -> list[Draft]:
    return [Draft.of({"type": message_type, "data": "x" * size}, max_bytes=size + 100)]


@pytest.fixture
def store() -> Store:
    return Store()


@asynccontextmanager
async def writing(store: Store, **limits: int) -> AsyncIterator[Writer[Publication]]:
    """Run a writer with these limits."""
    writer = Writer(store.write, **limits)
    writer.start()
    yield writer
    store.ready.set()
    await writer.close()


@pytest.fixture
async def writer(store: Store) -> AsyncIterator[Writer[Publication]]:
    async with writing(store) as writer:
        yield writer


Publish = asyncio.Task[Publication]


async def submitted(writer: Writer[Publication], types: str) -> list[Publish]:
    """Publish messages of these types, one after another, and let the writer begin."""
    tasks = [asyncio.create_task(writer.submit(draft(each), key=None)) for each in types]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def results(tasks: Sequence[Publish]) -> list[Publication | BaseException]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_publisher_gets_the_result_of_its_own_write(writer: Writer[Publication]) -> None:
    tasks = await submitted(writer, "abc")

    assert [*map(publication, "abc")] == await results(tasks)


async def test_what_arrives_while_a_write_runs_is_written_together_and_in_order(
    writer: Writer[Publication], store: Store
) -> None:
    store.ready.clear()
    tasks = await submitted(writer, "a")
    tasks += await submitted(writer, "bc")
    tasks += await submitted(writer, "d")

    store.ready.set()
    await results(tasks)

    assert ["a", "bcd"] == store.types


async def test_no_more_are_written_together_than_the_most(store: Store) -> None:
    async with writing(store, max_writes=2) as writer:
        await results(await submitted(writer, "abcde"))

    assert ["ab", "cd", "e"] == store.types


async def test_one_refused_write_fails_alone(writer: Writer[Publication], store: Store) -> None:
    store.refused["b"] = IdempotencyConflict()

    first, second, third = await results(await submitted(writer, "abc"))

    assert [publication("a"), publication("c")] == [first, third]
    assert isinstance(second, IdempotencyConflict)
    assert None is writer.unavailable


async def test_the_fingerprint_tells_drafts_with_a_key_apart(writer: Writer[Publication], store: Store) -> None:
    for message_type, key in (("a", None), ("a", "key"), ("a", "key"), ("b", "key")):
        await writer.submit(draft(message_type), key=key)

    without, first, again, other = [write for writes in store.calls for write in writes]
    assert b"" == without.fingerprint
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert 4 == len({write.id for write in (without, first, again, other)})


async def test_a_write_that_fails_is_tried_again_with_the_same_ids(writer: Writer[Publication], store: Store) -> None:
    store.failures += [LOST, LOST]

    answers = await results(await submitted(writer, "ab"))

    assert [*map(publication, "ab")] == answers
    assert ["ab", "ab", "ab"] == store.types
    assert 1 == len({tuple(write.id for write in writes) for writes in store.calls})


async def test_what_arrives_meanwhile_is_written_after_what_is_tried_again(
    writer: Writer[Publication], store: Store
) -> None:
    store.failures.append(LOST)
    store.ready.clear()
    tasks = await submitted(writer, "ab")
    tasks += await submitted(writer, "c")

    store.ready.set()
    await results(tasks)

    assert ["ab", "abc"] == store.types


async def test_a_publisher_that_has_given_up_is_not_written_again(writer: Writer[Publication], store: Store) -> None:
    store.failures.append(LOST)
    store.ready.clear()
    patient, impatient = await submitted(writer, "ab")

    impatient.cancel()
    store.ready.set()
    await results([patient, impatient])

    assert ["ab", "a"] == store.types


async def test_a_publisher_that_gave_up_before_its_write_is_not_written(
    writer: Writer[Publication], store: Store
) -> None:
    store.ready.clear()
    tasks = await submitted(writer, "abc")
    tasks += await submitted(writer, "def")

    tasks[4].cancel()
    store.ready.set()
    await results(tasks)

    assert ["abc", "df"] == store.types


async def test_a_result_for_a_publisher_that_has_given_up_is_dropped(writer: Writer[Publication], store: Store) -> None:
    store.ready.clear()
    impatient, patient = await submitted(writer, "ab")

    impatient.cancel()
    store.ready.set()
    await results([impatient, patient])

    assert impatient.cancelled()
    assert publication("b") == patient.result()


async def test_it_says_why_nothing_is_written_until_something_is() -> None:
    reasons: list[str | None] = []
    store = Store()

    async def write(writes: Sequence[Write]) -> list[Publication | UnmissedError]:
        reasons.append(observed.unavailable)
        return await store.write(writes)

    observed = Writer(write)
    observed.start()
    store.failures += [LOST, LogUnavailable("the store is still away")]

    await results(await submitted(observed, "a"))
    await observed.close()

    assert [None, "the store is away", "the store is still away"] == reasons
    assert None is observed.unavailable


async def test_an_unexpected_error_answers_the_publishers_and_the_writer_goes_on(
    writer: Writer[Publication], store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    failure = RuntimeError("a bug")
    store.failures.append(failure)

    assert [failure, failure] == await results(await submitted(writer, "ab"))
    assert [publication("c")] == await results(await submitted(writer, "c"))
    assert [(logging.ERROR, "writing to the log failed")] == [
        (record.levelno, record.message) for record in caplog.records
    ]
    assert None is writer.unavailable


async def test_it_tries_again_while_nothing_waits(writer: Writer[Publication], store: Store) -> None:
    """Otherwise a node that nobody publishes on would stay unavailable."""
    store.failures += [LOST, LOST, LOST]
    [impatient] = await submitted(writer, "a")

    impatient.cancel()
    await until(lambda: writer.unavailable is None)

    assert ["a", "", "", ""] == store.types


async def test_nothing_is_written_while_nothing_waits_and_all_is_well(
    writer: Writer[Publication], store: Store
) -> None:
    await results(await submitted(writer, "a"))
    await submitted(writer, "")

    assert ["a"] == store.types


async def test_too_many_waiting_bytes_are_refused_at_once(store: Store) -> None:
    async with writing(store, max_waiting_bytes=draft("a", size=1_000)[0].size_in_log) as writer:
        store.ready.clear()
        fitting = asyncio.create_task(writer.submit(draft("a", size=1_000), key=None))
        await submitted(writer, "")

        with pytest.raises(LogUnavailable, match="too many messages are waiting to be written"):
            await writer.submit(draft("b"), key=None)

        store.ready.set()
        await results([fitting])
        assert publication("c") == await writer.submit(draft("c", size=1_000), key=None)
        assert ["a", "c"] == store.types


async def test_too_many_bytes_are_refused_for_the_reason_why_they_wait(store: Store) -> None:
    async with writing(store, max_waiting_bytes=draft("a")[0].size_in_log) as writer:
        store.failures.extend([LOST] * 1_000)
        await submitted(writer, "a")

        with pytest.raises(LogUnavailable, match="the store is away"):
            await writer.submit(draft("b"), key=None)

        store.failures.clear()


async def test_those_who_gave_up_take_no_room(store: Store) -> None:
    async with writing(store, max_waiting_bytes=draft("a")[0].size_in_log) as writer:
        store.ready.clear()
        impatient = await submitted(writer, "a")
        impatient[0].cancel()
        await results(impatient)

        patient = await submitted(writer, "b")
        store.ready.set()

        assert [publication("b")] == await results(patient)


async def test_what_waits_is_written_before_the_end(store: Store) -> None:
    writer = Writer(store.write)
    writer.start()
    store.ready.clear()
    tasks = await submitted(writer, "a")
    tasks += await submitted(writer, "bc")

    asyncio.get_running_loop().call_soon(store.ready.set)
    await writer.close()

    assert ["a", "bc"] == store.types
    assert [*map(publication, "abc")] == await results(tasks)


async def test_what_cannot_be_written_before_the_end_is_refused(store: Store) -> None:
    writer = Writer(store.write)
    writer.start()
    store.ready.clear()
    tasks = await submitted(writer, "a")
    tasks += await submitted(writer, "bc")

    await writer.close()

    assert [NotRunning] * 3 == [type(answer) for answer in await results(tasks)]
    assert ["a"] == store.types


async def test_a_store_that_stays_away_does_not_delay_the_end(store: Store) -> None:
    writer = Writer(store.write)
    writer.start()
    store.failures.extend([LOST] * 10_000)
    tasks = await submitted(writer, "a")

    async with asyncio.timeout(30):
        await writer.close()

    assert [NotRunning] == [type(answer) for answer in await results(tasks)]
