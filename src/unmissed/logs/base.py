"""The contract of a log: it stamps messages and feeds the window that everything is read from."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unmissed.core.messages import Draft, Message
from unmissed.core.receipts import Receipt
from unmissed.core.window import Window


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of a publish: its messages and their receipt, which an idempotency key that is known repeats."""

    receipt: Receipt
    messages: tuple[Message, ...]
    repeated: bool = False
    """Whether the key was used before: nothing was published, and these are the messages of the first publish."""


class WindowListener(Protocol):
    """Is called about each change of a log's window: the fan-out of a manager, which delivers what was appended.

    A log calls ``appended`` after each publish. If it also appends other messages, such as those of other nodes, it
    calls ``make_room`` before each of them, and waits for readers in between.
    """

    def make_room(self, messages: Sequence[Draft | Message]) -> None:
        """Flush at once what would be evicted by appending these messages."""
        ...

    def appended(self) -> None:
        """Deliver what has been appended."""
        ...

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:
        """Wait until active readers have received what appending these messages may evict, for at most 0.2 seconds."""
        ...

    def before_restart(self) -> None:
        """Deliver what is left, and disconnect every client: the window is about to begin another epoch."""
        ...


class Channel(Protocol):
    """Carries notes between the nodes of one shared log: small, never stored, and lost if no node listens.

    A node that does not receive its own notes considers the other nodes unreachable.
    """

    async def send(self, note: bytes) -> None:
        """Send a note, which is not empty, to every node, this one included. Raises LogUnavailable."""
        ...

    def receive(self) -> AsyncGenerator[bytes]:
        """Yield an empty note when listening begins, and then every note. Raises LogUnavailable when notes may be lost.

        It may yield another empty note when listening begins again.
        """
        ...


@runtime_checkable
class Wakeable(Protocol):
    """Is a channel, too, of a log in a database: transactions publish past the node."""

    def wake(self) -> None:
        """Look at once for what a transaction has published, which has committed."""
        ...


class Log(Protocol):
    """Stamps drafts and feeds one in-memory window, on one event loop.

    Every log feeds the same kind of window; delivery and recovery read nothing else. Logs differ only in which process
    stamps, and in how long an epoch lasts. Numbers ascend within an epoch, without holes
    but for those after a failure, and none is used for two messages.
    """

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be published or received at the moment, or None. It never contains a password."""
        ...

    @property
    def channel(self) -> Channel | None:
        """Carries notes between the nodes that share this log; None for a log of one process."""
        ...

    async def open(self) -> Window:
        """Start or continue an epoch and return its window, filled with the messages that the log still retains.

        The window stays the same object until ``close``. Raises ConfigurationError if the log cannot be used.
        """
        ...

    def subscribe(self, listener: WindowListener) -> None:
        """Call this listener about every change of the window from now on.

        The manager subscribes once after each ``open``, which replays messages without a listener.
        """
        ...

    async def close(self) -> None:
        """Stop appending, and release what ``open`` acquired."""
        ...

    def expire(self) -> None:
        """Evict the messages whose retention has ended."""
        ...

    async def catch_up(self, number: int) -> None:
        """Wait until the window has the messages up to a number, as far as they are stored.

        A client that was connected to another node may be ahead of this one. Raises LogUnavailable if the log cannot be
        asked.
        """
        ...

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and store the drafts as one block of contiguous numbers, or repeat the answer to a known key.

        Return when the messages are stored as durably as this log promises, and are in the window. While the log is
        unavailable, wait: the caller cancels after its own timeout, and then only repeating the key shows whether they
        were published. Raises IdempotencyConflict when the key is known for other drafts, and LogUnavailable when too
        much is waiting already. Raises TooManyRequests, and publishes nothing, when the owner of the key has used up
        its share of the keys that are remembered. The owner is the text before the first colon.
        """
        ...
