"""Creates clients for the server that a ``redis://``, ``rediss://`` or ``redis+sentinel://`` URL names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from unmissed.core.errors import ConfigurationError

_OPTIONS: dict[str, Any] = {
    # Longer than a read waits for messages. After this time, the server counts as lost.
    "socket_timeout": 3.0,
    "socket_connect_timeout": 2.0,
    # The log has its own retries, which know whether a repetition is safe.
    "retry": Retry(NoBackoff(), 0),
    "protocol": 2,
    "client_name": "unmissed",
}
_SENTINEL_PORT = 26_379
_FORM = "redis://user:password@localhost:6379/0"
_SENTINEL_FORM = "redis+sentinel://host:26379,host:26379/mymaster/0"


@dataclass(frozen=True, slots=True)
class RedisClients:
    """A client for the server of the log, and those for the Sentinels that know where it is."""

    redis: Redis
    sentinels: Sequence[Redis] = ()

    async def close(self) -> None:
        """Disconnect."""
        for client in (self.redis, *self.sentinels):
            await client.aclose()


def client_factory(url: str, *, tls: dict[str, Any]) -> Callable[[], RedisClients]:
    """Return a function that creates clients for this URL, without a query. ``tls`` has options such as ssl_ca_certs.

    Raises ConfigurationError for a URL that cannot be read.
    """
    if url.startswith("redis+sentinel:"):
        return _sentinel_factory(url)
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and not parts.fragment and (parts.path.strip("/") or "0").isdecimal()
        Redis.from_url(url, **tls)
    except ValueError:
        valid = False
    if not valid:
        # Without the reason: if a password has characters such as "/", the reason contains a part of it.
        raise ConfigurationError(f"UNMISSED_LOG_URL cannot be read: write {_FORM}, and percent-encode the password")
    return lambda: RedisClients(Redis.from_url(url, **tls, **_OPTIONS))


def _sentinel_factory(url: str) -> Callable[[], RedisClients]:
    """Return a function that creates clients. Each of them asks these Sentinels for its server when it connects."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise ConfigurationError(f"UNMISSED_LOG_URL names no master: write {_SENTINEL_FORM}")
    sentinels = [_address(host) for host in hosts.split(",")]
    options = {
        **_OPTIONS,
        "username": unquote(user) or None,
        "password": unquote(password) or None,
        "db": int(database or 0),
    }

    def create() -> RedisClients:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis has no types for it
            sentinels, sentinel_kwargs={"socket_timeout": 1.0}, **options
        )
        return RedisClients(sentinel.master_for(service), sentinel.sentinels)

    return create


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.partition(":")
    if not name or not (port or "0").isdecimal():
        raise ConfigurationError(f"UNMISSED_LOG_URL has an invalid Sentinel: write {_SENTINEL_FORM}")
    return name, int(port or _SENTINEL_PORT)
