"""Backpressure: a publisher that never yields must not evict messages before they are delivered."""

import asyncio
from collections.abc import Sequence

from unmissed.core.messages import Draft
from unmissed.delivery.fanout import FanOut
from unmissed.delivery.throttle import Throttle

_MAX_SECONDS = 0.2
_STUCK_SECONDS = 0.02


class Backpressure:
    """Slows publishers down to the speed of the readers that make progress, for at most 200 ms at a time."""

    def __init__(self, fan_out: FanOut, throttle: Throttle) -> None:
        self._fan_out = fan_out
        self._throttle = throttle
        self._yielded_at = fan_out.window.latest

    async def before_append(self, drafts: Sequence[Draft]) -> None:
        """Flush, and wait for readers, before these drafts evict messages. Does not yield after the last flush."""
        window = self._fan_out.window
        if window.latest - self._yielded_at > window.retention.max_messages // 4:
            self._yielded_at = window.latest
            self._throttle.flush_now()
            await self._until_caught_up(window.latest)
        if self._fan_out.would_evict_unflushed(drafts):
            self._throttle.flush_now()

    async def _until_caught_up(self, latest: int) -> None:
        """Yield until readers have everything up to ``latest``, for at most 200 ms, or 20 ms without any progress."""
        await asyncio.sleep(0)
        time = asyncio.get_running_loop().time
        behind, give_up, stuck = self._fan_out.behind(latest), time() + _MAX_SECONDS, time() + _STUCK_SECONDS
        while behind and time() < min(give_up, stuck):
            await asyncio.sleep(0)
            before, behind = behind, self._fan_out.behind(latest)
            if behind != before:
                stuck = time() + _STUCK_SECONDS
