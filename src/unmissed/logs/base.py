"""The contract of a log: it stamps messages and feeds the window that everything is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmissed.core.messages import Draft, Message
from unmissed.core.receipts import Receipt
from unmissed.core.window import Window


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of a publish. ``messages`` is empty if its idempotency key was used before."""

    receipt: Receipt
    messages: tuple[Message, ...]

    @property
    def repeated(self) -> bool:
        """Whether the receipt is that of an earlier publish, so that nothing was published."""
        return not self.messages


class Log(Protocol):
    """Stamps drafts and feeds one in-memory window, on one event loop.

    Every log feeds the same kind of window; delivery and recovery read nothing else. Logs differ only in which process
    stamps, and in how long an epoch lasts. Numbers are contiguous within an epoch, and never used in two epochs.
    """

    async def open(self) -> Window:
        """Start or continue an epoch and return its window, filled with the messages that the log still retains."""
        ...

    def subscribe(self, appended: Callable[[], None]) -> None:
        """Call ``appended`` on the event loop each time messages have been appended to the window.

        The manager subscribes once after each ``open``. Messages replayed by ``open`` do not call ``appended``.
        """
        ...

    async def close(self) -> None:
        """Stop appending, and release what ``open`` acquired."""
        ...

    def expire(self) -> None:
        """Evict the messages whose retention has ended."""
        ...

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and append the drafts as one block of contiguous numbers, or repeat the answer to a known key.

        Raises IdempotencyConflict when the key is known for other drafts.
        """
        ...
