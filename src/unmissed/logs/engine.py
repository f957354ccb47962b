"""The contract of an engine, which stores the messages of a shared log."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmissed.core.errors import UnmissedError
from unmissed.logs.base import Channel
from unmissed.logs.feed import Record
from unmissed.logs.writer import Stored, Write


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a node has read: the epoch, the latest number that the node has, and when its message was stamped.

    ``unix_ms`` is 0 if the node has no message with that number.
    """

    epoch: str
    latest: int
    unix_ms: int


@dataclass(frozen=True, slots=True)
class State:
    """What an engine holds: its epoch, and the numbers of the messages that are stored.

    ``oldest`` is the lowest number that the node can still read. If it is above the node's next number, the messages in
    between are lost, and reading continues at ``oldest``. It is ``latest + 1`` when no message is stored.
    ``log_ms`` is the present time on the clock of the log.
    """

    epoch: str
    first_number: int
    oldest: int
    latest: int
    log_ms: float


class Engine(Channel, Protocol):
    """Stamps and stores messages, and gives every node the same ones in the same order.

    Every method but ``close`` raises LogUnavailable while the engine cannot be reached or cannot do its work, with a
    reason that contains no password. The method may be called again after that.
    """

    async def connect(self) -> None:
        """Connect, and create what the log needs. Raises ConfigurationError if the engine can never be used."""
        ...

    async def state(self, seen: Seen | None) -> State:
        """Return what the engine holds. It begins a new epoch if it has lost messages that this node has seen."""
        ...

    def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield an empty block as soon as reading works, the messages after a number, and new ones as they are stored.

        Numbers may have holes. The caller asks for the state again after a hole, and after each further empty block: an
        engine that cannot detect a new epoch yields one every second.
        """
        ...

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | UnmissedError]:
        """Store these publishes, each as one block of contiguous numbers, and return the result of each.

        To return soon, it may store only the first of them, at least one: the caller passes the rest again.

        The result for a key may be IdempotencyConflict or TooManyRequests, and for a publish that can never be stored
        another InvalidMessage.

        A write may be passed again after LogUnavailable, and must not be stored twice: without a key, ``Write.id``
        identifies it.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...
