"""The contract of a log: who stamps messages and keeps the window that everything is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmissed.core.messages import Draft, Message
from unmissed.core.receipts import Receipt
from unmissed.core.window import Window


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a publish. ``messages`` is empty when its idempotency key had been answered before."""

    receipt: Receipt
    messages: tuple[Message, ...]

    @property
    def repeated(self) -> bool:
        """Whether this is the first answer again, and nothing was published."""
        return not self.messages


class Log(Protocol):
    """Stamps drafts and feeds one in-memory window, on one event loop.

    Every log feeds the same kind of window; delivery and recovery read that and nothing else. A log decides only
    who stamps, and how long an epoch lives.
    """

    @property
    def window(self) -> Window:
        """The retained messages."""
        ...

    @property
    def epoch(self) -> str:
        """The name of this life of the numbering. It changes when the numbers start again."""
        ...

    async def start(self, *, appended: Callable[[], None]) -> None:
        """Begin a life. ``appended`` is called on the event loop after every growth of the window."""
        ...

    async def stop(self) -> None:
        """End the life; nothing is appended afterwards."""
        ...

    def expire(self) -> None:
        """Let go of what is past its retention now."""
        ...

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and append the drafts as one block of contiguous numbers, or answer a known key again."""
        ...
