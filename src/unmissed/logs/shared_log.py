"""SharedLog: every node follows the same engine, and fills its own window from it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from unmissed.core.errors import ConfigurationError, LogUnavailable, UnmissedError
from unmissed.core.messages import Draft, Message
from unmissed.core.receipts import Receipt
from unmissed.core.retention import Retention
from unmissed.core.window import Earlier, Window
from unmissed.logs.base import Channel, Publication, WindowListener
from unmissed.logs.engine import Engine, Seen, State
from unmissed.logs.feed import Feed, Record, stamped
from unmissed.logs.writer import Stored, Write, Writer
from unmissed.retrying import Availability
from unmissed.tasks import end

logger = logging.getLogger("unmissed")

_OPEN_SECONDS = 10.0
_UNEXPECTED_SECONDS = 1.0
_MESSAGES_AT_ONCE = 200
"""Archived messages that are stamped in one step."""


class SharedLog:
    """A log on an engine that several nodes share.

    The node that publishes is fed by the engine like all others, so the order and the bytes are the same everywhere.
    ``clock`` returns monotonic seconds. ``open_seconds`` are the most that opening takes.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        retention: Retention | None = None,
        clock: Callable[[], float] = time.monotonic,
        open_seconds: float = _OPEN_SECONDS,
    ) -> None:
        self._engine = engine
        self._open_seconds = open_seconds
        self._retention = retention or Retention()
        self._clock = clock

    @property
    def unavailable(self) -> str | None:
        """Why the engine cannot be read or written at the moment."""
        return self._reading.reason or self._writer.unavailable

    @property
    def channel(self) -> Channel:
        """The engine, which also carries the notes between its nodes."""
        return self._engine

    async def open(self) -> Window:
        """Read what the engine retains. Raises ConfigurationError if it cannot be reached in time."""
        self._reading = Availability("read")
        # Locks belong to the event loop that uses them first.
        self._asking = asyncio.Lock()
        self._questions = 0
        self._answered: tuple[int, State | None] = (0, None)
        """The number of the last request for the state, and its answer."""
        async with contextlib.AsyncExitStack() as stack:
            # If opening fails, this is called last: the writer, which ends before, needs the engine.
            stack.push_async_callback(self._engine.close)
            try:
                async with asyncio.timeout(self._open_seconds):
                    state = await self._first_state()
                    await self._begin(state)
                    stack.push_async_callback(self._end)
                    await self._feed.reached(state.latest)
            except TimeoutError:
                raise ConfigurationError(f"UNMISSED_LOG_URL: {self._reading.reason or 'no answer'}") from None
            stack.pop_all()
        return self._feed.window

    def subscribe(self, listener: WindowListener) -> None:
        """Call this listener about every change of the window from now on."""
        self._feed.subscribe(listener)

    async def close(self) -> None:
        """Write the waiting publishes, and disconnect even if that is cancelled. The engine keeps the epoch."""
        try:
            await self._end()
        finally:
            await self._engine.close()

    def expire(self) -> None:
        """Evict the messages that are at least ``max_age`` seconds old."""
        self._feed.window.expire(self._clock())

    async def catch_up(self, number: int) -> None:
        """Ask the engine whether it has a number, and wait until the window has it.

        If the engine has begun another epoch, so does the window.
        """
        if number > self._feed.window.latest:
            state = await self._fresh_state()
            await self._adopt(state)
            # A number that is not stored, such as one that a client has made up, would never arrive.
            await self._feed.reached(min(number, state.latest))

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Wait until the drafts are stored in the engine, and have come back from it into the window."""
        stored = await self._writer.submit(drafts, key=idempotency_key)
        # The engine answers a write and feeds its readers in any order: the message may be in the window already.
        await self._feed.reached(stored.receipt.first + stored.receipt.count - 1)
        return Publication(stored.receipt, self._stamped(drafts, stored.receipt), repeated=not stored.new)

    def _stamped(self, drafts: Sequence[Draft], receipt: Receipt) -> tuple[Message, ...]:
        """Return the messages of a receipt that is reached: those of the window, which are stamped and encoded."""
        before = receipt.first - 1
        found = tuple(self._feed.window.messages_after(before, through=before + receipt.count))
        # They may be evicted or replaced by now, or of an epoch that has ended: the next one has higher numbers.
        return found if len(found) == receipt.count else stamped(drafts, receipt, appended_at=self._clock())

    async def _fresh_state(self) -> State:
        """Return a state that was requested after this call. Concurrent callers share one request."""
        # A request that was sent before this call may have been answered before the client saw its latest message.
        arrived = self._questions
        async with self._asking:
            asked, state = self._answered
            if state is None or asked <= arrived:
                self._questions = asked = self._questions + 1
                state = await self._engine.state(self._seen)
                self._answered = asked, state
            return state

    async def _begin(self, state: State) -> None:
        """Follow the engine from its state on."""
        window = Window(self._retention, epoch=state.epoch, first_number=state.first_number)
        self._feed = Feed(window, clock=self._clock)
        if state.oldest > state.first_number:
            self._feed.restore(await self._past(state))
        self._seen = Seen(state.epoch, window.latest, 0)
        self._writer = Writer(self._write)
        self._writer.start()
        self._following = asyncio.create_task(self._follow())

    async def _end(self) -> None:
        try:
            await self._writer.close()
        finally:
            await end(self._following)

    async def _first_state(self) -> State:
        while True:
            try:
                await self._engine.connect()
                return await self._engine.state(None)
            except LogUnavailable as error:
                await asyncio.sleep(self._reading.failed(error.reason))

    async def _follow(self) -> None:
        """Keep the window up to date. After a failure or a hole in the numbers, start again from the engine's state."""
        while True:
            try:
                state = await self._engine.state(self._seen)
                await self._adopt(state)
                await self._read(state)
            except LogUnavailable as error:
                await asyncio.sleep(self._reading.failed(error.reason))
            except Exception as error:
                logger.exception("reading the log failed")
                self._reading.failed(f"an unexpected error: {error!r}")
                await asyncio.sleep(_UNEXPECTED_SECONDS)

    async def _adopt(self, state: State) -> None:
        """Begin another epoch if the engine has, and continue after messages that the tail has no longer."""
        window = self._feed.window
        if state.epoch != window.epoch:
            if state.first_number <= window.latest:
                return  # An outdated answer: every new epoch has higher numbers.
            self._feed.restart(epoch=state.epoch, first_number=state.first_number)
            self._seen = Seen(state.epoch, window.latest, 0)
        if not self._lacks_numbers_before(state):
            return
        if state.oldest - 1 <= state.lost and window.latest >= window.first_number:
            # The engine went on at a higher number, and what is retained stays. A node that starts has nothing yet.
            self._feed.skip(state.oldest - 1)
        else:
            past = await self._past(state)
            # Another task may have done the same in between.
            if not self._lacks_numbers_before(state):
                return
            self._feed.restore(past)
        self._seen = Seen(state.epoch, window.latest, 0)

    def _lacks_numbers_before(self, state: State) -> bool:
        window = self._feed.window
        return state.epoch == window.epoch and state.oldest - 1 > window.latest

    async def _past(self, state: State) -> Earlier:
        """Return what the engine retains below its tail."""
        archive = await self._engine.archive(before=state.oldest)
        messages: list[Message] = []
        now = self._clock()
        for record in archive.records:
            age = max(0.0, state.log_ms - record.log_ms) / 1000
            messages.append(record.message(appended_at=now - age))
            if len(messages) % _MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)
        through = state.oldest - 1
        unknown = max(archive.unknown, min(state.lost, through))
        others = through if archive.others is None else archive.others
        return Earlier(
            through, messages, archive.lost, archive.everyone, others, unknown=unknown, partial=archive.partial
        )

    async def _read(self, state: State) -> None:
        """Append what the engine yields, until a number is missing, or it yields nothing."""
        async with contextlib.aclosing(self._engine.read(self._feed.window.latest)) as blocks:
            await anext(blocks)
            # Not earlier: an engine that answers with its state but cannot be read would be reported again and again.
            self._reading.succeeded()
            async for records in blocks:
                following = _following(records, self._feed.window.latest)
                await self._append(following, state)
                if not records or len(following) < len(records):
                    return

    async def _append(self, records: Sequence[Record], state: State) -> None:
        # What was stored before the state was read has an age on the clock of the log. What follows it is new.
        stored_before = max(0, min(len(records), state.latest - self._feed.window.latest))
        await self._feed.append(records[:stored_before], log_ms=state.log_ms)
        await self._feed.append(records[stored_before:])
        # Not if the window was reset or skipped ahead in between: what is declared as seen must have been seen.
        if records and (state.epoch, records[-1].number) == (self._feed.window.epoch, self._feed.window.latest):
            self._seen = Seen(state.epoch, records[-1].number, records[-1].unix_ms)

    async def _write(self, writes: Sequence[Write]) -> Sequence[Stored | UnmissedError]:
        return await self._engine.write(writes, self._seen)


def _following(records: Sequence[Record], latest: int) -> Sequence[Record]:
    """Return the records that continue ``latest``, up to the first before which a number is missing."""
    for index, record in enumerate(records):
        if not record.continues(latest):
            return records[:index]
        latest = record.number
    return records
