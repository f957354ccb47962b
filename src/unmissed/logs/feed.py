"""The way into a window: messages are appended, and the listener delivers each before it is evicted."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from unmissed.core.audience import Audience
from unmissed.core.messages import Draft, Message, rfc3339
from unmissed.core.receipts import Receipt
from unmissed.core.window import Earlier, Window
from unmissed.logs.base import WindowListener

VOID = Draft(b'{"type":""', b"}", Audience(frozenset()))
"""Fills a number whose message was never published. It is visible to no client, so its eviction is no loss."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stamped message as a log stores it. ``unix_ms`` is the time of the stamp, in milliseconds since 1970.

    ``log_ms`` is that time on the clock of the log, whose differences are ages: it does not jump with the wall clock.
    ``after`` is the number before this one, if the log has skipped numbers that it never used: they are no loss.
    """

    number: int
    unix_ms: int
    log_ms: int
    draft: Draft
    after: int | None = None

    def continues(self, latest: int) -> bool:
        """Return whether nothing is missing between ``latest`` and this message."""
        return latest < self.number and latest >= (self.number - 1 if self.after is None else self.after)

    def message(self, *, appended_at: float) -> Message:
        """Return the message, whose bytes depend on the record alone, appended at a monotonic time in seconds."""
        return self.draft.stamp(self.number, timestamp=rfc3339(self.unix_ms / 1000), now=appended_at)


def stamped(drafts: Sequence[Draft], receipt: Receipt, *, appended_at: float) -> tuple[Message, ...]:
    """Return the messages that a receipt is about, appended at a monotonic time in seconds."""
    return tuple(
        draft.stamp(number, timestamp=receipt.timestamp, now=appended_at)
        for number, draft in enumerate(drafts, start=receipt.first)
    )


class Feed:
    """A window and its listener, once there is one. ``clock`` returns monotonic seconds, for the ages of messages.

    No message is evicted before connections were offered it: the listener makes room for each one. Records are appended
    in blocks of at most a quarter of what each rule retains, and of all bytes, between which active readers catch up.
    """

    def __init__(self, window: Window, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self._clock = clock
        rules = window.retention.rules
        self._block_messages = max(1, min([window.retention.max_messages, *(rule.max_messages for rule in rules)]) // 4)
        self._block_bytes = window.retention.max_bytes // 4
        self._listener: WindowListener | None = None
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}
        """Futures by the number that each is waiting for."""
        self._awaited_order: list[int] = []
        """A heap of these numbers. It may still have some that are not awaited any longer."""

    def subscribe(self, listener: WindowListener) -> None:
        """Call this listener about every change from now on."""
        self._listener = listener

    async def append(self, records: Sequence[Record], *, log_ms: float | None = None) -> None:
        """Append the records that continue the window, in blocks. Stop if the window was reset or skipped ahead.

        They count as new, unless ``log_ms`` is given, the present time on the clock of the log.
        """
        for block in self._blocks(records):
            await self.wait_for_readers([record.draft for record in block])
            # A client may have caught up in between: that can begin another epoch, or skip messages that are lost.
            if not block[0].continues(self.window.latest):
                return
            now = self._clock()
            ages = [0.0 if log_ms is None else max(0.0, log_ms - record.log_ms) / 1000 for record in block]
            self.extend([record.message(appended_at=now - age) for record, age in zip(block, ages, strict=True)])

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:
        """Backpressure: wait until active readers have received what these messages may evict, for at most 200 ms."""
        if self._listener is not None:
            await self._listener.wait_for_readers(messages)

    def extend(self, messages: Sequence[Message]) -> None:
        """Append messages that continue the window, and call the listener. Never yields.

        No more than each rule retains: then none of them evicts another before the listener has delivered it.
        """
        if self._listener is not None:
            self._listener.make_room(messages)
        # Without a listener, the log is being opened.
        add = self.window.replay if self._listener is None else self.window.append
        for message in messages:
            add(message)
        self._release_passed()
        self._appended()

    def _appended(self) -> None:
        if self._listener is not None:
            self._listener.appended()

    def _blocks(self, records: Iterable[Record]) -> Iterator[Sequence[Record]]:
        block, size = list[Record](), 0
        for record in records:
            size += record.draft.size_in_log
            if block and (len(block) == self._block_messages or size > self._block_bytes):
                yield block
                block, size = [], record.draft.size_in_log
            block.append(record)
        if block:
            yield block

    def skip(self, number: int) -> None:
        """Continue after a number that is above the latest: the log no longer has the messages before it."""
        self.window.skip(number)
        self._release_passed()
        self._appended()

    def restore(self, past: Earlier) -> None:
        """Hold what the log has retained before its tail, and nothing else: this window has fallen out of the tail."""
        self.window.restore(past)
        self._release_passed()
        self._appended()

    def restart(self, *, epoch: str, first_number: int) -> None:
        """Begin another epoch, after the listener has delivered the rest of this one."""
        # First: the restart removes the messages that the listener still has to deliver.
        if self._listener is not None:
            self._listener.before_restart()
        self.window.restart(epoch=epoch, first_number=first_number)
        self._release_passed()

    async def reached(self, number: int) -> None:
        """Wait until the window has this number, or has continued without it."""
        if number <= self.window.latest:
            return
        future = asyncio.get_running_loop().create_future()
        if number not in self._awaited:
            heappush(self._awaited_order, number)
        waiting = self._awaited.setdefault(number, [])
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)
            # ``_release_passed`` may have removed the list, and another call may have begun a new one for this number.
            if not waiting and self._awaited.get(number) is waiting:
                del self._awaited[number]

    def _release_passed(self) -> None:
        """Stop waiting for all numbers that the window has passed, whether it has appended or skipped them."""
        order, latest = self._awaited_order, self.window.latest
        while order and order[0] <= latest:
            for future in self._awaited.pop(heappop(order), ()):
                if not future.done():
                    future.set_result(None)
