"""Long work in slices, so that the event loop stays responsive."""

import asyncio

_SLICE_SECONDS = 0.005


class Pace:
    """Lets other tasks run every 5 ms of the work of one task."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._pause_at = self._time() + _SLICE_SECONDS

    async def keep(self) -> None:
        """Call this after each piece of the work."""
        if self._time() >= self._pause_at:
            await asyncio.sleep(0)
            self._pause_at = self._time() + _SLICE_SECONDS
