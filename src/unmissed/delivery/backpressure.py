"""Backpressure: nothing is evicted that was not offered to every connection, and publishers wait for active readers."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unmissed.core.messages import Draft
from unmissed.delivery.connection import Connection
from unmissed.delivery.throttle import Throttle

if TYPE_CHECKING:
    from unmissed.delivery.fanout import FanOut  # It records here which connections are behind.

MAX_SECONDS = 0.2
"""The longest wait for connections that take data."""

STUCK_SECONDS = 0.02
"""A connection that takes nothing for so long is not waited for."""


@dataclass(eq=False, slots=True)
class _Wait:
    """The connections that one publisher waits for, and what each had taken when that was last checked."""

    progress: dict[Connection, int]
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, connection: Connection) -> None:
        if self.progress.pop(connection, None) is not None and not self.progress:
            self.over.set()


class Behind:
    """The connections that are behind. Each reports when it falls behind and when it catches up; nothing is scanned."""

    def __init__(self) -> None:
        self._connections = set[Connection]()
        self._waits = set[_Wait]()

    def add(self, connection: Connection) -> None:
        """Record that a connection is behind."""
        self._connections.add(connection)

    def discard(self, connection: Connection) -> None:
        """Record that a connection is up to date, or has ended."""
        self._connections.discard(connection)
        for wait in self._waits:
            wait.leave(connection)

    async def catch_up(self, latest: int, *, served_through: int) -> None:
        """Wait until connections that had all messages through ``served_through`` have those through ``latest``.

        A connection that was not even that far is not waited for: it stalls, or is slower than the publisher. The wait
        is over after MAX_SECONDS, and for a connection that takes nothing after STUCK_SECONDS.
        """
        wait = _Wait(
            {
                each: each.write_progress
                for each in self._connections
                if served_through <= each.position < latest and not each.closing
            }
        )
        time = asyncio.get_running_loop().time
        give_up = time() + MAX_SECONDS
        self._waits.add(wait)
        try:
            while wait.progress and time() < give_up:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STUCK_SECONDS):
                        await wait.over.wait()
                wait.progress = {
                    each: each.write_progress
                    for each, before in wait.progress.items()
                    if each.write_progress != before and each.position < latest
                }
        finally:
            self._waits.discard(wait)


class Backpressure:
    """The listener of the log: it delivers what is appended, at the speed of active readers.

    When the log begins another epoch, clients are asked to reconnect within ``reconnect_seconds``.
    """

    def __init__(self, fan_out: "FanOut", throttle: Throttle, *, reconnect_seconds: float) -> None:
        self._fan_out = fan_out
        self._throttle = throttle
        self._reconnect_seconds = reconnect_seconds
        self._window = fan_out.window
        self._max_messages = fan_out.window.retention.max_messages
        self._max_bytes = fan_out.window.retention.max_bytes
        self._waited_at = self._window.latest, self._window.appended_bytes
        """How far the window was filled when readers were last waited for."""

    async def make_room(self, drafts: Sequence[Draft]) -> None:
        """Wait for active readers, and flush what appending these drafts would evict. Never yields after the flush."""
        await self.wait_for_readers()
        count, size = self._fan_out.unflushed
        if count and (
            count + len(drafts) > self._max_messages
            or size + sum(draft.size_in_log for draft in drafts) > self._max_bytes
        ):
            self._throttle.flush_now()

    async def wait_for_readers(self) -> None:
        """Flush, and wait until active readers have received it, once a quarter of the window was appended."""
        served_through, bytes_before = self._waited_at
        latest, appended_bytes = self._window.latest, self._window.appended_bytes
        if latest - served_through <= self._max_messages // 4 and appended_bytes - bytes_before <= self._max_bytes // 4:
            return
        self._waited_at = latest, appended_bytes
        self._throttle.flush_now()
        await asyncio.sleep(0)
        await self._fan_out.behind.catch_up(latest, served_through=served_through)

    def appended(self) -> None:
        """Flush soon, or at once when more than half of the window is unflushed: the next block must not evict it."""
        count, size = self._fan_out.unflushed
        if count > self._max_messages // 2 or size > self._max_bytes // 2:
            self._throttle.flush_now()
        else:
            self._throttle.request()

    def before_restart(self) -> None:
        """Deliver what is left, and disconnect every client."""
        self._fan_out.before_restart(seconds=self._reconnect_seconds)
