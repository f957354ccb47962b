"""How a client reaches its server: the address, the token, and why an attempt failed."""

import inspect
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed

from unmissed.core.errors import ConfigurationError
from unmissed.security.redaction import printable, redact, shown_url

TokenProvider = str | Callable[[], str | Awaitable[str]]

_TOKEN = re.compile(r"[!-~]+")
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def websocket_url(url: str) -> str:
    """Return the address of the WebSocket of a server. Raises ConfigurationError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme, host, _ = _SCHEMES.get(parts.scheme), parts.hostname, parts.port
    except ValueError:
        scheme = host = None
    if not scheme or not host:
        raise ConfigurationError(f"{shown_url(url)!r} is not a server URL: use one such as http://127.0.0.1:8000")
    path = parts.path if parts.path.endswith("/ws") else f"{parts.path.rstrip('/')}/ws"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def connection_url(
    url: str, *, since: int | None, epoch: str | None, topics: Iterable[str] | None, state: bool = False
) -> str:
    """Return the address of a connection that starts after a position. What is None is left to the server.

    An empty list of topics follows none. ``state`` requests the values by key unless nothing is lost after ``since``.
    """
    wanted = {
        "since": since,
        "epoch": epoch,
        "topics": None if topics is None else ",".join(topics),
        "state": "true" if state else None,
    }
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    return f"{url}?{query}" if query else url


class TokenSource:
    """The token of one client. ``latest`` is the one that was used last."""

    def __init__(self, provider: TokenProvider) -> None:
        self.latest = ""
        self._provider = provider

    @property
    def is_fixed(self) -> bool:
        """Whether there is only one token, which cannot be renewed."""
        return isinstance(self._provider, str)

    async def fresh(self) -> str:
        """Return a token. Raises ConfigurationError for what is none, and what the function raises."""
        token = self._provider if isinstance(self._provider, str) else self._provider()
        if inspect.isawaitable(token):
            token = await token
        self.latest = clean_token(token)
        return self.latest


def clean_token(text: str) -> str:
    """Return a token without the whitespace around it, such as the line break at the end of a file.

    Raises ConfigurationError, whose text does not contain the token, unless the rest is visible ASCII.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the token is empty, or contains characters that no token has, such as a space or a line break: "
            "pass the token alone, as it was issued"
        )
    return token


def close_cause(closed: ConnectionClosed) -> str:
    """Return why a connection ended, in one line."""
    if closed.rcvd is None:
        own_reason = closed.sent.reason if closed.sent else ""
        return f"connection lost ({own_reason})" if own_reason else "connection lost"
    reason = one_line(closed.rcvd.reason)
    return f"closed with code {closed.rcvd.code}" + (f" ({reason})" if reason else "")


def failure_cause(error: Exception) -> str:
    """Return why a connection could not be made, in one line."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate is not trusted ({error.verify_message})"
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return one_line(str(error)) or type(error).__name__


def one_line(text: str) -> str:
    """Return a text of the server or the system as it may be logged: on one line, escaped, and without tokens."""
    return printable(redact(" ".join(text.split())))
