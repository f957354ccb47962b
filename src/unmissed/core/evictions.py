"""What was lost: the highest evicted number of broadcasts, and of each user and topic."""

from collections.abc import Iterable
from heapq import heappop, heappush, heapreplace

from unmissed.core.messages import Message
from unmissed.core.retention import Retention, Rule

MAX_EVICTED_KEYS = 10_000
"""How many users and topics are remembered. Beyond that, the lowest numbers count for all keys of the same rule."""

_STEPS = 16
"""How many entries are corrected to find the lowest one, before one that is nearly the lowest is forgotten."""


class Evictions:
    """The highest evicted number of broadcasts, and of each audience key. ``none`` is a number below all others.

    A client has a gap only if it has lost a message that was addressed to it. Numbers need not ascend: each rule of
    retention evicts its own messages.
    """

    def __init__(self, none: int, *, retention: Retention, max_keys: int = MAX_EVICTED_KEYS) -> None:
        self._none = none
        self._retention = retention
        self._max_keys = max_keys
        self._for_everyone = none
        self._forgotten: dict[Rule | None, int] = {}
        """The highest number of the keys of each rule, or without one, that are no longer remembered."""
        self._by_key: dict[str, int] = {}
        self._lowest: list[tuple[int, str]] = []
        """A heap with one entry for each key, whose number may be lower than its present one."""

    def add(self, message: Message) -> None:
        """Record an evicted message."""
        keys, number = message.audience.keys, message.sequence_number
        if keys is not None:
            for key in keys:
                if number > self._by_key.get(key, number):
                    self._by_key[key] = number
                else:
                    self.mark(key, number)
        elif number > self._for_everyone:
            self._for_everyone = number

    def mark(self, key: str, number: int) -> None:
        """Record that messages for a key may be lost through a number."""
        known = self._by_key.get(key)
        if known is not None:
            if number > known:
                self._by_key[key] = number
            return
        # It may be one of those that were forgotten.
        self._by_key[key] = max(number, self._forgotten_of(key))
        heappush(self._lowest, (number, key))
        if len(self._by_key) > self._max_keys:
            self._forget_lowest()

    def mark_everyone(self, number: int) -> None:
        """Record that messages for everyone may be lost through a number."""
        self._for_everyone = max(self._for_everyone, number)

    def forget(self, number: int) -> None:
        """Count everything up to a number, which is not below any other, as lost for every client."""
        self._for_everyone = number
        self._forgotten = dict.fromkeys((None, *self._retention.rules), number)
        self._by_key.clear()
        self._lowest.clear()

    def mark_others(self, number: int) -> None:
        """Record that messages for keys that no rule is about may be lost through a number, before any ``mark``."""
        self._forgotten[None] = max(number, self._forgotten.get(None, number))

    def highest(self, keys: Iterable[str], *, everyone: bool = True) -> int:
        """Return the highest number of an evicted message that was addressed to these keys, or may have been.

        Messages for everyone count unless ``everyone`` is false.
        """
        found = self._for_everyone if everyone else self._none
        by_key, forgotten = self._by_key, self._forgotten
        for key in keys:
            number = by_key.get(key)
            if number is None and forgotten:
                number = self._forgotten_of(key)
            if number is not None and number > found:
                found = number
        return found

    def _forgotten_of(self, key: str) -> int:
        return self._forgotten.get(self._rule_of(key), self._none) if self._forgotten else self._none

    def _rule_of(self, key: str) -> Rule | None:
        return self._retention.rule_of(key)

    def _forget_lowest(self) -> None:
        """Forget the key with the lowest number, or one close to it: finding it exactly may take long."""
        for _ in range(_STEPS):
            number, key = self._lowest[0]
            if number == self._by_key[key]:
                break
            heapreplace(self._lowest, (self._by_key[key], key))
        _, key = heappop(self._lowest)
        rule, number = self._rule_of(key), self._by_key.pop(key)
        self._forgotten[rule] = max(number, self._forgotten.get(rule, number))
