"""The retained messages: each stays as long as its rule says, and is read by position."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, takewhile

from unmissed.core import fact
from unmissed.core.audience import EVERYONE, visible
from unmissed.core.evictions import Evictions
from unmissed.core.messages import Draft, Message
from unmissed.core.ordered import AudienceIndex, Ordered, Shelf
from unmissed.core.retention import Retention
from unmissed.core.shelves import ShelfFacts, Shelves
from unmissed.core.values import Values

PAGE_BYTES = 1_048_576
"""The most bytes of messages in one page, unless a single message is larger."""

SCAN = 2_000
"""The most messages that one step looks at for a client that does not see all of them: about 1 ms of work."""

_PAGE_SCAN = 10_000
"""The same for a page over REST, which is one step: more than 1 MiB of messages of common size."""

_REMOVED_AT_ONCE = 250
"""The most replaced messages that one append removes: a value may replace thousands of pieces."""

_EVICTED_AT_ONCE = 50
"""The most messages that one append evicts because of their number or age. Too many are there only by their age."""

_EXPIRED_AT_ONCE = 500
"""The most messages of a rule that are evicted together because of their age: about 1 ms of work."""

_SCAN_FACTOR = 8
"""Reading this many neighbouring messages takes about as long as finding one by its number."""


class Outcome(StrEnum):
    """How completely a position can be recovered."""

    COMPLETE = "complete"
    """Every message after the position is retained, or was replaced by a later one that is."""
    GAP = "gap"
    """Some messages after the position were evicted; the rest follow."""
    RESET = "reset"
    """The position belongs to another epoch of the log; all retained messages follow."""


@fact
class Located:
    """Where delivery continues for a position, after the number ``start``, and how complete it is.

    ``lost_through`` is the highest number that the outcome declares lost; ``start`` or less if it declares none.
    """

    outcome: Outcome
    start: int
    lost_through: int

    @property
    def lost(self) -> tuple[int, int] | None:
        """The declared range: of the messages from the first to the last number, at least the last one is lost."""
        return (self.start + 1, self.lost_through) if self.lost_through > self.start else None


@fact
class Page:
    """The first messages after a position that one user sees. ``has_more``: whether further ones follow.

    ``sequence_number`` is the position after them, with which the client asks again.
    """

    outcome: Outcome
    oldest: int
    latest: int
    messages: tuple[Message, ...]
    has_more: bool
    sequence_number: int
    lost: tuple[int, int] | None = None
    """The first and the last number of the range in which messages are lost."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a log knows about the time before its contiguous tail, which begins after the number ``through``.

    ``messages`` are those that rules and keys retain, in ascending order. The other numbers say through which one
    messages may be lost: ``lost`` for keys that a rule is about, ``everyone`` for broadcasts, ``others`` for all keys
    without a rule, and ``unknown`` for every client.
    """

    through: int
    messages: Sequence[Message] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    everyone: int = 0
    others: int = 0
    unknown: int = 0
    partial: frozenset[int] = frozenset()
    """The numbers of values among the messages that had pieces, not all of which are retained."""


class Window:
    """The retained messages of one epoch of a log, in ascending order. Their numbers may have holes.

    A message leaves the window when it is *evicted*, by the count or the age of its rule or for lack of room: then it
    is lost for clients that have not seen it. Or it is *replaced* by a later message with the same key and audience,
    which loses nothing.

    ``epoch`` is a random identifier, and ``first_number`` the number of the first message. No number is used in two
    epochs, so a number alone shows whether a position belongs to this one.
    """

    def __init__(self, retention: Retention, *, epoch: str, first_number: int) -> None:
        self.retention = retention
        self.evicted_messages = 0
        """How many messages have been evicted, in all epochs."""
        self.replaced_messages = 0
        """How many messages have been replaced or deleted by later ones with their key, in all epochs."""
        self.appended_bytes = 0
        """Bytes ever appended, including those of evicted messages."""
        self.changes = 0
        """Increases with each message that is added or removed."""
        self.latest = 0
        self._begin(epoch, first_number)

    def _begin(self, epoch: str, first_number: int) -> None:
        self.epoch = epoch
        self.first_number = first_number
        self.latest = first_number - 1
        """The highest number so far; ``first_number - 1`` before the first."""
        self.evicted_through = first_number - 1
        """The highest number that was evicted for any client."""
        self._evictions = Evictions(first_number - 1, retention=self.retention)
        self._left_out: list[tuple[int, int]] = []
        """Ranges of numbers that ``leave_out`` declared: above the first, up to the second."""
        self._empty()

    def _empty(self) -> None:
        self._messages = Ordered()
        self._size = 0
        self._addressed = AudienceIndex(self._messages)
        self._shelves = Shelves(self.retention, self._messages)
        self._values = Values()
        self._replaced: dict[int, Message] = {}
        """Messages that were replaced, but are not removed yet."""
        self.changes += 1

    @property
    def oldest(self) -> int:
        """The lowest number that is retained, or the next one if no message is."""
        first = self._messages.first
        return self.latest + 1 if first is None else first.sequence_number

    @property
    def size(self) -> int:
        """Bytes that the retained messages take."""
        return self._size

    def shelves(self) -> list[ShelfFacts]:
        """Return what is retained without a rule, and then by each rule."""
        return self._shelves.facts()

    def reach(self, now: float) -> float:
        """Return the age of the oldest message without a rule at ``now`` (monotonic seconds), or 0 without one."""
        first = self._shelves.others.order.first
        return 0.0 if first is None else now - first.appended_at

    def __len__(self) -> int:
        return self._messages.count

    def __iter__(self) -> Iterator[Message]:
        """Iterate over the messages that are retained now, whoever may see them, oldest first."""
        return iter(tuple(self._messages.after(-1)))

    # Appending and evicting

    def append(self, message: Message, *, whole: bool = True) -> None:
        """Add a message with a number above ``latest``, remove what it replaces, and evict what no longer fits.

        ``whole`` is false if a value that the message may be a piece of may lack earlier parts.
        """
        audience, value, size = message.audience, message.value, message.size_in_log
        if value is not None:
            self._replaced.update(
                (each.sequence_number, each) for each in self._values.add(message, value, whole=whole)
            )
        if self._replaced:
            self._remove_replaced()
        # Before the list of all messages, which the index may copy.
        if audience.keys is not None or not self._addressed.is_trivial:
            self._addressed.add(message)
        self._messages.append(message)
        shelf = self._shelves.of(audience) if self._shelves.has_rules else self._shelves.others
        shelf.add(message, size=size)
        self._size += size
        self.appended_bytes += size
        self.latest = message.sequence_number
        self.changes += 1
        left = _EVICTED_AT_ONCE
        while left and (overdue := shelf.overdue(audience, message.appended_at)) is not None:
            self._remove(overdue, shelf)
            left -= 1
        while self._size > self.retention.max_bytes:
            self._make_room()

    def _remove_replaced(self) -> None:
        """Remove replaced messages, of many only the first: until the others are removed, reading them does no harm."""
        for number in tuple(islice(self._replaced, _REMOVED_AT_ONCE)):
            message = self._replaced[number]
            # The order of topics may differ, and with it the rule.
            self._remove(message, self._shelves.of(message.audience))

    def _make_room(self) -> None:
        """Evict the oldest message of the rule that takes the most bytes."""
        largest = self._shelves.largest() if self._shelves.has_rules else self._shelves.others
        oldest = largest.order.first
        if oldest is not None:
            self._remove(oldest, largest)

    def _remove(self, message: Message, shelf: Shelf) -> None:
        """Remove a message, which is lost for clients that have not seen it unless another one has replaced it."""
        number, size = message.sequence_number, message.size_in_log
        self._messages.remove(number)
        if message.audience.keys is not None or not self._addressed.is_trivial:
            self._addressed.remove(message)
        shelf.remove(message, size=size)
        self._size -= size
        self.changes += 1
        if self._replaced and self._replaced.pop(number, None) is not None:
            self.replaced_messages += 1
            return
        self.evicted_messages += 1
        # A third of the time of ``max``, in what each publish does.
        if number > self.evicted_through:  # noqa: PLR1730
            self.evicted_through = number
        self._evictions.add(message)
        if message.value is not None:
            self._values.evicted(message, message.value)

    def expire(self, now: float) -> None:
        """Evict messages that are as old as their rule allows at ``now`` (monotonic seconds), up to 500 of each rule.

        If more are too old, the next calls evict them: all at once would be a pause.
        """
        if self._replaced:
            self._remove_replaced()
        for shelf in self._shelves if self._shelves.has_rules else (self._shelves.others,):
            left = _EXPIRED_AT_ONCE
            while left and (oldest := shelf.too_old(now)) is not None:
                self._remove(oldest, shelf)
                left -= 1

    def skip(self, number: int) -> None:
        """Continue after ``number``: the log may have lost messages before this window held them.

        Everything through this number counts as lost for every client, since its audience is unknown. What is retained
        stays.
        """
        self.latest = self.evicted_through = number
        self._evictions.forget(number)
        self.changes += 1

    def leave_out(self, after: int, through: int) -> None:
        """Declare that no message of this log has a number above ``after`` up to ``through``, and continue after them.

        A position among them is a gap: its client has seen messages that the log has lost.
        """
        self._left_out.append((after, through))
        self.latest = max(self.latest, through)
        self.changes += 1

    def restore(self, earlier: Earlier) -> None:
        """Hold what a log has retained before its tail, and nothing else. The tail is appended next.

        At the start of a node, or if it was away for so long that the tail has left it behind.
        """
        self.evicted_messages += len(self)
        self._empty()
        self._evictions = self._marks(earlier)
        marks = (earlier.everyone, earlier.others, earlier.unknown, *earlier.lost.values())
        self.evicted_through = max(self.first_number - 1, *marks)
        for message in earlier.messages:
            self.replay(message)
            if message.value is not None and message.sequence_number in earlier.partial:
                self._values.damage(message, message.value)
        self.latest = max(earlier.through, self.first_number - 1)

    def replay(self, message: Message) -> None:
        """Add a message as ``append`` does, at the start of a node: earlier parts of its value may be lost."""
        self.append(message, whole=not self._may_lack_earlier(message))

    def _may_lack_earlier(self, message: Message) -> bool:
        """Return whether messages may be lost since the value that a piece was added to, or ever without one."""
        if message.value is None or not message.value.append:
            return False
        base = self._values.of(message.audience, message.value.key)
        start = self.first_number - 1 if base is None else base.sequence_number
        keys = message.audience.keys
        return self._evictions.highest(keys or (), everyone=keys is None) > start

    def _marks(self, earlier: Earlier) -> Evictions:
        none = self.first_number - 1
        evictions = Evictions(none, retention=self.retention)
        if earlier.unknown > none:
            evictions.forget(earlier.unknown)
        evictions.mark_everyone(earlier.everyone)
        if earlier.others > none:
            evictions.mark_others(earlier.others)
        for key, number in earlier.lost.items():
            evictions.mark(key, number)
        return evictions

    def restart(self, *, epoch: str, first_number: int) -> None:
        """Begin another epoch, empty. Its first number must be above ``latest``, since no number is used twice."""
        self.evicted_messages += len(self)
        self._begin(epoch, first_number)

    def has_room(self, drafts: Sequence[Draft | Message], *, after: int, share: int = 1) -> bool:
        """Return whether appending these drafts keeps all that was appended after a number.

        With a larger ``share``, only 1/share of what each rule keeps counts as room. Bytes are not looked at.
        """
        # Without a look at their topics: this many fit, whatever these are.
        if self.latest - after + len(drafts) <= self._shelves.least // share:
            return True
        return self._shelves.room(drafts, after=after, share=share)

    # Values

    def is_whole(self, message: Message) -> bool:
        """Return whether all parts of the value that a retained message with a key belongs to are retained."""
        return message.sequence_number not in self._replaced and self._values.is_whole(message)

    def value_ending_with(self, message: Message, *, through: int) -> Sequence[Message]:
        """Return all parts up to a number of a whole value, for the last of them; none for any other message."""
        if message.value is None or message.sequence_number in self._replaced:
            return ()
        return self._values.ending_with(message, through=through)

    # Reading

    def lost_through(self, keys: frozenset[str] | None, *, everyone: bool = True) -> int:
        """Return the highest evicted number that a client with these keys may have missed, or, for None, any client.

        Messages for everyone count unless ``everyone`` is false.
        """
        return self.evicted_through if keys is None else self._evictions.highest(keys, everyone=everyone)

    def locate(self, position: int, *, epoch: str | None = None, keys: frozenset[str] | None = None) -> Located:
        """Return how completely a position can be recovered, and where delivery begins.

        Position 0 means the start of this epoch. Without ``epoch``, only the number is checked. Evicted messages count
        if a client with these keys would have seen them; without ``keys``, all of them count.
        """
        start = self.first_number - 1
        if position == 0:
            position = start
        lost = self.lost_through(keys)
        for after, through in self._left_out:
            if after < position < through:
                lost = max(lost, through)
        if epoch not in (None, self.epoch) or not start <= position <= self.latest:
            # Below the lowest retained number: everything that is retained follows.
            return Located(Outcome.RESET, self.oldest - 1, lost)
        # A gap does not move the position: what is retained between it and the lost message follows.
        return Located(Outcome.GAP if position < lost else Outcome.COMPLETE, position, lost)

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
        located = self.locate(position, epoch=epoch, keys=keys)
        if max_messages is None and self._size <= PAGE_BYTES:
            # Everything that is retained fits into one page, so nothing has to be counted or cut.
            _, seen = self.next_visible(located.start, keys, most=len(self) + 1)
            return self._page(located, tuple(seen), through=self.latest)
        through, seen = self.next_visible(located.start, keys, most=_PAGE_SCAN)
        messages, is_cut = _cut(seen, max_messages=max_messages)
        if is_cut:
            through = messages[-1].sequence_number
        elif through < self.latest and self._addressed.first_after(through, keys, everyone=True) is None:
            # Only some were examined. Without this look into the index, a client would be sent to an empty next page.
            through = self.latest
        return self._page(located, messages, through=through)

    def _page(self, located: Located, messages: tuple[Message, ...], *, through: int) -> Page:
        has_more = through < self.latest
        return Page(located.outcome, self.oldest, self.latest, messages, has_more, through, located.lost)

    def messages_after(self, position: int, *, through: int | None = None) -> Iterator[Message]:
        """Return the messages after a position, oldest first. Read them before the next append or expiry.

        ``through`` is the number of the last of them, by default ``latest``.
        """
        messages = self._messages.after(position)
        return messages if through is None else takewhile(lambda each: each.sequence_number <= through, messages)

    def messages_before(self, number: int, *, most: int) -> tuple[Message, ...]:
        """Return the newest ``most`` of the retained messages below a number, the newest first."""
        return tuple(islice(self._messages.before(number), most))

    def next_visible(
        self, position: int, keys: frozenset[str], *, everyone: bool = True, most: int = SCAN
    ) -> tuple[int, Iterator[Message]]:
        """Return a later position, and the messages between the two that these keys make visible.

        Without ``everyone``, only messages that are addressed to one of the keys are returned. The index skips
        everything before the first of them; from there, about ``most`` messages are examined. If nothing is visible,
        the later position is ``latest``. Read the messages before the next append or expiry.
        """
        if everyone and self._addressed.is_trivial:
            # The usual case without topics and users: every message is visible.
            through = self._messages.through(position, most=most)
            return self.latest if through is None else through, self.messages_after(position, through=through)
        limit = min(self._messages.count_after(position, limit=_SCAN_FACTOR * most) // _SCAN_FACTOR, most)
        found = self._addressed.after(position, keys, everyone=everyone, limit=limit)
        if found is not None:
            return self.latest, iter(found)
        first = self._addressed.first_after(position, keys, everyone=everyone)
        if first is None:
            return self.latest, iter(())
        before = first.sequence_number - 1
        through = self._messages.through(before, most=most)
        candidates = self.messages_after(before, through=through)
        # Most messages are for everyone. Calling ``visible`` for them would double the time of a large page.
        if everyone:
            seen = (each for each in candidates if each.audience is EVERYONE or visible(each.audience, keys))
        else:
            seen = (each for each in candidates if each.audience.keys is not None and visible(each.audience, keys))
        return self.latest if through is None else through, seen


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
