"""Creates the log for a URL such as ``memory:``."""

from collections.abc import Callable
from urllib.parse import parse_qsl

from unmissed.core.errors import ConfigurationError
from unmissed.core.window import Retention
from unmissed.logs.base import Log
from unmissed.logs.memory import MemoryLog
from unmissed.logs.shared.jetstream.address import Address
from unmissed.logs.shared.jetstream.engine import JetStreamEngine
from unmissed.logs.shared.log import SharedLog
from unmissed.logs.sqlite.log import SqliteLog

_KNOWN = "use memory:, sqlite:unmissed.db, redis://localhost:6379 or nats://localhost:4222"


def log_from_url(
    url: str,
    *,
    retention: Retention,
    first_number: int | None,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> Log:
    """Return the log for this URL, not yet open. Raises ConfigurationError for an unknown URL."""
    scheme, separator, rest = url.partition(":")
    if url == "memory:":
        return MemoryLog(retention=retention, first_number=first_number, clock=clock, wall_clock=wall_clock)
    if scheme == "sqlite" and separator:
        path, options = _options(rest, synchronous=("full", "normal"))
        if path in ("", ":memory:"):
            raise ConfigurationError("UNMISSED_LOG_URL names no file: write sqlite:unmissed.db, or memory: without one")
        return SqliteLog(
            path,
            durable=options.get("synchronous") != "normal",
            retention=retention,
            first_number=first_number,
            clock=clock,
            wall_clock=wall_clock,
        )
    if scheme == "nats" and rest.startswith("//"):
        jetstream = JetStreamEngine(
            Address.of(url), retention=retention, first_number=first_number, wall_clock=wall_clock
        )
        return SharedLog(jetstream, retention=retention, clock=clock)
    raise ConfigurationError(f"UNMISSED_LOG_URL is {url!r}, which is not a known log: {_KNOWN}")


def _options(text: str, **known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Return the part before the ``?``, and the options after it. Raises ConfigurationError for an unknown one."""
    target, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in known or value not in known[name]:
            valid = ", ".join(f"{option}={'|'.join(values)}" for option, values in known.items())
            raise ConfigurationError(f"UNMISSED_LOG_URL has the unknown option {name}={value}: valid are {valid}")
    return target, options
