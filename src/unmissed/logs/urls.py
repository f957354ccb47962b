"""Creates the log for a URL such as ``memory:``."""

from collections.abc import Callable

from unmissed.core.errors import ConfigurationError
from unmissed.core.window import Retention
from unmissed.logs.base import Log
from unmissed.logs.memory import MemoryLog


def log_from_url(
    url: str,
    *,
    retention: Retention,
    first_number: int | None,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> Log:
    """Return the log for this URL, not yet open. Raises ConfigurationError for an unknown URL."""
    if url != "memory:":
        raise ConfigurationError(f"UNMISSED_LOG_URL is {url!r}, which is not a known log: use memory:")
    return MemoryLog(retention=retention, first_number=first_number, clock=clock, wall_clock=wall_clock)
