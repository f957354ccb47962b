"""Attendance: what the log says of the members of a topic, and which messages are due because they differ from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from itertools import chain, count

from unmissed.cluster.members import Member
from unmissed.core.messages import Message

COUNT_SECONDS = 1.5
"""How long the number of connections of a member has differed. Most changes are a reconnect: over by then.

A silent node is overdue earlier, so that clients of a dead node may reconnect while their old connections still count.
"""

RETRY_SECONDS = 1.0
"""Seconds until a message is due again that was published by another node, or not at all."""


class Due(Enum):
    """Why a message about a member is due."""

    JOIN = "it has come"
    COUNT = "the number of its connections has changed"
    LEAVE = "it has left"
    REFRESH = "its message reaches the end of its retention"


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest message of the log about a member. ``connections`` is 0 if it has left."""

    message: Message
    connections: int


@dataclass(slots=True)
class Pending:
    """A message that is due at a time, in monotonic seconds."""

    due: Due
    at: float
    attempt: int = 0
    """How many times another node was faster, or seemed to be."""
    queued: bool = field(default=False, repr=False)


class Attendance:
    """The entries of the log about members, and the messages that are due.

    ``grace_seconds`` is how long a member has no connection when it has left. ``max_age`` returns for how many seconds
    the log retains a message to a topic. ``entry_seconds`` is how long it is remembered that a member has left: longer
    than the log knows idempotency keys, which are made of the numbers here.
    """

    def __init__(self, *, grace_seconds: float, max_age: Callable[[str], float], entry_seconds: float) -> None:
        self.entries: dict[Member, Entry] = {}
        self._delays = {Due.JOIN: 0.0, Due.COUNT: COUNT_SECONDS, Due.LEAVE: grace_seconds, Due.REFRESH: 0.0}
        self._max_age = max_age
        self._entry_seconds = entry_seconds
        self._pending: dict[Member, Pending] = {}
        self._queue: list[tuple[float, int, Member]] = []
        self._ordinal = count()

    def begin(self) -> None:
        """Forget all entries: the log has begun another epoch."""
        self.entries.clear()

    def members(self) -> Iterator[Member]:
        """Yield each member of a snapshot that has an entry or a message that is due, maybe twice."""
        return chain([*self.entries], [*self._pending])

    def compare(self, member: Member, connections: int, *, now: float) -> None:
        """Compare a member with the log: if they differ, a message is due after some time, unless that ends before."""
        due = self._due(member, connections, now=now)
        if due is None:
            self._pending.pop(member, None)
            return
        pending = self._pending.get(member)
        if pending is None or pending.due is not due:
            pending = self._pending[member] = Pending(due, now + self._delays[due])
        self._enqueue(member, pending)

    def _due(self, member: Member, connections: int, *, now: float) -> Due | None:
        entry = self.entries.get(member)
        listed = 0 if entry is None else entry.connections
        if connections != listed:
            return Due.COUNT if connections and listed else Due.JOIN if connections else Due.LEAVE
        if entry is not None:
            age = now - entry.message.appended_at
            if listed and age >= self._max_age(member.topic) / 2:
                return Due.REFRESH
            if not listed and age >= self._entry_seconds:
                del self.entries[member]
        return None

    def retry(self, member: Member, *, at: float, attempt: int) -> None:
        """Let a message be due again at this time, unless the log has it by then."""
        pending = self._pending.get(member)
        if pending is not None:
            self._pending[member] = again = Pending(pending.due, at, attempt)
            self._enqueue(member, again)

    def take_due(self, *, now: float) -> Iterator[tuple[Member, Pending]]:
        """Yield the messages that are due. Those that ``retry`` is not called for wait for another ``compare``."""
        while self._queue and self._queue[0][0] <= now:
            at, _, member = heappop(self._queue)
            pending = self._pending.get(member)
            if pending is not None and pending.at == at and pending.queued:
                pending.queued = False
                yield member, pending

    def next_at(self) -> float | None:
        """Return when the next message may be due."""
        return self._queue[0][0] if self._queue else None

    def _enqueue(self, member: Member, pending: Pending) -> None:
        if not pending.queued:
            pending.queued = True
            heappush(self._queue, (pending.at, next(self._ordinal), member))
