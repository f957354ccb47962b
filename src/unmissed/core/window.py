"""The retained messages: bounded by count, bytes and age, and read by position."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from unmissed.core.messages import MESSAGE_OVERHEAD, Message


class Outcome(StrEnum):
    """What became of a client's position."""

    COMPLETE = "complete"
    """Everything after the position is held."""
    GAP = "gap"
    """Some of what came after the position was evicted; what is held follows."""
    RESET = "reset"
    """The position belongs to another life of the log; all that is held follows."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: the newest ``max_messages``, at most ``max_bytes``, each younger than ``max_age`` seconds."""

    max_messages: int = 500
    max_age: float = 900.0
    max_bytes: int = 33_554_432


@dataclass(frozen=True, slots=True)
class Recovery:
    """The answer to one position. ``start`` is the number after which ``messages`` begin."""

    outcome: Outcome
    start: int
    oldest: int
    latest: int
    messages: tuple[Message, ...]


class Window:
    """The newest messages in order, without holes. The number of the first is ``evicted_through + 1``."""

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.latest = 0
        """The highest number ever appended; 0 before the first."""
        self.evicted_through = 0
        """The highest number ever evicted: the one source of truth about gaps."""
        self._messages: deque[Message] = deque()
        self._bytes = 0

    @property
    def oldest(self) -> int:
        """The number of the oldest message that can be held, also when none is."""
        return self.evicted_through + 1

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, message: Message) -> None:
        """Add the message after ``latest``, and evict what it pushes out."""
        self._messages.append(message)
        self._bytes += _cost(message)
        self.latest = message.sequence_number
        self.expire(message.appended_at)
        while len(self._messages) > self.retention.max_messages or self._bytes > self.retention.max_bytes:
            self._evict()

    def expire(self, now: float) -> None:
        """Evict what is ``max_age`` old or older at ``now`` (monotonic seconds)."""
        while self._messages and now - self._messages[0].appended_at >= self.retention.max_age:
            self._evict()

    def locate(self, position: int, *, same_epoch: bool = True) -> tuple[Outcome, int]:
        """Return what becomes of a position, and the number after which its owner continues."""
        if not same_epoch or position > self.latest:
            return Outcome.RESET, self.evicted_through
        if position < self.evicted_through:
            return Outcome.GAP, self.evicted_through
        return Outcome.COMPLETE, position

    def since(self, position: int, *, now: float, same_epoch: bool = True) -> Recovery:
        """Return everything held after ``position`` at ``now``, or an honest account of what is not."""
        self.expire(now)
        outcome, start = self.locate(position, same_epoch=same_epoch)
        return Recovery(outcome, start, self.oldest, self.latest, tuple(self.after(start)))

    def after(self, position: int) -> Iterable[Message]:
        """Return the messages after a position that is not below ``evicted_through``, oldest first."""
        newest_first = islice(reversed(self._messages), self.latest - position)
        return reversed(tuple(newest_first))

    def _evict(self) -> None:
        message = self._messages.popleft()
        self._bytes -= _cost(message)
        self.evicted_through = message.sequence_number


def _cost(message: Message) -> int:
    return len(message.payload) + MESSAGE_OVERHEAD
