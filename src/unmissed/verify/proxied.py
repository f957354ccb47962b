"""Where clients connect: a node of the server, through its proxy."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.core.errors import ConfigurationError
from unmissed.security.redaction import shown_url
from unmissed.verify.proxy import FaultProxy


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens. ``path`` is the prefix of its paths."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def of(cls, url: str) -> "Address":
        """Return the address in a URL such as ``http://127.0.0.1:8000``. Raises ConfigurationError."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme != "http" or not host or parts.query:
            raise ConfigurationError(f"{shown_url(url)!r} cannot be verified: use a URL such as http://127.0.0.1:8000")
        return cls(host, port or 80, parts.path.rstrip("/"))

    @property
    def messages_url(self) -> str:
        """Where messages are published and recovered over REST."""
        return f"http://{self.host}:{self.port}{self.path}{MESSAGES_PATH}"


@dataclass(frozen=True, slots=True)
class ProxiedNode:
    """One node of the server, as its clients reach it."""

    address: Address
    proxy: FaultProxy

    @property
    def host(self) -> str:
        """The value of the ``Host`` header, as if there was no proxy."""
        return f"{self.address.host}:{self.address.port}"

    @property
    def messages_url(self) -> str:
        """Where messages are published and recovered over REST, through the proxy."""
        return Address("127.0.0.1", self.proxy.port, self.address.path).messages_url

    def websocket_url(self, **query: object) -> str:
        """Return the address of the WebSocket, with the parts of the query that are not None."""
        given = {name: value for name, value in query.items() if value is not None}
        return f"ws://{self.host}{self.address.path}/ws" + (f"?{urlencode(given)}" if given else "")


def bearer(token: str) -> Mapping[str, str]:
    """Return the header that authenticates with this token."""
    return {"Authorization": f"Bearer {token}"}
