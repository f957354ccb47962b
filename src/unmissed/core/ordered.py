"""Messages in ascending order of their numbers, any of which can be removed: by audience, and with limits."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter

from unmissed.core.audience import Audience
from unmissed.core.messages import Message

BLOCK = 1_000
"""The most messages of one block. Removing one moves the rest of its block: 8 kB of pointers, about 0.1 us."""

_number = attrgetter("sequence_number")


def _first_number(block: list[Message]) -> int:
    return block[0].sequence_number


def _places_through(block: list[Message], position: int) -> int:
    """Return how many messages of a block have numbers up to a position."""
    # The numbers of most blocks have no holes. Then no search is needed.
    guess = position - block[0].sequence_number + 1
    if 0 < guess <= len(block) and block[guess - 1].sequence_number == position:
        return guess
    return bisect_right(block, position, key=_number)


class Ordered:
    """Messages with ascending numbers, in blocks. They are added at the end, and removed anywhere."""

    __slots__ = ("_blocks", "count")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._blocks: list[list[Message]] = [[]]
        """None is empty, unless it is the only one."""
        self.count = 0
        """How many messages there are."""
        for message in messages:
            self.append(message)

    def append(self, message: Message) -> None:
        """Add a message whose number is higher than all others."""
        self.count += 1
        last = self._blocks[-1]
        if len(last) < BLOCK:
            last.append(message)
        else:
            self._blocks.append([message])

    def remove(self, number: int) -> None:
        """Remove the message with this number, which must be one of them."""
        self.count -= 1
        blocks, at = self._blocks, 0
        block = blocks[0]
        # Most are removed from the start.
        if block[0].sequence_number == number:
            del block[0]
        else:
            at = bisect_right(blocks, number, key=_first_number) - 1
            block = blocks[at]
            del block[_places_through(block, number) - 1]
        if len(block) <= BLOCK // 4:
            self._merge(at)

    def _merge(self, at: int) -> None:
        """Join a small block with the next one, if both are small, and forget an empty one."""
        blocks = self._blocks
        if at + 1 < len(blocks) and len(blocks[at]) + len(blocks[at + 1]) <= BLOCK // 2:
            blocks[at] += blocks.pop(at + 1)
        elif not blocks[at] and len(blocks) > 1:
            del blocks[at]

    def copy(self) -> "Ordered":
        """Return the same messages, for about 1 us a block."""
        copy = Ordered()
        copy._blocks, copy.count = [block.copy() for block in self._blocks], self.count
        return copy

    @property
    def first(self) -> Message | None:
        """The message with the lowest number, if there is one."""
        return self._blocks[0][0] if self.count else None

    def after(self, position: int) -> Iterator[Message]:
        """Iterate over the messages above a position, in order. Read them before the next change."""
        at, place = self._find(position)
        blocks = self._blocks
        if at == len(blocks) - 1:
            return iter(blocks[at][place:] if place else blocks[at])
        rest = (blocks[index] for index in range(at + 1, len(blocks)))
        return chain(blocks[at][place:], chain.from_iterable(rest))

    def before(self, number: int) -> Iterator[Message]:
        """Iterate over the messages below a number, the newest first. Read them before the next change."""
        for block in reversed(self._blocks):
            if block and block[0].sequence_number < number:
                yield from reversed(block[: bisect_left(block, number, key=_number)])

    def first_after(self, position: int) -> Message | None:
        """Return the message with the lowest number above a position, if there is one."""
        return next(self.after(position), None)

    def count_after(self, position: int, *, limit: int) -> int:
        """Return how many messages are above a position; if these are more than ``limit``, any number above it."""
        at, place = self._find(position)
        count = len(self._blocks[at]) - place
        while count <= limit and at + 1 < len(self._blocks):
            at += 1
            count += len(self._blocks[at])
        return count

    def through(self, position: int, *, most: int) -> int | None:
        """Return the number of the ``most``-th message above a position, or None if there are not as many."""
        at, place = self._find(position)
        while at < len(self._blocks):
            block = self._blocks[at]
            if len(block) - place >= most:
                return block[place + most - 1].sequence_number
            most -= len(block) - place
            at, place = at + 1, 0
        return None

    def _find(self, position: int) -> tuple[int, int]:
        """Return the block where the messages above a position begin, and their place in it, which may be its end."""
        blocks = self._blocks
        last = len(blocks) - 1
        # Most readers are close to the end.
        if not blocks[last] or blocks[last][0].sequence_number > position:
            last = bisect_right(blocks, position, key=_first_number) - 1 if self.count else 0
            if last < 0:
                return 0, 0
        return last, _places_through(blocks[last], position) if self.count else 0


class Groups:
    """Messages by name, each group with ascending numbers. A group of one message takes no object of its own."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[str, Message | Ordered] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, name: str, message: Message) -> None:
        """Add a message whose number is higher than all others of its group."""
        found = self._by_name.setdefault(name, message)
        if isinstance(found, Ordered):
            found.append(message)
        # For a new name, ``setdefault`` has just stored this message.
        elif found is not message:
            self._by_name[name] = Ordered((found, message))

    def remove(self, name: str, message: Message) -> None:
        """Remove a message, which must be one of this group."""
        found = self._by_name[name]
        if isinstance(found, Ordered) and found.count > 1:
            found.remove(message.sequence_number)
        else:
            del self._by_name[name]

    def size(self, name: str) -> int:
        """Return how many messages a group has."""
        found = self._by_name.get(name)
        return found.count if isinstance(found, Ordered) else int(found is not None)

    def first(self, name: str) -> Message | None:
        """Return the message of a group with the lowest number, if it has one."""
        found = self._by_name.get(name)
        return found.first if isinstance(found, Ordered) else found

    def count_after(self, name: str, position: int, *, limit: int) -> int:
        """Return how many messages of a group are above a position: see ``Ordered.count_after``."""
        found = self._by_name.get(name)
        if isinstance(found, Ordered):
            return found.count_after(position, limit=limit)
        return int(found is not None and found.sequence_number > position)

    def first_after(self, name: str, position: int) -> Message | None:
        """Return the message of a group with the lowest number above a position, if there is one."""
        found = self._by_name.get(name)
        if isinstance(found, Ordered):
            return found.first_after(position)
        return found if found is not None and found.sequence_number > position else None

    def after(self, name: str, position: int) -> Iterable[Message]:
        """Return the messages of a group above a position, in order."""
        found = self._by_name.get(name)
        if isinstance(found, Ordered):
            return found.after(position)
        return (found,) if found is not None and found.sequence_number > position else ()


