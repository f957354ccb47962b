"""Receipts of idempotency keys, so that a repeated request is not executed again."""

from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b, sha256

from unmissed.core.encoding import encode_text
from unmissed.core.errors import IdempotencyConflict, InvalidMessage, TooManyRequests
from unmissed.core.messages import Draft, rfc3339

MAX_KEYS = 524_288
"""The most keys that are remembered at a time. A user alone may have 229,376: 254 a second for 900 s."""

KEY_BYTES = 240
"""Upper bound of the memory that one key and its receipt take: tracemalloc counts 130 to 225 on CPython 3.11."""

_SLICES = 8
"""Keys are forgotten in slices of an eighth of ``max_age``, so that no key needs its own time."""

_DIGEST_BYTES = 15
"""A digest of this size, and a receipt of 31 bytes, fill the smallest blocks that Python allocates for them."""

_FINGERPRINT_BYTES, _FIRST_BYTES, _COUNT_BYTES = 14, 7, 4


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of one publish: the stamps of its ``count`` messages, numbered from ``first``."""

    first: int
    count: int
    epoch: str
    timestamp: str


@dataclass(frozen=True, slots=True)
class _Slice:
    """The keys that were added between ``begun_at`` and the next slice, and their number for each owner."""

    begun_at: float
    kept: dict[bytes, bytes] = field(default_factory=dict)
    of_owner: dict[bytes, int] = field(default_factory=dict)


class Keys:
    """Keys and a few bytes for each, for ``max_age`` seconds or up to an eighth longer. None is forgotten earlier."""

    def __init__(self, *, max_age: float, max_keys: int = MAX_KEYS) -> None:
        self._slice_seconds = max_age / _SLICES
        self._kept_seconds = max_age + self._slice_seconds
        self._max_keys = max_keys
        self._slices = deque[_Slice]()

    def __len__(self) -> int:
        return sum(len(each.kept) for each in self._slices)

    def find(self, key: str, *, now: float) -> bytes | None:
        """Return the bytes for this key, or None when it is new or forgotten."""
        self.expire(now)
        digest = _digest(key)
        for each in self._slices:
            if digest in each.kept:
                return each.kept[digest]
        return None

    def check_room(self, key: str, *, now: float) -> None:
        """Raise TooManyRequests if this key could not be remembered: the caller must not execute its request."""
        # The caller has used ``find`` before, which has forgotten what is too old.
        owner = _digest(owner_of(key))
        mine = used = 0
        for each in self._slices:
            mine += each.of_owner.get(owner, 0)
            # An owner also takes a place, so that many owners with one key each are bounded.
            used += len(each.kept) + len(each.of_owner)
        if not has_room(mine=mine, used=used, total=self._max_keys):
            raise TooManyRequests("too many idempotency keys are in use", retry_after=self._room_after(now))

    def _room_after(self, now: float) -> float:
        """Return the seconds until the oldest keys are forgotten."""
        return self._slices[0].begun_at + self._kept_seconds - now if self._slices else self._kept_seconds

    def keep(self, key: str, value: bytes, *, now: float) -> None:
        """Remember a key from ``now`` (monotonic seconds) on."""
        if not self._slices or now - self._slices[-1].begun_at >= self._slice_seconds:
            self._slices.append(_Slice(now))
        newest, owner = self._slices[-1], _digest(owner_of(key))
        newest.kept[_digest(key)] = value
        newest.of_owner[owner] = newest.of_owner.get(owner, 0) + 1

    def expire(self, now: float) -> None:
        """Forget the slices of which every key is at least ``max_age`` seconds old."""
        while self._slices and now - self._slices[0].begun_at >= self._kept_seconds:
            self._slices.popleft()


class Receipts:
    """The receipts of one epoch by key. See ``Keys`` for how long and how many."""

    def __init__(self, *, max_age: float, max_keys: int = MAX_KEYS, epoch: str) -> None:
        self._keys = Keys(max_age=max_age, max_keys=max_keys)
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str, *, fingerprint: bytes, now: float) -> Receipt | None:
        """Return the answer to this key, or None when it is new or forgotten.

        Raises IdempotencyConflict when the key was kept with another fingerprint, and TooManyRequests when a new one
        could not be kept.
        """
        found = self._keys.find(key, now=now)
        if found is None:
            self._keys.check_room(key, now=now)
            return None
        known, numbers = found[:_FINGERPRINT_BYTES], found[_FINGERPRINT_BYTES:]
        if known != fingerprint[:_FINGERPRINT_BYTES]:
            raise IdempotencyConflict
        first, numbers = int.from_bytes(numbers[:_FIRST_BYTES]), numbers[_FIRST_BYTES:]
        count, unix_ms = int.from_bytes(numbers[:_COUNT_BYTES]), int.from_bytes(numbers[_COUNT_BYTES:])
        return Receipt(first, count, self._epoch, rfc3339(unix_ms / 1000))

    def keep(self, key: str, receipt: Receipt, *, fingerprint: bytes, now: float) -> None:
        """Store the receipt for a new key at ``now`` (monotonic seconds)."""
        # ``round``, since the product of a float may be just below the whole number.
        unix_ms = round(datetime.fromisoformat(receipt.timestamp).timestamp() * 1000)
        numbers = receipt.first.to_bytes(_FIRST_BYTES) + receipt.count.to_bytes(_COUNT_BYTES) + unix_ms.to_bytes(6)
        self._keys.keep(key, fingerprint[:_FINGERPRINT_BYTES] + numbers, now=now)

    def expire(self, now: float) -> None:
        """Forget the receipts that are too old."""
        self._keys.expire(now)


def key_of_user(user_id: str | None, key: str) -> str:
    """Return a short key that is unique to this user, or to the application without one. Its owner is in it.

    Raises InvalidMessage for a key that is no text.
    """
    if not isinstance(key, str) or not key:
        raise InvalidMessage(f"an idempotency key is a non-empty string, not {key!r}: write str(order_id), for example")
    try:
        encode_text(key)
    except ValueError as error:
        raise InvalidMessage(f"the idempotency key cannot be used: {error}") from None
    owner = "-" if user_id is None else urlsafe_b64encode(_digest(user_id)).decode()
    return f"{owner}:{urlsafe_b64encode(_digest(key)).decode()}"


def key_of_presence(topic: str, user_id: str, *, epoch: str, replaces: int, attempt: int) -> str:
    """Return the key of the one message about a user in a topic that replaces this number. Its owner is the server."""
    return f"presence:{urlsafe_b64encode(_digest(f'{epoch} {replaces} {attempt} {topic} {user_id}')).decode()}"


def has_room(*, mine: int, used: int, total: int) -> bool:
    """Return whether an owner that has taken ``mine`` of all ``used`` places may take another one.

    It may have as many as are free, not counting the last eighth, which is reserved for owners with few places. So one
    owner gets 44 percent, two get 29 each, and an owner that comes later still finds room.
    """
    has_few = mine < max(1, total // 4_096)
    return mine < total - used - (0 if has_few else total // 8)


def owner_of(key: str) -> str:
    """Return the owner of a key, whose share it uses: the text before its first colon."""
    return key.partition(":")[0]


def fingerprint_of(drafts: Sequence[Draft]) -> bytes:
    """Return a digest of the drafts in their order, without their traces: a repetition belongs to another span."""
    digest = sha256()
    for draft in drafts:
        keys = draft.audience.keys
        # Lengths make it unambiguous where a part ends, and the count distinguishes everyone from an empty audience.
        digest.update(b"*" if keys is None else b"%d" % len(keys))
        for part in (draft.head, draft.tail, *(key.encode() for key in sorted(keys or ()))):
            digest.update(b":%d:%b" % (len(part), part))
    return digest.digest()


@lru_cache(maxsize=64)  # A key is looked up and then kept, and publishers return.
def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
