"""Backpressure: which connections are behind, and how long a publisher waits for them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from unmissed.delivery.connection import Connection

MAX_WAIT_SECONDS = 0.2
"""The longest wait for connections that take data, in seconds."""

STUCK_SECONDS = 0.02
"""Publishers stop waiting for a connection that has taken nothing for this time, in seconds."""


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

    def __len__(self) -> int:
        return len(self._connections)

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
        is over after MAX_WAIT_SECONDS, and for a connection that takes nothing after STUCK_SECONDS.
        """
        wait = _Wait(
            {
                each: each.write_progress
                for each in self._connections
                if served_through <= each.position < latest and not each.closing
            }
        )
        time = asyncio.get_running_loop().time
        give_up = time() + MAX_WAIT_SECONDS
        # Nothing is awaited since the connections were looked at, so none has caught up unnoticed.
        self._waits.add(wait)
        try:
            while wait.progress and time() < give_up:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STUCK_SECONDS):
                        await wait.over.wait()
                wait.progress = {
                    each: each.write_progress
                    for each, before in wait.progress.items()
                    # One that is still behind, with later messages, may have those that are waited for.
                    if each.write_progress != before and each.position < latest
                }
        finally:
            self._waits.discard(wait)
