"""Where a stream is: the parts of a ``nats://`` URL."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from unmissed.core.errors import ConfigurationError

_DEFAULT_PORT = 4222
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REPLICAS = ("1", "3", "5")
_FORM = "nats://[user:password@]host:port[,host:port...][?name=unmissed&replicas=1&tls=false&sync=always]"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Servers of one cluster, the credentials for them, and the stream. A ``user`` alone is a token."""

    servers: tuple[str, ...]
    """Such as ``nats://localhost:4222``, without credentials."""
    name: str = "unmissed"
    replicas: int = 1
    tls: bool = False
    sync_always: bool = False
    """Whether every server has ``sync_interval: always``: it loses nothing that it has acknowledged."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The servers, for messages to the operator. It contains no password."""
        return ",".join(self.servers)

    @classmethod
    def of(cls, url: str) -> "StreamAddress":
        """Parse a URL. Raises ConfigurationError, without the URL in its text, as it may contain a password."""
        if not url.startswith("nats://"):
            raise ConfigurationError(f"UNMISSED_LOG_URL cannot be read: write {_FORM}")
        target, _, query = url.partition("?")
        credentials, _, hosts = target.removeprefix("nats://").removesuffix("/").rpartition("@")
        user, colon, password = credentials.partition(":")
        options = _options(query)
        scheme = "tls" if options["tls"] == "true" else "nats"
        return cls(
            tuple(f"{scheme}://{_server(host)}" for host in hosts.split(",")),
            name=options["name"],
            replicas=int(options["replicas"]),
            tls=scheme == "tls",
            sync_always=options["sync"] == "always",
            user=unquote(user) or None,
            password=unquote(password) if colon else None,
        )


def _server(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.netloc != text:
        raise ConfigurationError(f"UNMISSED_LOG_URL has an invalid host or port: write {_FORM}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    options = {"name": "unmissed", "replicas": "1", "tls": "false", "sync": ""} | given
    if given.keys() - {"name", "replicas", "tls", "sync"}:
        # Without its name, which may be a part of a password that contains a "?".
        raise ConfigurationError(f"UNMISSED_LOG_URL has an unknown option: write {_FORM}")
    if not _NAME.fullmatch(options["name"]):
        raise ConfigurationError("UNMISSED_LOG_URL: name has 1 to 64 letters, digits, - or _, such as ?name=unmissed")
    if options["replicas"] not in _REPLICAS:
        raise ConfigurationError(f"UNMISSED_LOG_URL: replicas is one of {', '.join(_REPLICAS)}")
    if options["tls"] not in ("true", "false"):
        raise ConfigurationError("UNMISSED_LOG_URL: tls is true or false")
    if options["sync"] not in ("", "always"):
        raise ConfigurationError("UNMISSED_LOG_URL: sync is always, if each server has sync_interval: always")
    return options
