"""The contract of a log: it stamps messages and feeds the window that everything is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmissed.core.messages import Draft, Message
from unmissed.core.receipts import Receipt
from unmissed.core.window import Window


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of a publish. ``messages`` is empty when its idempotency key had been answered before."""

    receipt: Receipt
    messages: tuple[Message, ...]

    @property
    def repeated(self) -> bool:
        """Whether this repeats an earlier answer, so that nothing was published."""
        return not self.messages


class Log(Protocol):
    """Stamps drafts and feeds one in-memory window, on one event loop.

    Every log feeds the same kind of window; delivery and recovery read the window and nothing else. A log decides only
    who stamps, and how long an epoch lives. Its numbers have no holes within a life and are never used in two lives.
    """

    async def open(self) -> Window:
        """Begin or continue a life and return its window, filled with whatever the log still holds."""
        ...

    def subscribe(self, appended: Callable[[], None]) -> None:
        """Call ``appended`` on the event loop after each growth of the window from now on.

        Called once after each ``open``. What the log replays while it opens is not announced.
        """
        ...

    async def close(self) -> None:
        """Stop appending, and release what ``open`` acquired."""
        ...

    def expire(self) -> None:
        """Evict whatever is past its retention now."""
        ...

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and append the drafts as one block of contiguous numbers, or repeat the answer to a known key.

        Raises IdempotencyConflict when the key is known for other drafts.
        """
        ...
