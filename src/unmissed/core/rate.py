"""How many requests a user may send, over all connections."""

from collections import OrderedDict

MAX_BUCKETS = 100_000
"""Users whose bucket is not full. Others share one bucket, until some of these are full again."""


class TokenBuckets:
    """A bucket for each user, which allows ``rate`` requests a second on average, and up to ``burst`` at once.

    A bucket is stored as the time at which it is full again. A full bucket is like a new one: only those are removed.
    """

    def __init__(self, *, rate: float, burst: int, max_buckets: int = MAX_BUCKETS) -> None:
        self._seconds = 1 / rate
        self._full_seconds = burst / rate
        self._max_buckets = max_buckets
        self._full_at = OrderedDict[str | None, float]()
        """By user; None for users that share one. Nearly in the order in which they will be full."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, user_id: str, now: float) -> bool:
        """Count one request at ``now`` (monotonic seconds), and return whether it is allowed."""
        # First: it makes room for a bucket of this user, who would otherwise have to share one.
        self._forget_full(now)
        shares = len(self._full_at) >= self._max_buckets and user_id not in self._full_at
        owner = None if shares else user_id
        full_at = max(now, self._full_at.get(owner, now)) + self._seconds
        # Sums of floats are not exact: a thousandth of a request decides nothing.
        if full_at - now > self._full_seconds + self._seconds / 1_000:
            return False
        self._full_at[owner] = full_at
        self._full_at.move_to_end(owner)
        return True

    def _forget_full(self, now: float) -> None:
        """Remove full buckets in front. Each is full at the latest ``burst / rate`` seconds after its last request."""
        while self._full_at and next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)
