"""Ephemeral messages: they have no number, no log stores them, and they are delivered now or never."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unmissed.core.audience import Audience, visible
from unmissed.core.chunks import Chunk, JoinedChunk

MAX_WAITING = 1_000
"""The most ephemeral messages that wait for a flush, or for the messages before them. The oldest ones are dropped."""

MAX_WAITING_BYTES = 8_388_608
"""The most bytes of their JSON and their audiences together."""


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """One message. It comes after all messages up to the number ``after``, and is dropped at ``ends_at``.

    ``ends_at`` is in monotonic seconds.
    """

    payload: bytes
    audience: Audience
    after: int
    ends_at: float

    @property
    def size(self) -> int:
        """Bytes that the message takes."""
        return len(self.payload) + self.audience.size_in_log


class LiveBatch:
    """The ephemeral messages of one flush. Each is encoded once for all connections."""

    def __init__(self, messages: Sequence[Ephemeral]) -> None:
        self._audiences = [message.audience for message in messages]
        self._parts = [Chunk(message.payload) for message in messages]
        self._joined: dict[tuple[int, ...], Chunk] = {}
        keys = [audience.keys for audience in self._audiences]
        self.keys = None if None in keys else frozenset[str]().union(*(each or () for each in keys))
        """The keys of those that see any of the messages; None for everyone."""

    def visible_to(self, keys: frozenset[str]) -> Chunk | None:
        """Return the messages that these keys make visible, if any. Connections that see the same share a chunk."""
        seen = tuple(place for place, audience in enumerate(self._audiences) if visible(audience, keys))
        if len(seen) < 2:
            return self._parts[seen[0]] if seen else None
        chunk = self._joined.get(seen)
        if chunk is None:
            chunk = self._joined[seen] = JoinedChunk(*(self._parts[place] for place in seen))
        return chunk


class WaitingMessages:
    """The ephemeral messages that no flush has taken yet, in bounded memory."""

    def __init__(self, *, most: int = MAX_WAITING, most_bytes: int = MAX_WAITING_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.messages: deque[Ephemeral] = deque()
        self._bytes = 0

    def add(self, messages: Iterable[Ephemeral]) -> int:
        """Add messages, and return how many of the oldest ones were dropped to make room."""
        dropped = 0
        for message in messages:
            self.messages.append(message)
            self._bytes += message.size
            while len(self.messages) > self._most or (self._bytes > self._most_bytes and len(self.messages) > 1):
                self._bytes -= self.messages.popleft().size
                dropped += 1
        return dropped

    def take(self, latest: int, *, now: float) -> tuple[list[Ephemeral], int]:
        """Return the messages that nothing after ``latest`` comes before, and how many others are too old by now."""
        found, rest, dropped = list[Ephemeral](), deque[Ephemeral](), 0
        for message in self.messages:
            if message.after <= latest:
                found.append(message)
            elif now < message.ends_at:
                rest.append(message)
            else:
                dropped += 1
        self.messages = rest
        self._bytes = sum(message.size for message in rest)
        return found, dropped
