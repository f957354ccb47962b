"""How many messages a client may send."""


class TokenBucket:
    """Allows ``rate`` messages a second on average, and up to ``burst`` at once."""

    __slots__ = ("_burst", "_left", "_rate", "_updated_at")

    def __init__(self, *, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._updated_at = now

    def take(self, now: float) -> bool:
        """Count one message at ``now`` (monotonic seconds), and return whether it is allowed."""
        self._left = min(self._burst, self._left + (now - self._updated_at) * self._rate)
        self._updated_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def idle_for(self, now: float) -> float:
        """Return the seconds since the last message."""
        return now - self._updated_at
