"""New connections of one server: a queue for their handshakes, and the endpoints that admit them without a request."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

from unmissed.delivery.socket import Admission
from unmissed.server.scope import AsgiScope
from unmissed.server.uvicorn_names import Config, ProxyHeadersMiddleware, ServerState

HANDSHAKES_PER_TURN = 8
"""How many handshakes are answered, or requests for event streams begun, in one iteration of the event loop.

One poll returns up to 1,024 connections after a restart. Established connections are served between two iterations.
"""

_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))

logger = logging.getLogger("unmissed")


class Arriving(Protocol):
    """A connection whose first data is complete."""

    transport: asyncio.Transport

    def arrive(self) -> None:
        """Answer the handshake."""
        ...


class Arrivals:
    """The new connections of one server."""

    _of_servers: ClassVar[WeakKeyDictionary[ServerState, "Arrivals"]] = WeakKeyDictionary()

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        self._waiting: deque[Arriving] = deque()
        self._admissions: dict[str, Admission] = {}
        self._proxy_headers = ProxyHeadersMiddleware(_end, trusted_hosts=config.forwarded_allow_ips or "")

    @classmethod
    def of(cls, state: ServerState, config: Config, loop: asyncio.AbstractEventLoop) -> "Arrivals":
        """Return the one object of a server."""
        found = cls._of_servers.get(state)
        if found is None:
            found = cls._of_servers[state] = cls(config, loop)
        return found

    def wait(self, connection: Arriving) -> None:
        """Let a connection wait for its turn."""
        if not self._waiting:
            self._loop.call_soon(self._take_turn)
        self._waiting.append(connection)

    def _take_turn(self) -> None:
        turn = [self._waiting.popleft() for _ in range(min(HANDSHAKES_PER_TURN, len(self._waiting)))]
        if self._waiting:
            self._loop.call_soon(self._take_turn)
        for connection in turn:
            try:
                connection.arrive()
            except Exception:
                logger.exception("connection aborted after an unexpected error in its handshake")
                connection.transport.abort()

    def admission(self, path: str) -> Admission | None:
        """Return the endpoint that handshakes for this path have reached before, or None."""
        return self._admissions.get(path)

    def learn(self, path: str, application: object, admission: Admission) -> None:
        """Remember that all handshakes for this path reach this endpoint of this application.

        Only where uvicorn calls that application itself: a middleware in front of it may want to see every handshake.
        """
        if self._served() is application:
            self._admissions[path] = admission

    def apply_proxy_headers(self, scope: AsgiScope) -> None:
        """Set the client's address and the scheme to the forwarded ones, as uvicorn does for an application."""
        if self._config.proxy_headers and not _FORWARDED.isdisjoint(dict(scope["headers"])):
            _run(self._proxy_headers(scope, _end, _end))  # type: ignore[arg-type]  # it passes these on to _end

    def _served(self) -> object:
        """Return the application, without what passes everything on unchanged."""
        application = self._config.loaded_app
        if isinstance(application, ProxyHeadersMiddleware):
            application = application.app
        return getattr(application, "unmissed_application", application)


async def _end(*_: Any) -> Any:
    """Do nothing, in place of an application."""


def _run(call: Awaitable[None]) -> None:
    """Run a coroutine that never waits."""
    for _ in call.__await__():
        raise RuntimeError("the coroutine waits")
