"""What happens in a run, as facts: what publishers were told, and what each client was told and given.

Times are monotonic seconds. An epoch and a number name one message.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reader:
    """A client as the server knows it: its user, and the topics that it follows."""

    name: str
    user: str
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Audience:
    """To whom a message is addressed. Without users and topics it is for everyone."""

    users: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()

    def includes(self, reader: Reader) -> bool:
        """Return whether this reader must receive the message. Nobody else may."""
        if not self.users and not self.topics:
            return True
        return reader.user in self.users or not self.topics.isdisjoint(reader.topics)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A publisher was told the number of its message. ``submitted_at`` is the time of its first attempt."""

    at: float
    submitted_at: float
    message_id: str
    epoch: str
    number: int
    content: str
    """Digest of what the publisher chose."""
    audience: Audience = Audience()


@dataclass(frozen=True, slots=True)
class Joined:
    """A client was answered: ``connected``, or the head of a page. Delivery continues after ``position``.

    ``since`` and ``outcome`` are None if the client asked for new messages only.
    """

    at: float
    client: str
    epoch: str
    since: int | None
    position: int
    outcome: str | None
    oldest: int
    latest: int


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
class GapDeclared:
    """A client was told in a ``gap`` frame that messages are lost."""

    at: float
    client: str
    epoch: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reached:
    """A client was told that it has everything up to a number, for example by a heartbeat."""

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


ClientEvent = Joined | Delivered | GapDeclared | Reached | Ended
Event = Acknowledged | ClientEvent
