"""The retained messages: bounded by count, bytes and age, and read by position."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from unmissed.core.messages import MESSAGE_OVERHEAD, Message


class Outcome(StrEnum):
    """How completely a position can be recovered."""

    COMPLETE = "complete"
    """Everything after the position is held."""
    GAP = "gap"
    """Some messages after the position were evicted; the rest follow."""
    RESET = "reset"
    """The position belongs to another life of the log; everything held follows."""


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
    """The newest messages of one life of a log, in order and without holes.

    ``epoch`` is the random name of this life and ``first_number`` the number of its first message. Lives never share a
    number, so a number alone tells whether a position belongs to this one.
    """

    def __init__(self, retention: Retention, *, epoch: str, first_number: int) -> None:
        self.retention = retention
        self.epoch = epoch
        self.first_number = first_number
        self.latest = first_number - 1
        """The highest number appended so far; ``first_number - 1`` before the first."""
        self.evicted_through = first_number - 1
        """The highest number evicted so far: the one source of truth about gaps."""
        self.appended_bytes = 0
        """Bytes ever appended, including those of evicted messages."""
        self._messages: deque[Message] = deque()
        self._bytes = 0

    @property
    def oldest(self) -> int:
        """The number of the oldest message that can be held, also when none is held."""
        return self.evicted_through + 1

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, message: Message) -> None:
        """Add the message numbered ``latest + 1`` and evict what no longer fits."""
        cost = _cost(message)
        self._messages.append(message)
        self._bytes += cost
        self.appended_bytes += cost
        self.latest = message.sequence_number
        self.expire(message.appended_at)
        while len(self._messages) > self.retention.max_messages or self._bytes > self.retention.max_bytes:
            self._evict()

    def expire(self, now: float) -> None:
        """Evict messages that are ``max_age`` old or older at ``now`` (monotonic seconds)."""
        while self._messages and now - self._messages[0].appended_at >= self.retention.max_age:
            self._evict()

    def locate(self, position: int, *, epoch: str | None = None) -> tuple[Outcome, int]:
        """Return the outcome for a position, and the number after which its owner continues.

        Position 0 stands for the start of this life. Without ``epoch`` the number alone decides.
        """
        start = self.first_number - 1
        if position == 0:
            position = start
        if epoch not in (None, self.epoch) or not start <= position <= self.latest:
            return Outcome.RESET, self.evicted_through
        if position < self.evicted_through:
            return Outcome.GAP, self.evicted_through
        return Outcome.COMPLETE, position

    def recover(self, position: int, *, now: float, epoch: str | None = None) -> Recovery:
        """Return everything held after ``position`` at ``now`` (monotonic seconds), and whether that is complete."""
        self.expire(now)
        outcome, start = self.locate(position, epoch=epoch)
        return Recovery(outcome, start, self.oldest, self.latest, tuple(self.messages_after(start)))

    def messages_after(self, position: int) -> Iterable[Message]:
        """Return the messages after a position that is not below ``evicted_through``, oldest first."""
        newest_first = islice(reversed(self._messages), self.latest - position)
        return reversed(tuple(newest_first))

    def _evict(self) -> None:
        message = self._messages.popleft()
        self._bytes -= _cost(message)
        self.evicted_through = message.sequence_number


def _cost(message: Message) -> int:
    return len(message.payload) + message.audience.size + MESSAGE_OVERHEAD
