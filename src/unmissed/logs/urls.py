"""Creates the log for a URL such as ``memory:``."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from unmissed.core.errors import ConfigurationError
from unmissed.core.retention import Retention
from unmissed.logs.base import Log
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.engine import JetStreamEngine
from unmissed.logs.memory import MemoryLog
from unmissed.logs.shared_log import SharedLog
from unmissed.logs.sqlite.log import SqliteLog
from unmissed.security.redaction import without_login

_KNOWN = "use memory:, sqlite:unmissed.db, postgresql://localhost/shop, redis://localhost:6379 or nats://localhost:4222"

DEFAULT_MESSAGE_BYTES = 65_536
"""The largest published message, in bytes of JSON."""

_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
_REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_SHARED_SCHEMES = (*_REDIS_SCHEMES, *_POSTGRES_SCHEMES, "nats")
_TLS_OPTIONS = {"ssl_ca_certs": re.compile(".+"), "ssl_cert_reqs": re.compile("required|optional|none")}


def log_from_url(
    url: str,
    *,
    retention: Retention,
    first_number: int | None,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
    max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
) -> Log:
    """Return the log for this URL, not yet open. Raises ConfigurationError for an unknown URL.

    ``max_message_bytes`` is for the messages that others publish in a database, past this process.
    """
    scheme, separator, rest = url.partition(":")
    if url == "memory:":
        return MemoryLog(retention=retention, first_number=first_number, clock=clock, wall_clock=wall_clock)
    if scheme == "sqlite" and separator:
        path, options = _options(rest, synchronous=re.compile("full|normal"))
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
    if scheme == "nats":
        jetstream = JetStreamEngine(
            StreamAddress.of(url), retention=retention, first_number=first_number, wall_clock=wall_clock, clock=clock
        )
        return SharedLog(jetstream, retention=retention, clock=clock)
    if scheme in _REDIS_SCHEMES:
        return _redis_log(url, retention=retention, first_number=first_number, clock=clock)
    if scheme in _POSTGRES_SCHEMES:
        return _postgres_log(
            url, retention=retention, first_number=first_number, clock=clock, max_message_bytes=max_message_bytes
        )
    raise ConfigurationError(f"UNMISSED_LOG_URL is {without_login(url)!r}, which is not a known log: {_KNOWN}")


def file_of(url: str) -> Path | None:
    """Return the file of the log at this URL, if it is one in a file."""
    scheme, _, rest = url.partition(":")
    return Path(rest.partition("?")[0]) if scheme == "sqlite" else None


def is_shared(url: str) -> bool:
    """Return whether several processes can share the log at this URL."""
    return url.partition(":")[0] in _SHARED_SCHEMES


def _redis_log(url: str, *, retention: Retention, first_number: int | None, clock: Callable[[], float]) -> SharedLog:
    try:
        from unmissed.logs.redis.engine import RedisEngine  # noqa: PLC0415  # redis is optional
        from unmissed.logs.redis.redis_clients import client_factory  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"UNMISSED_LOG_URL needs {error.name}: pip install 'unmissed[redis]'") from None
    # Options of TLS are valid only where they have an effect: redis:// is not encrypted.
    server, options = _options(url, name=_NAME, **(_TLS_OPTIONS if url.startswith("rediss:") else {}))
    name = options.pop("name", "unmissed")
    engine = RedisEngine(
        client_factory(server, tls=options),
        shown=without_login(server),
        name=name,
        retention=retention,
        first_number=first_number,
        clock=clock,
    )
    return SharedLog(engine, retention=retention, clock=clock)


def _postgres_log(url: str, **options: Any) -> SharedLog:
    try:
        from unmissed.logs.postgres.database_address import DatabaseAddress  # noqa: PLC0415  # asyncpg is optional
        from unmissed.logs.postgres.engine import PostgresEngine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"UNMISSED_LOG_URL needs {error.name}: pip install 'unmissed[postgres]'") from None
    engine = PostgresEngine(DatabaseAddress.of(url), **options)
    return SharedLog(engine, retention=options["retention"], clock=options["clock"])


def _options(text: str, **known: re.Pattern[str]) -> tuple[str, dict[str, str]]:
    """Return the part before the ``?``, and the options after it. Raises ConfigurationError for an unknown one.

    Its text does not repeat the option, which may be a part of a password that contains a ``?``.
    """
    target, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in known or not known[name].fullmatch(value):
            valid = ", ".join(f"{option}={pattern.pattern}" for option, pattern in known.items())
            raise ConfigurationError(f"UNMISSED_LOG_URL has an unknown option or value: valid are {valid}")
    return target, options
