"""Backpressure: a publisher that never yields must not evict messages before they are delivered."""

import asyncio
from collections.abc import Sequence

from unmissed.core.messages import Draft
from unmissed.delivery.fanout import FanOut
from unmissed.delivery.throttle import Throttle


class Backpressure:
    """Slows publishers down to the speed of the readers that keep up with them."""

    def __init__(self, fan_out: FanOut, throttle: Throttle) -> None:
        self._fan_out = fan_out
        self._throttle = throttle
        self._yielded_at = fan_out.window.latest

    async def before_append(self, drafts: Sequence[Draft]) -> None:
        """Flush, and wait for readers, before these drafts evict messages. Does not yield after the last flush."""
        window, served_through = self._fan_out.window, self._yielded_at
        latest = window.latest
        if latest - served_through > window.retention.max_messages // 4:
            self._yielded_at = latest
            self._throttle.flush_now()
            await asyncio.sleep(0)
            await self._fan_out.behind.catch_up(latest, served_through=served_through)
        if self._fan_out.would_evict_unflushed(drafts):
            self._throttle.flush_now()
