"""A service behind a gateway, which is behind a network."""

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from browser.engines.gateway import PAGE, Gateway
from browser.proxy import Proxy
from support import LOGGED, SOCKETS
from unmissed import Settings
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.testing import SECRET, LiveServer


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class Site:
    """What a page connects to: ``network`` cuts and silences, ``gateway`` answers, ``server`` is the service."""

    def __init__(self, server: LiveServer | None = None, **settings: Any) -> None:
        loaded = Settings.load(jwt_secret=SECRET, **{"drain_seconds": 0.1, **settings})
        self.server = server or LiveServer(settings=loaded, **SOCKETS["native"], **LOGGED)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.server)
        self.gateway = self._stack.enter_context(Gateway(port_of(self.server.url)))
        self.network = self._stack.enter_context(Proxy(self.gateway.port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return self.network.url

    @property
    def page(self) -> str:
        """The URL of the page."""
        return self.url + PAGE

    def at(self, host: str) -> str:
        """Return the URL of the site under another name of this machine."""
        return f"http://{host}:{port_of(self.url)}"

    def token(self, *, topics: tuple[str, ...] = (), scope: str = PUBLISH_SCOPE, expires_in: float = 3600.0) -> str:
        return self.server.token(topics=topics, scope=scope, expires_in=expires_in)

    def publish(self, count: int = 1, *, size: int = 1, topics: list[str] | None = None) -> None:
        for _ in range(count):
            self.server.publish("chat", "x" * size, topics=topics)

    def cut_off(self) -> None:
        """Cut all connections, and accept no others."""
        self.network.faults.refuses = True
        self.network.cut()

    def let_in(self) -> None:
        """Accept connections again."""
        self.network.faults.refuses = False
