"""The retained messages: bounded by count, bytes and age, and read by position."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from unmissed.core.audience import EVERYONE, visible
from unmissed.core.audience_index import AudienceIndex, Evictions
from unmissed.core.messages import Message
from unmissed.core.retention import Retention

PAGE_BYTES = 1_048_576
"""The most bytes of messages in one page, unless a single message is larger."""

SCAN = 2_000
"""The most messages that one step looks at for a client that does not see all of them: about 1 ms of work."""

_PAGE_SCAN = 10_000
"""The same for a page over REST, which is one step: more than 1 MiB of messages of common size."""

_SCAN_FACTOR = 8
"""Reading this many neighbouring messages takes about as long as finding one by its number."""


class Outcome(StrEnum):
    """How completely a position can be recovered."""

    COMPLETE = "complete"
    """Every message after the position is retained."""
    GAP = "gap"
    """Some messages after the position were evicted; the rest follow."""
    RESET = "reset"
    """The position belongs to another epoch of the log; all retained messages follow."""


@dataclass(frozen=True, slots=True)
class Page:
    """The first messages after a position that one user sees. ``has_more``: whether further ones follow."""

    outcome: Outcome
    oldest: int
    latest: int
    messages: tuple[Message, ...]
    has_more: bool


class Window:
    """The newest messages of one epoch of a log, in order and with contiguous numbers.

    ``epoch`` is a random identifier, and ``first_number`` the number of the first message. No number is used in two
    epochs, so a number alone shows whether a position belongs to this one.
    """

    def __init__(self, retention: Retention, *, epoch: str, first_number: int) -> None:
        self.retention = retention
        self.epoch = epoch
        self.first_number = first_number
        self.latest = first_number - 1
        """The highest number appended so far; ``first_number - 1`` before the first."""
        self.evicted_through = first_number - 1
        """The highest number evicted so far. Gaps are derived from this number only."""
        self.evicted_messages = 0
        """How many messages have been evicted, in all epochs."""
        self.appended_bytes = 0
        """Bytes ever appended, including those of evicted messages."""
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._addressed = AudienceIndex()
        self._evictions = Evictions(first_number - 1)

    @property
    def oldest(self) -> int:
        """The lowest number that is not evicted, even if no message is retained."""
        return self.evicted_through + 1

    @property
    def size(self) -> int:
        """Bytes that the retained messages take."""
        return self._bytes

    def reach(self, now: float) -> float:
        """Return the age of the oldest retained message at ``now`` (monotonic seconds), or 0 without one."""
        return now - self._messages[0].appended_at if self._messages else 0.0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        """Iterate over the messages that are retained now, whoever may see them, oldest first."""
        return iter(tuple(self._messages))

    def append(self, message: Message) -> None:
        """Add the message numbered ``latest + 1`` and evict what no longer fits."""
        size = message.size_in_log
        self._messages.append(message)
        self._addressed.add(message)
        self._bytes += size
        self.appended_bytes += size
        self.latest = message.sequence_number
        self.expire(message.appended_at)
        while len(self._messages) > self.retention.max_messages or self._bytes > self.retention.max_bytes:
            self._evict()

    def skip(self, number: int) -> None:
        """Continue after ``number``: the log has lost or trimmed messages before this window held them.

        They and all earlier ones count as evicted for every client, since their audience is unknown.
        """
        self._clear()
        self.latest = self.evicted_through = number
        self._evictions.forget(number)

    def restart(self, *, epoch: str, first_number: int) -> None:
        """Begin another epoch, empty. Its first number must be above ``latest``, since no number is used twice."""
        self._clear()
        self.epoch = epoch
        self.first_number = first_number
        self.latest = self.evicted_through = first_number - 1
        self._evictions = Evictions(first_number - 1)

    def expire(self, now: float) -> None:
        """Evict messages that are at least ``max_age`` seconds old at ``now`` (monotonic seconds)."""
        while self._messages and now - self._messages[0].appended_at >= self.retention.max_age:
            self._evict()

    def lost_through(self, keys: frozenset[str] | None, *, everyone: bool = True) -> int:
        """Return the highest evicted number that a client with these keys may have missed, or, for None, any client.

        Messages for everyone count unless ``everyone`` is false.
        """
        return self.evicted_through if keys is None else self._evictions.highest(keys, everyone=everyone)

    def locate(
        self, position: int, *, epoch: str | None = None, keys: frozenset[str] | None = None
    ) -> tuple[Outcome, int]:
        """Return the outcome for a position, and where delivery continues.

        Position 0 means the start of this epoch. Without ``epoch``, only the number is checked. Evicted messages count
        if a client with these keys would have seen them; without ``keys``, all of them count.
        """
        start = self.first_number - 1
        if position == 0:
            position = start
        if epoch not in (None, self.epoch) or not start <= position <= self.latest:
            return Outcome.RESET, self.evicted_through
        if position < self.lost_through(keys):
            return Outcome.GAP, self.evicted_through
        # The position may be below ``evicted_through``: what was evicted in between was for others.
        return Outcome.COMPLETE, position

    def page(
        self,
        position: int,
        *,
        keys: frozenset[str],
        now: float,
        epoch: str | None = None,
        max_messages: int | None = None,
    ) -> Page:
        """Return what these keys make visible after ``position`` at ``now`` (monotonic seconds), up to PAGE_BYTES.

        At least one message is returned, if any is visible. Reading ends at the first message that does not fit, or
        some thousand messages after the first visible one: the next page has the rest.
        """
        self.expire(now)
        outcome, start = self.locate(position, epoch=epoch, keys=keys)
        # A complete position may be below what was evicted for others: reading begins with what is retained.
        start = max(start, self.evicted_through)
        if max_messages is None and self._bytes <= PAGE_BYTES:
            # Everything that is retained fits into one page, so nothing has to be counted or cut.
            _, seen = self.next_visible(start, keys, most=len(self))
            return Page(outcome, self.oldest, self.latest, tuple(seen), has_more=False)
        through, seen = self.next_visible(start, keys, most=_PAGE_SCAN)
        messages, has_more = _cut(seen, max_messages=max_messages)
        if not has_more and through < self.latest:
            # Only some were examined. Without this look into the index, a client would be sent to an empty next page.
            has_more = self._addressed.first_after(through, keys, everyone=True) is not None
        return Page(outcome, self.oldest, self.latest, messages, has_more)

    def messages_after(self, position: int, *, through: int | None = None) -> Iterable[Message]:
        """Return the messages after a position that is not below ``evicted_through``, oldest first.

        Read them before the next append or expiry. ``through`` is the last of them, by default ``latest``.
        """
        after = self.latest - position
        left = 0 if through is None else self.latest - through
        before = len(self._messages) - after
        # A deque is iterated from either end. From the back, the messages are also copied, to reverse them.
        if before < left or before < after - left:
            return islice(self._messages, before, len(self._messages) - left)
        return reversed(tuple(islice(reversed(self._messages), left, after)))

    def messages_before(self, number: int, *, most: int) -> tuple[Message, ...]:
        """Return the newest ``most`` of the retained messages below a number, the newest first."""
        newer = max(0, self.latest - number + 1)
        return tuple(islice(reversed(self._messages), newer, newer + most))

    def next_visible(
        self, position: int, keys: frozenset[str], *, everyone: bool = True, most: int = SCAN
    ) -> tuple[int, Iterator[Message]]:
        """Return a later position, and the messages between the two that these keys make visible.

        The position must not be below ``evicted_through``. Without ``everyone``, only messages that are addressed to
        one of the keys are returned. The index skips everything before the first of them; from there, at most ``most``
        messages are examined. If nothing is visible, the later position is ``latest``. Read the messages before the
        next append or expiry.
        """
        limit = min((self.latest - position) // _SCAN_FACTOR, most)
        numbers = self._addressed.after(position, keys, everyone=everyone, limit=limit)
        if numbers is None:
            first = self._addressed.first_after(position, keys, everyone=everyone) or position + 1
            through = min(first - 1 + most, self.latest)
            candidates: Iterable[Message] = self.messages_after(first - 1, through=through)
        else:
            through = self.latest
            candidates = (self._messages[number - self.oldest] for number in numbers)
        # Most messages are for everyone. Calling ``visible`` for them would double the time of a large page.
        if everyone:
            return through, (each for each in candidates if each.audience is EVERYONE or visible(each.audience, keys))
        return through, (each for each in candidates if each.audience.keys is not None and visible(each.audience, keys))

    def _clear(self) -> None:
        self.evicted_messages += len(self._messages)
        self._messages.clear()
        self._bytes = 0
        self._addressed = AudienceIndex()

    def _evict(self) -> None:
        message = self._messages.popleft()
        self.evicted_messages += 1
        self._addressed.remove(message)
        self._bytes -= message.size_in_log
        self.evicted_through = message.sequence_number
        self._evictions.add(message)


def _cut(messages: Iterable[Message], *, max_messages: int | None) -> tuple[tuple[Message, ...], bool]:
    """Return the first messages that fit into a page, at least one, and whether further ones follow."""
    fitting: list[Message] = []
    size = 0
    for message in messages:
        size += len(message.payload)
        if fitting and (len(fitting) == max_messages or size > PAGE_BYTES):
            return tuple(fitting), True
        fitting.append(message)
    return tuple(fitting), False
