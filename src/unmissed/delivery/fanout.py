"""Bringing everyone up to date: when to flush, and when a publisher is to wait for those who read."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from unmissed.core.messages import Draft
from unmissed.core.window import Window
from unmissed.delivery.connection import Connection
from unmissed.delivery.flush import FlushSchedule
from unmissed.delivery.registry import Registry

logger = logging.getLogger("unmissed")

_GIVE_WAY_SECONDS = 0.2
_STUCK_SECONDS = 0.02


class FanOut:
    """Delivers what a window holds to the connections of a registry, during one life of both."""

    def __init__(self, registry: Registry, window: Window, *, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = registry
        self._window = window
        self._schedule = FlushSchedule(self._flush, loop=loop)
        self._flushed_through = self._gave_way_at = window.latest
        self._waiting_bytes = 0

    def appended(self) -> None:
        """See to it that what was appended is flushed."""
        self._schedule.request()

    def stop(self) -> None:
        """Flush no more."""
        self._schedule.cancel()

    def make_room(self, drafts: Sequence[Draft]) -> None:
        """Flush first where these drafts would push out of the window what was appended since the last flush."""
        size, retention = sum(draft.size_in_log for draft in drafts), self._window.retention
        waiting = self._window.latest - self._flushed_through
        if waiting + len(drafts) > retention.max_messages or self._waiting_bytes + size > retention.max_bytes:
            self._flush_waiting()
        self._waiting_bytes += size

    async def give_way(self) -> None:
        """Now and then, let readers catch up with a publisher.

        One that never waits would push out of the window what nobody was given yet. It waits for those who make
        progress, not for those who are stuck, and never long.
        """
        latest = self._window.latest
        if latest - self._gave_way_at <= self._window.retention.max_messages // 4:
            return
        self._gave_way_at = latest
        self._flush_waiting()
        await asyncio.sleep(0)
        time = asyncio.get_running_loop().time
        behind, give_up, patience = self._behind(latest), time() + _GIVE_WAY_SECONDS, time() + _STUCK_SECONDS
        while behind and time() < min(give_up, patience):
            await asyncio.sleep(0)
            before, behind = behind, self._behind(latest)
            if behind != before:
                patience = time() + _STUCK_SECONDS

    def for_each(self, act: Callable[[Connection], None]) -> None:
        """Do this with everyone who is here. A connection that fails is ended, for the sake of the others."""
        for connection in self._registry:
            try:
                act(connection)
            except Exception:
                logger.exception("a connection failed and was ended: connection_id=%s", connection.id)
                connection.abort()

    def _flush(self) -> None:
        self._flushed_through = self._window.latest
        self._waiting_bytes = 0
        self.for_each(Connection.deliver)

    def _flush_waiting(self) -> None:
        if self._flushed_through < self._window.latest:
            self._schedule.run()

    def _behind(self, latest: int) -> int:
        """Return how many deliveries of messages up to ``latest`` are still to be made."""
        return sum(latest - connection.position for connection in self._registry if connection.position < latest)
