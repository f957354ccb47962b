"""The answer to each idempotency key, so that a repeated publish gets the same answer."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one publish: the stamps of its ``count`` messages, numbered from ``first``."""

    first: int
    count: int
    epoch: str
    timestamp: str


class Receipts:
    """Receipts by key, each kept ``max_age`` seconds, the newest ``max_keys`` of them."""

    def __init__(self, *, max_age: float, max_keys: int = 10_000) -> None:
        self._max_age = max_age
        self._max_keys = max_keys
        self._kept: OrderedDict[str, tuple[float, Receipt]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: str, *, now: float) -> Receipt | None:
        """Return the answer to this key, or None when it is new or forgotten."""
        self.expire(now)
        found = self._kept.get(key)
        return found[1] if found else None

    def keep(self, key: str, receipt: Receipt, *, now: float) -> None:
        """Remember the answer to a new key from ``now`` (monotonic seconds) on."""
        self._kept[key] = (now, receipt)
        if len(self._kept) > self._max_keys:
            self._kept.popitem(last=False)

    def expire(self, now: float) -> None:
        """Forget the keys that are ``max_age`` old or older."""
        while self._kept:
            kept_at, _ = next(iter(self._kept.values()))
            if now - kept_at < self._max_age:
                return
            self._kept.popitem(last=False)
