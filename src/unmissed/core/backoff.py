"""Exponential backoff with full jitter."""

_MAX_FAILURES = 16


class Backoff:
    """The pauses between attempts, in seconds: up to ``first`` after one failure, then up to twice as many each time.

    ``most`` is the longest pause.
    """

    def __init__(self, *, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def failed(self, fraction: float) -> float:
        """Record a failure, and return ``fraction`` of the longest pause after it. Draw it from 0 to 1 at random."""
        longest = min(self._most, self._first * 2.0**self._failures)
        self._failures = min(self._failures + 1, _MAX_FAILURES)
        return fraction * longest

    def succeeded(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0
