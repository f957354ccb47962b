"""The facts of a run: the answers to publishers, and the requests and deliveries of each client.

Times are monotonic seconds. An epoch and a number name one message.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from unmissed.core.audience import Audience
from unmissed.core.messages import Value


@dataclass(frozen=True, slots=True)
class Witness:
    """A client as the server knows it: its user, and the topics that it follows."""

    name: str
    user: str
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Addressees:
    """To whom a message is addressed. Without users and topics it is for everyone."""

    users: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()

    def include(self, witness: Witness) -> bool:
        """Return whether this client must receive the message. No other client may."""
        if not self.users and not self.topics:
            return True
        return witness.user in self.users or not self.topics.isdisjoint(witness.topics)

    @property
    def audience(self) -> Audience:
        """The same as the log knows it. Publishers send the names in alphabetical order."""
        return Audience.of(users=sorted(self.users) or None, topics=sorted(self.topics) or None)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A publisher received the number of its message. ``submitted_at`` is the time of its first attempt."""

    at: float
    submitted_at: float
    message_id: str
    epoch: str
    number: int
    content: str
    """Digest of what the publisher chose."""
    addressees: Addressees = Addressees()
    value: Value | None = None
    """What the message says about the value of a key."""
    node: str = ""
    """The node that has published it; empty if an earlier attempt had been published."""


@dataclass(frozen=True, slots=True)
class SentLive:
    """A publisher has sent an ephemeral message, once. ``at`` is the time of the answer, or when it gave up."""

    at: float
    submitted_at: float
    message_id: str
    content: str
    addressees: Addressees = Addressees()
    node: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A transaction has published a message in the database, and has ended. ``at`` is when its outcome was known."""

    at: float
    submitted_at: float
    """When it called ``publish``."""
    message_id: str
    content: str
    transaction: str
    place: int
    """The place of the message among those of its transaction."""
    committed: bool
    """Whether the transaction was committed, and no savepoint before the message was rolled back."""
    addressees: Addressees = Addressees()


@dataclass(frozen=True, slots=True)
class Joined:
    """A client was answered: ``connected``, or the head of a page. Delivery continues after ``position``.

    ``since`` and ``outcome`` are None if the client asked for new messages only. ``lost`` is the range of a gap.
    """

    at: float
    client: str
    epoch: str
    since: int | None
    position: int
    outcome: str | None
    oldest: int
    latest: int
    lost: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """A client received a message. ``message_id`` and ``content`` are None if it is not one of this run."""

    at: float
    client: str
    epoch: str
    number: int
    digest: str
    """Digest of its bytes."""
    message_id: str | None
    content: str | None


@dataclass(frozen=True, slots=True)
class StateValue(Delivered):
    """A client received a message as a part of a state."""


@dataclass(frozen=True, slots=True)
class StateComplete:
    """The state is complete: the values that a client has received since it asked are those up to a number."""

    at: float
    client: str
    epoch: str
    number: int


@dataclass(frozen=True, slots=True)
class DeliveredLive:
    """A client received an ephemeral message on a connection that it began to open at ``begun_at``.

    That time is infinity if the message was in a page.
    """

    at: float
    client: str
    epoch: str
    message_id: str | None
    content: str | None
    begun_at: float


@dataclass(frozen=True, slots=True)
class GapDeclared:
    """A client received a ``gap`` frame: of these messages, at least the last one is lost."""

    at: float
    client: str
    epoch: str
    first: int
    last: int
    position: int
    """The ``sequence_number`` of the frame."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A client has everything up to a number, as the server declares, for example by a heartbeat."""

    at: float
    client: str
    epoch: str
    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A client was served without faults until it had everything up to a number, and asks for no more."""

    at: float
    client: str
    epoch: str
    number: int


ClientFact = Joined | Delivered | DeliveredLive | StateComplete | GapDeclared | Reached | Ended
PublisherFact = Acknowledged | SentLive | Written
Fact = PublisherFact | ClientFact


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault that was caused, such as a cut connection or a killed process. ``at`` is in monotonic seconds."""

    at: float
    kind: str
    target: str = ""


class Recorder:
    """The history of a run, in the order in which it was observed, and the faults that were caused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.facts: list[Fact] = []
        self.incidents: list[Incident] = []
        self.witnesses: dict[str, Witness] = {}
        self.counts: Counter[str] = Counter()
        """Facts by the names of their classes, and ``reconnects``, ``gaps`` and ``resets``."""
        self.clock = clock

    def introduce(self, witness: Witness) -> None:
        """Add a client, whose history will be checked."""
        self.witnesses[witness.name] = witness

    def add(self, fact: Fact) -> None:
        """Add what was observed."""
        self.facts.append(fact)
        self.counts[type(fact).__name__] += 1
        if isinstance(fact, Joined):
            self.counts["reconnects"] += fact.since is not None
            self.counts[f"{fact.outcome}s"] += 1

    def note(self, kind: str, target: str = "") -> None:
        """Add a fault that was caused now."""
        self.incidents.append(Incident(self.clock(), kind, target))
