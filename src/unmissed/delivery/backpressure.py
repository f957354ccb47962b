"""Backpressure: publishers wait for active readers, and nothing is evicted before each connection was offered it."""

import asyncio
from collections.abc import Sequence

from unmissed.core.messages import Draft
from unmissed.delivery.fanout import FanOut
from unmissed.delivery.throttle import Throttle


class Backpressure:
    """The listener of the log: it delivers what is appended, at the speed of active readers.

    When the log begins another epoch, clients are asked to reconnect within ``reconnect_seconds``.
    """

    def __init__(self, fan_out: FanOut, throttle: Throttle, *, reconnect_seconds: float) -> None:
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
        # Before the wait: publishers that come during it must not wait for the same readers again.
        self._waited_at = latest, appended_bytes
        self._throttle.flush_now()
        # A turn of the event loop, in which sockets may accept data again.
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
