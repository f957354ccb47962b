"""Where a schema is: the parts of a ``postgresql://`` URL."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from unmissed.core.errors import ConfigurationError

SCHEMES = ("postgresql", "postgres")
_FORM = "postgresql://user:password@host:5432/database[?name=unmissed&notify=true&poll=20]"
_OWN_OPTIONS = {
    "name": re.compile("[A-Za-z0-9_-]{1,63}"),
    "notify": re.compile("true|false"),
    "poll": re.compile("[1-9][0-9]{0,3}"),
}
_DRIVER_OPTIONS = {
    "sslmode": re.compile("disable|allow|prefer|require|verify-ca|verify-full"),
    **dict.fromkeys(("sslrootcert", "sslcert", "sslkey"), re.compile(".+")),
    "target_session_attrs": re.compile("any|primary|read-write"),
}
"""Options that the driver knows from libpq."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A database, the credentials for it, and the schema in it."""

    dsn: str = field(repr=False)
    """The URL for the driver, without our options."""
    label: str
    """The hosts and the database, for messages to the operator. It contains no password."""
    schema: str = "unmissed"
    notify: bool = True
    """Whether connections are our own, and can listen. Behind PgBouncer in transaction mode, they are not."""
    poll_seconds: float = 0.02
    """The pause between two looks for messages of transactions."""
    setting: str = "UNMISSED_LOG_URL"
    """Where the URL was read, for messages to the operator."""

    @property
    def channel(self) -> str:
        """The channel of notifications, or an empty text without them. It may be as long as the name of a schema."""
        return self.schema if self.notify else ""

    @classmethod
    def of(cls, url: str, *, setting: str = "UNMISSED_LOG_URL", schema: str = "unmissed") -> "DatabaseAddress":
        """Parse a URL; ``schema`` is that of a URL without ``name``.

        Raises ConfigurationError, without the URL in its text, as it may contain a password.
        """
        target, _, query = url.partition("?")
        options = _options(query, setting)
        scheme, _, rest = target.partition("://")
        login, _, place = rest.rpartition("@")
        if scheme not in SCHEMES or not place or place.startswith("/") or "#" in target or not _is_valid(login):
            raise ConfigurationError(f"{setting} cannot be read: write {_FORM}, and percent-encode the password")
        # A server that only reads can hold no log: of several hosts, the driver chooses the primary.
        driver = {"target_session_attrs": "primary"} if "," in place else {}
        driver |= {name: value for name, value in options.items() if name in _DRIVER_OPTIONS}
        return cls(
            f"postgresql://{rest}" + (f"?{urlencode(driver)}" if driver else ""),
            f"{scheme}://{place}",
            options.get("name", schema),
            options.get("notify") != "false",
            int(options.get("poll", "20")) / 1000,
            setting,
        )


def _is_valid(login: str) -> bool:
    """Return whether user and password have no character that must be encoded."""
    try:
        return urlsplit(f"//{login}@host").hostname == "host"
    except ValueError:
        return False


def _options(query: str, setting: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = _OWN_OPTIONS | _DRIVER_OPTIONS
    for name, value in options.items():
        if name not in known or not known[name].fullmatch(value):
            # Without its text, which may be a part of a password that contains a "?".
            valid = ", ".join(f"{option}={pattern.pattern}" for option, pattern in known.items())
            raise ConfigurationError(f"{setting} has an unknown option or value: valid are {valid}")
    return options
