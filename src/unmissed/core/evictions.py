"""The highest evicted number for each user and topic: a client has a gap only if it lost a message addressed to it."""

from unmissed.core.messages import Message

MAX_KEYS = 10_000
"""How many users and topics are remembered. Beyond that, the oldest evictions count for everyone."""


class Evictions:
    """The highest evicted number for everyone, and for each key of an audience."""

    def __init__(self, none: int) -> None:
        """``none`` is a number below all others."""
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
            self._by_key.pop(key, None)
            self._by_key[key] = number
        while len(self._by_key) > MAX_KEYS:
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
