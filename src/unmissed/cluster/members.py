"""Members: the users that follow the topics with presence, on each node, and the notes that keep all nodes informed."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, NamedTuple

from unmissed.core.audience import is_granted
from unmissed.core.messages import MAX_KEY_BYTES
from unmissed.core.reader import TopicChange
from unmissed.delivery.connection import Connection
from unmissed.delivery.registry import Registry

MAX_MEMBERS = 100_000
"""Members that one node has at most. Further ones are not listed."""

NOTE_MEMBERS = 2_000
"""Members in one note: about 60 kB, and 2 ms of work for each node."""


class Member(NamedTuple):
    """A user that follows a topic."""

    topic: str
    user_id: str


@dataclass(slots=True)
class NodeMembers:
    """What another node has sent of its members.

    Its notes have consecutive numbers. After a missing one, the node is asked for a list of all.
    """

    counts: dict[Member, int] = field(default_factory=dict)
    """The connections of each member."""
    complete: bool = False
    """Whether no note was missed since the last list."""
    active: bool = True
    """Whether the node publishes changes. One that shuts down does not."""
    number: int = 0
    listing: dict[Member, int] | None = None
    """The part of a list that has arrived; None while no list is arriving."""

    def take(self, content: dict[str, Any]) -> set[Member]:
        """Take a note of the node, and return the members that may have changed."""
        number, first, last = content["number"], content.get("first", False), content.get("last", False)
        self.active = content["active"]
        if not first and number != self.number + ("counts" in content):
            self.complete, self.listing = False, None
        self.number = number
        counts = dict(_read(content.get("counts", {})))
        if first:
            self.listing = {}
        # Counts are no differences: they are right also if a note before them was missed.
        if self.listing is not None:
            self.listing |= counts
        self._apply(counts)
        changed = {*counts}
        if last and self.listing is not None:
            changed |= self.counts.keys() - self.listing.keys()
            self.counts, self.listing, self.complete = self.listing, None, True
            self._apply({})
        return changed

    def _apply(self, counts: dict[Member, int]) -> None:
        for member, count in counts.items():
            if count:
                self.counts[member] = count
            else:
                self.counts.pop(member, None)


class Members:
    """The members on all nodes. ``patterns`` are the topics with presence: names, and prefixes with a ``*`` at the end.

    ``connections`` are those of this node. It counts them only for members that ``watch`` was called for.
    """

    def __init__(
        self,
        connections: Registry,
        *,
        node_id: str,
        patterns: Iterable[str],
        wake: Callable[[], None],
        max_members: int = MAX_MEMBERS,
    ) -> None:
        self.node_id = node_id
        self.here: dict[Member, int] = {}
        """The members on this node, with their connections at the last ``recount``."""
        self.nodes: dict[str, NodeMembers] = {}
        self.changed: set[Member] = set()
        """Those that may have changed since this was cleared."""
        self.left_out = 0
        """How many times a member was left out, because its id is too long or the node has too many members."""
        self._connections = connections
        self._patterns = frozenset(patterns)
        self._wake = wake
        self._max_members = max_members
        self._touched: dict[Member, None] = {}
        self._unsent: dict[Member, None] = {}
        self._number = 0

    def covers(self, topic: str) -> bool:
        """Return whether a topic has presence."""
        return is_granted(topic, self._patterns)

    def watch(self, connection: Connection, change: TopicChange) -> None:
        """Count the connections of a user again for these topics: a TopicWatcher of the registry."""
        for topic in (*change.added, *change.removed):
            if self.covers(topic):
                self._touched[Member(sys.intern(topic), connection.identity.user_id)] = None
                self._wake()

    def connected_here(self, member: Member) -> int:
        """Return how many connections of a member this node has now."""
        return sum(member.topic in each.topics for each in self._connections.of_user(member.user_id))

    def recount(self, *, most: int) -> bool:
        """Count the connections of at most so many members whose topics changed, and return whether any are left."""
        for member in [*islice(self._touched, most)]:
            del self._touched[member]
            count = self.connected_here(member)
            if count and member not in self.here and not self._may_join(member):
                self.left_out += 1
                continue
            if count != self.here.get(member, 0):
                self._unsent[member] = None
                self.changed.add(member)
            if count:
                self.here[member] = count
            else:
                self.here.pop(member, None)
        return bool(self._touched)

    def _may_join(self, member: Member) -> bool:
        return len(self.here) < self._max_members and len(member.user_id.encode()) <= MAX_KEY_BYTES

    def connections(self, member: Member, others: Collection[str]) -> int:
        """Return how many connections a member has to this node and to these other nodes."""
        found = (self.nodes[node].counts.get(member, 0) for node in others if node in self.nodes)
        return self.here.get(member, 0) + sum(found)

    def all(self) -> Iterator[Member]:
        """Yield each member of a snapshot, maybe several times."""
        return chain([*self.here], *[[*node.counts] for node in self.nodes.values()])

    # Notes

    def take(self, content: dict[str, Any]) -> None:
        """Take a note of another node, or of this one, which changes nothing."""
        if content["node"] != self.node_id:
            self.changed |= self.nodes.setdefault(content["node"], NodeMembers()).take(content)
            self._wake()

    def forget(self, others: Collection[str]) -> None:
        """Forget the members on all nodes except these."""
        self.nodes = {node: each for node, each in self.nodes.items() if node in others}

    def changes(self, *, active: bool) -> Iterator[dict[str, Any]]:
        """Yield notes of what has changed here since the last ones."""
        while self._unsent:
            members = [*islice(self._unsent, NOTE_MEMBERS)]
            for member in members:
                del self._unsent[member]
            yield self._note(members, active=active)

    def list_all(self, *, active: bool) -> Iterator[dict[str, Any]]:
        """Yield notes of all members here, for nodes that have missed a note."""
        members = [*self.here]
        starts = range(0, len(members) or 1, NOTE_MEMBERS)
        for start in starts:
            note = self._note(members[start : start + NOTE_MEMBERS], active=active)
            yield {**note, "first": start == 0, "last": start == starts[-1]}

    def beat(self, *, active: bool) -> dict[str, Any]:
        """Return a note that shows whether another node has missed one."""
        return {"node": self.node_id, "number": self._number, "active": active}

    def _note(self, members: Iterable[Member], *, active: bool) -> dict[str, Any]:
        self._number += 1
        counts: dict[str, dict[str, int]] = {}
        for member in members:
            # Now, and not when the note was begun: it may have changed.
            counts.setdefault(member.topic, {})[member.user_id] = self.here.get(member, 0)
        return {**self.beat(active=active), "counts": counts}


def _read(counts: dict[str, dict[str, int]]) -> Iterator[tuple[Member, int]]:
    for topic, users in counts.items():
        name = sys.intern(topic)
        for user_id, count in users.items():
            yield Member(name, user_id), count


def responsible(member: Member, nodes: Iterable[str]) -> str:
    """Return which of these nodes publishes the changes of a member: the same on each of them (rendezvous hashing).

    If a node comes or goes, only its own members get another one.
    """
    text = f" {member.topic} {member.user_id}"
    return max(nodes, key=lambda node: blake2b((node + text).encode(), digest_size=8).digest())
