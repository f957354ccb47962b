"""When to try again after a failure: exponential backoff with full jitter, and what is known to fail."""

import logging
import random

logger = logging.getLogger("unmissed")

_MAX_FAILURES = 16
_FIRST_SECONDS = 0.05
_MOST_SECONDS = 1.0


class Backoff:
    """The pauses between attempts: at random up to ``first`` seconds, doubled after each failure, up to ``most``."""

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
        # Bounded: after a thousand failures, the power of two would raise OverflowError.
        self._failures = min(self._failures + 1, _MAX_FAILURES)
        return fraction * longest

    def succeeded(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0


class Availability:
    """The state of one kind of access to a log, such as "written". Changes are logged once."""

    def __init__(self, access: str) -> None:
        self.reason: str | None = None
        """Why the last attempt failed, or None."""
        self._access = access
        self._backoff = Backoff(first=_FIRST_SECONDS, most=_MOST_SECONDS)

    def failed(self, reason: str) -> float:
        """Record a failure, and return the seconds to wait before the next attempt."""
        if self.reason is None:
            logger.error("the log cannot be %s: %s", self._access, reason)
        self.reason = reason
        return self._backoff.failed(random.random())

    def succeeded(self) -> None:
        """Record a success."""
        if self.reason is not None:
            logger.warning("the log can be %s again", self._access)
        self.reason = None
        self._backoff.succeeded()
