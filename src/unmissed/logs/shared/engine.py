"""The contract of an engine, which stores the messages of a shared log."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmissed.core.errors import UnmissedError
from unmissed.logs.base import Channel
from unmissed.logs.feed import Record
from unmissed.logs.writer import Stored, Write


@dataclass(frozen=True, slots=True)
class Position:
    """How far a node has read: the epoch, the latest number that the node has, and when its message was stamped.

    ``unix_ms`` is 0 if the node has no message with that number.
    """

    epoch: str
    latest: int
    unix_ms: int


@dataclass(frozen=True, slots=True)
class State:
    """What an engine holds: its epoch, and the numbers of the messages that are stored.

    ``oldest`` leaves out those that the node has, at least if a number is missing after them: reading continues there.
    It is ``latest + 1`` when none is stored. ``log_ms`` is the present time on the clock of the log.
    """

    epoch: str
    first_number: int
    oldest: int
    latest: int
    log_ms: float


class Engine(Channel, Protocol):
    """Stamps and stores messages, and hands every node the same ones in the same order.

    Every method but ``close`` raises LogUnavailable while the engine cannot be reached or cannot do its work, with a
    reason that contains no password. The method may be called again after that.
    """

    async def connect(self) -> None:
        """Connect, and create what the log needs. Raises ConfigurationError if the engine can never be used."""
        ...

    async def state(self, seen: Position | None) -> State:
        """Return what the engine holds. It begins a new epoch if it has lost messages that this node has seen."""
        ...

    def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield an empty block as soon as reading works, the messages after a number, and new ones as they are stored.

        The numbers that are yielded need not be contiguous: the caller checks it, and reads the state again. It does so
        after another empty block, too. An engine that cannot tell when another epoch begins yields one each second.
        """
        ...

    async def write(self, writes: Sequence[Write], seen: Position) -> Sequence[Stored | UnmissedError]:
        """Store these publishes, each as one block of contiguous numbers, and return the result of each.

        It may store the first of them only, at least one, so that it returns soon: the rest is passed again.

        IdempotencyConflict and TooManyRequests are returned for keys, another InvalidMessage for a publish that can
        never be stored.

        A write may be passed again after LogUnavailable, and must not be stored twice: without a key, ``Write.id``
        identifies it.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...
