"""The reader of a log's window: it delivers what is appended, and slows down what is appended too fast."""

from collections.abc import Sequence

from unmissed.core.messages import Draft
from unmissed.delivery.backpressure import Backpressure
from unmissed.delivery.fanout import FanOut
from unmissed.delivery.throttle import Throttle


class WindowReader:
    """Delivers to the connections of a fan-out. When an epoch ends, its clients reconnect within some seconds."""

    def __init__(self, fan_out: FanOut, throttle: Throttle, *, reconnect_seconds: float) -> None:
        self._fan_out = fan_out
        self._throttle = throttle
        self._backpressure = Backpressure(fan_out, throttle)
        self._reconnect_seconds = reconnect_seconds

    async def before_append(self, drafts: Sequence[Draft]) -> None:
        """Wait until these drafts evict nothing that readers who make progress have not been given."""
        await self._backpressure.before_append(drafts)

    def appended(self) -> None:
        """Deliver what has been appended."""
        self._throttle.request()

    def before_restart(self) -> None:
        """Deliver what is left, and disconnect every client."""
        self._fan_out.before_restart(seconds=self._reconnect_seconds)
