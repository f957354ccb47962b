"""The contract of an engine, which stores the messages of a shared log."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
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

    Messages numbered up to ``lost`` may be lost for every client, because the engine has lost its newest messages, and
    no node knows which. Those that are stored are still read. The engine continues above ``lost``, so the numbers
    before that are missing: if ``oldest - 1`` is at most ``lost``, the node keeps what it has, and reads on.
    """

    epoch: str
    first_number: int
    oldest: int
    latest: int
    log_ms: float
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """What rules and keys retain below the tail, in ascending order, and what may be missing from it.

    ``lost`` has the number through which messages may be lost for a key of an audience (``#topic``, ``@user``),
    ``everyone`` that number for messages to everyone, ``others`` for all keys without a rule (None: up to the tail),
    and ``unknown`` for every client.
    """

    records: Sequence[Record] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    everyone: int = 0
    unknown: int = 0
    others: int | None = None
    partial: frozenset[int] = frozenset()
    """The numbers of values among the records of which pieces are lost."""


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

        Numbers may have holes. They are losses, unless ``Record.after`` covers them. The caller asks for the state
        again after such a loss, and after each further empty block: an engine that cannot detect a new epoch yields one
        every second.
        """
        ...

    async def archive(self, *, before: int) -> Archive:
        """Return what is retained below a number, the lowest of the tail.

        Only a node that starts, or that has fallen out of the tail, asks for it. An engine that does not know what it
        has lost returns ``unknown=before - 1``.
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
