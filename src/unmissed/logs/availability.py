"""Whether a part of a log works, and how long to wait before trying again."""

import logging
import random

from unmissed.core.backoff import Backoff

logger = logging.getLogger("unmissed")

_FIRST_SECONDS = 0.05
_MOST_SECONDS = 1.0


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
