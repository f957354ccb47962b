"""Receipts by idempotency key, so that a repeated publish returns the same receipt."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from unmissed.core.errors import IdempotencyConflict
from unmissed.core.messages import Draft


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of one publish: the stamps of its ``count`` messages, numbered from ``first``."""

    first: int
    count: int
    epoch: str
    timestamp: str


class Receipts:
    """Receipts by key, each kept ``max_age`` seconds, the newest ``max_keys`` of them."""

    def __init__(self, *, max_age: float, max_keys: int = 10_000) -> None:
        self._max_age = max_age
        self._max_keys = max_keys
        self._kept: OrderedDict[str, tuple[float, bytes, Receipt]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: str, *, fingerprint: bytes, now: float) -> Receipt | None:
        """Return the answer to this key, or None when it is new or forgotten.

        Raises IdempotencyConflict when the key was kept with another fingerprint.
        """
        self.expire(now)
        found = self._kept.get(key)
        if found is None:
            return None
        _, known, receipt = found
        if known != fingerprint:
            raise IdempotencyConflict
        return receipt

    def keep(self, key: str, receipt: Receipt, *, fingerprint: bytes, now: float) -> None:
        """Store the receipt for a new key at ``now`` (monotonic seconds)."""
        self._kept[key] = (now, fingerprint, receipt)
        if len(self._kept) > self._max_keys:
            self._kept.popitem(last=False)

    def expire(self, now: float) -> None:
        """Remove the keys that are at least ``max_age`` seconds old."""
        while self._kept:
            kept_at, *_ = next(iter(self._kept.values()))
            if now - kept_at < self._max_age:
                return
            self._kept.popitem(last=False)


def key_of_user(user_id: str, key: str) -> str:
    """Return a key of bounded length that is unique to this user. The key must not contain spaces."""
    return sha256(f"{user_id} {key}".encode()).hexdigest()


def fingerprint_of(drafts: Sequence[Draft]) -> bytes:
    """Return a digest that other drafts, or the same ones in another order, do not have."""
    digest = sha256()
    for draft in drafts:
        keys = draft.audience.keys
        # Lengths make it unambiguous where a part ends, and the count tells everyone from nobody.
        digest.update(b"*" if keys is None else b"%d" % len(keys))
        for part in (draft.head, draft.tail, *(key.encode() for key in sorted(keys or ()))):
            digest.update(b":%d:%b" % (len(part), part))
    return digest.digest()