class AudienceIndex:
    """The retained messages by audience key, and those for everyone. ``messages`` are all of them.

    As long as all of them are for everyone, they are their own index.
    """

    def __init__(self, messages: Ordered) -> None:
        self.is_trivial = True
        """Whether no message for some users or topics was ever added: then there is nothing to add or to remove."""
        self._all = self._for_everyone = messages
        self._by_key = Groups()

    def add(self, message: Message) -> None:
        """Add a message, before it is added to all messages."""
        keys = message.audience.keys
        if self.is_trivial and keys is not None:
            self.is_trivial, self._for_everyone = False, self._all.copy()
        if keys is None:
            if not self.is_trivial:
                self._for_everyone.append(message)
            return
        for key in keys:
            self._by_key.add(key, message)

    def remove(self, message: Message) -> None:
        """Remove a message."""
        keys = message.audience.keys
        if keys is None:
            if not self.is_trivial:
                self._for_everyone.remove(message.sequence_number)
            return
        for key in keys:
            self._by_key.remove(key, message)

    def after(self, position: int, keys: Iterable[str], *, everyone: bool, limit: int) -> list[Message] | None:
        """Return the messages above ``position`` that are addressed to ``keys``, and broadcasts if ``everyone``.

        Return None if there may be more than ``limit`` of them. The work is bounded by the keys and the limit.
        """
        found: list[Message] = []
        if everyone:
            if self._for_everyone.count_after(position, limit=limit) > limit:
                return None
            found += self._for_everyone.after(position)
        sources = int(bool(found))
        for key in keys:
            before = len(found)
            found += islice(self._by_key.after(key, position), limit + 1)
            if len(found) > limit:
                return None
            sources += len(found) > before
        if sources <= 1:
            return found
        # A message for several of the keys was found once for each of them.
        by_number = {message.sequence_number: message for message in found}
        return [by_number[number] for number in sorted(by_number)]

    def first_after(self, position: int, keys: Iterable[str], *, everyone: bool) -> Message | None:
        """Return the message with the lowest number above ``position`` that ``after`` would return, if any."""
        first = self._for_everyone.first_after(position) if everyone else None
        for key in keys:
            found = self._by_key.first_after(key, position)
            if found is not None and (first is None or found.sequence_number < first.sequence_number):
                first = found
        return first


class Shelf:
    """The retained messages without a rule, or in a subclass those of one rule. The oldest leave it first."""

    pattern: str | None = None

    def __init__(self, *, max_messages: int, max_age: float, order: Ordered | None = None) -> None:
        """``order`` are all messages of the window if it has no rules: then the window itself adds and removes them."""
        self.max_messages = max_messages
        self.max_age = max_age
        self.order = Ordered() if order is None else order
        """All messages of the shelf."""
        self._fills_order = order is None
        self.size = 0
        """Bytes of the messages."""
        self.values = 0
        """How many of the messages are values, which stay until they are too old."""
        self._values_through = -1
        """All messages of the shelf up to this number are values."""

    @property
    def topics(self) -> int:
        """How many topics have their own count."""
        return int(self.order.count > self.values)

    def add(self, message: Message, *, size: int) -> None:
        """Add a message with a higher number than all others."""
        if self._fills_order:
            self.order.append(message)
        self.size += size
        if message.value is not None and message.value.is_full:
            self.values += 1

    def remove(self, message: Message, *, size: int) -> None:
        """Remove a message."""
        if self._fills_order:
            self.order.remove(message.sequence_number)
        self.size -= size
        if message.value is not None and message.value.is_full:
            self.values -= 1

    def overdue(self, audience: Audience, now: float) -> Message | None:  # noqa: ARG002  # rules count by topic
        """Return a message to evict after one was added: the oldest, if it is too old or one of too many."""
        order = self.order
        if order.count - self.values > self.max_messages:
            return self._oldest() if self.values else order.first
        first = order.first
        return first if first is not None and now - first.appended_at >= self.max_age else None

    def too_old(self, now: float) -> Message | None:
        """Return a message that is at least ``max_age`` seconds old at ``now``, if there is one."""
        first = self.order.first
        return first if first is not None and now - first.appended_at >= self.max_age else None

    def count_after(self, position: int, audience: Audience) -> int:  # noqa: ARG002  # rules count by topic
        """Return how many messages above a position count for ``max_messages``, or a higher number."""
        return self.order.count_after(position, limit=self.max_messages)

    def _oldest(self) -> Message | None:
        """Return the oldest message that counts. Each value before it is passed once."""
        for message in self.order.after(self._values_through):
            if message.value is None or not message.value.is_full:
                return message
            self._values_through = message.sequence_number
        return None
