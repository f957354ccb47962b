"""Indexes by audience key: the retained messages of each user and topic, and the highest evicted number of each."""

from bisect import bisect_right
from collections.abc import Iterable

from unmissed.core.messages import Message


class AudienceIndex:
    """The numbers of the retained messages in ascending order: of broadcasts, and of messages for each key."""

    def __init__(self) -> None:
        self._for_everyone = _Ascending()
        self._by_key: dict[str, int | _Ascending] = {}
        """Most keys have one message: a plain number takes less memory than an object."""

    def add(self, message: Message) -> None:
        """Add a message whose number is higher than all others."""
        number, keys = message.sequence_number, message.audience.keys
        if keys is None:
            self._for_everyone.append(number)
            return
        for key in keys:
            found = self._by_key.setdefault(key, number)
            if isinstance(found, _Ascending):
                found.append(number)
            # For a new key, ``setdefault`` has just stored this number.
            elif found != number:
                self._by_key[key] = _Ascending([found, number])

    def remove(self, message: Message) -> None:
        """Remove the message that has the lowest number."""
        keys = message.audience.keys
        if keys is None:
            self._for_everyone.remove_first()
            return
        for key in keys:
            found = self._by_key[key]
            if isinstance(found, int) or not found.remove_first():
                del self._by_key[key]

    def after(self, position: int, keys: Iterable[str], *, everyone: bool, limit: int) -> list[int] | None:
        """Return the numbers above ``position`` of messages addressed to ``keys``, and of broadcasts if ``everyone``.

        Return None if there may be more than ``limit`` of them. The work is bounded by the keys and the limit.
        """
        found: list[int] = []
        if everyone and not self._for_everyone.copy_after(position, into=found, limit=limit):
            return None
        for key in keys:
            match self._by_key.get(key):
                case int(number) if number > position:
                    found.append(number)
                case _Ascending() as numbers:
                    if not numbers.copy_after(position, into=found, limit=limit):
                        return None
            if len(found) > limit:
                return None
        # A message for several of the keys was found once for each of them.
        return sorted(set(found)) if len(found) <= limit else None

    def first_after(self, position: int, keys: Iterable[str], *, everyone: bool) -> int | None:
        """Return the lowest number above ``position`` of a message for ``keys``, or of a broadcast if ``everyone``."""
        first = self._for_everyone.first_after(position) if everyone else None
        for key in keys:
            found = self._by_key.get(key)
            number = found.first_after(position) if isinstance(found, _Ascending) else found
            if number is not None and number > position and (first is None or number < first):
                first = number
        return first


class _Ascending:
    """Ascending numbers, added at the end and removed from the start, both in constant time on average."""

    __slots__ = ("_numbers", "_start")

    def __init__(self, numbers: list[int] | None = None) -> None:
        self._numbers = numbers or []
        self._start = 0

    def append(self, number: int) -> None:
        self._numbers.append(number)

    def remove_first(self) -> bool:
        """Remove the lowest number, and return whether any is left."""
        self._start += 1
        # Deleting from the start of a list moves all that follows, so it waits until half of the list is unused.
        if self._start * 2 >= len(self._numbers):
            del self._numbers[: self._start]
            self._start = 0
        return bool(self._numbers)

    def first_after(self, position: int) -> int | None:
        """Return the lowest number above ``position``, if there is one."""
        place = bisect_right(self._numbers, position, self._start)
        return self._numbers[place] if place < len(self._numbers) else None

    def copy_after(self, position: int, *, into: list[int], limit: int) -> bool:
        """Append the numbers above ``position`` and return True, or return False if they are more than ``limit``."""
        start = bisect_right(self._numbers, position, self._start)
        if len(self._numbers) - start > limit:
            return False
        into += self._numbers[start:]
        return True


MAX_EVICTED_KEYS = 10_000
"""How many users and topics are remembered. Beyond that, the oldest evictions count for everyone."""


class Evictions:
    """The highest evicted number of broadcasts, and of each audience key.

    A client has a gap only if it has lost a message that was addressed to it.
    """

    def __init__(self, none: int, *, max_keys: int = MAX_EVICTED_KEYS) -> None:
        """``none`` is a number below all others."""
        self._max_keys = max_keys
        self._for_everyone = none
        self._forgotten = none
        """The highest number of the keys that are no longer remembered."""
        self._by_key: dict[str, int] = {}

    def add(self, message: Message) -> None:
        """Record an evicted message. The numbers must ascend."""
        number, keys = message.sequence_number, message.audience.keys
        if keys is None:
            self._for_everyone = number
            return
        for key in keys:
            # Removed and added again: the first key is always the one whose evictions are the oldest.
            self._by_key.pop(key, None)
            self._by_key[key] = number
        while len(self._by_key) > self._max_keys:
            self._forgotten = max(self._forgotten, self._by_key.pop(next(iter(self._by_key))))

    def forget(self, number: int) -> None:
        """Count everything up to a number as evicted for everyone."""
        self._for_everyone = self._forgotten = number
        self._by_key.clear()

    def highest(self, keys: frozenset[str], *, everyone: bool = True) -> int:
        """Return the highest number of an evicted message that was addressed to these keys, or may have been.

        Messages for everyone count unless ``everyone`` is false.
        """
        others = self._for_everyone if everyone else self._forgotten
        return max(others, self._forgotten, *(self._by_key.get(key, 0) for key in keys))
