"""New connections of a server: their first data, the queue for their turns, and handshakes that need no request."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

from unmissed.core.rest import EVENTS_PATH
from unmissed.delivery.socket import ADMISSIONS_STATE, STALL_STATE, Admission, Admissions, Socket
from unmissed.framework_names import Config, ProxyHeadersMiddleware, ServerState
from unmissed.server.deadlines import HEAD_SECONDS
from unmissed.server.http_requests import RequestProtocol
from unmissed.server.native_websocket import NativeWebSocket, max_message_bytes
from unmissed.server.plain_handshake import (
    MAX_BYTES,
    AsgiScope,
    Handshake,
    address_and_path,
    may_be_plain,
    plain_handshake,
    websocket_scope,
)

STALL_SECONDS = 30.0
"""Seconds after which a client that does not read its response is disconnected, if the application announces none."""

HANDSHAKES_PER_TURN = 8
"""How many handshakes are answered, or requests for event streams begun, in one iteration of the event loop.

One poll returns up to 1,024 connections after a restart. Established connections are served between two iterations.
"""

_EVENT_STREAM = EVENTS_PATH.encode()
_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))

logger = logging.getLogger("uvicorn.error")
_own_logger = logging.getLogger("unmissed")


class HttpProtocol(asyncio.Protocol):
    """uvicorn's HTTP class: ``uvicorn app:app --http unmissed.server:HttpProtocol``.

    It waits for the first data of a connection. A plain handshake for a path that the application has announced is
    passed directly to the endpoint, without a request and a task: after a restart, all clients reconnect at once.
    Everything else, and each handshake that is refused, is left to ``RequestProtocol`` and the application, which can
    give the reason. Both ways get the same scope. Handshakes and requests for event streams wait for their turn.
    """

    __slots__ = ("_app_state", "_arrivals", "_config", "_data", "_head_timer", "_loop", "_state", "transport")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._arrivals = Arrivals.of(server_state, config, app_state, self._loop)
        self._data = b""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first data."""
        self.transport = cast("asyncio.Transport", transport)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn's type names only its classes
        self._head_timer = self._loop.call_later(HEAD_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio passes it
        """Forget the connection."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Queue a handshake or a request for an event stream. Other requests do not wait for a turn."""
        waiting, self._data = bool(self._data), self._data + data
        if waiting:
            # It keeps its place in the queue. Only requests have limits for what follows.
            if len(self._data) > MAX_BYTES:
                self._start_request()
        elif may_be_plain(self._data) or _may_be_event_stream(self._data):
            self._arrivals.wait(self)
        else:
            self._start_request()

    def eof_received(self) -> None:
        """Close the transport, by returning None: the client has left before it was answered."""

    def shutdown(self) -> None:
        """Close the connection because uvicorn is shutting down, or let the application refuse the handshake."""
        if self._data:
            self._start_request()
            # Whichever protocol is set by now: a whole handshake has replaced the one for requests.
            cast("Any", self.transport.get_protocol()).shutdown()
        else:
            self.transport.close()

    def arrive(self) -> None:
        """Answer the handshake, if it is plain and admitted. Does nothing if it was answered otherwise."""
        if not self._data or self.transport.is_closing():
            return
        if not may_be_plain(self._data) or not self._is_admitted():
            self._start_request()

    # Admission

    def _is_admitted(self) -> bool:
        handshake = plain_handshake(self._data)
        if handshake is None:
            return False
        scope = websocket_scope(
            handshake.target,
            list(handshake.headers.items()),
            config=self._config,
            transport=self.transport,
            state=self._app_state,
            extensions={},
        )
        admission = self._arrivals.admission(scope)
        if admission is None:
            return False
        try:
            admitted = admission(scope, lambda subprotocol: self._open(handshake, subprotocol))
        except BaseException:
            self._leave()
            raise
        if not admitted:
            return False
        # The socket has taken the transport over.
        self._leave()
        if logger.isEnabledFor(logging.INFO):
            logger.info('%s - "WebSocket %s" [accepted]', *address_and_path(scope))
        if handshake.rest:
            cast("asyncio.Protocol", self.transport.get_protocol()).data_received(handshake.rest)
        return True

    def _open(self, handshake: Handshake, subprotocol: str | None) -> Socket:
        """Return a socket that takes the transport over when a connection is attached to it."""
        return NativeWebSocket(
            self._state,
            self._loop,
            max_size=max_message_bytes(self._config),
            transport=self.transport,
            response=handshake.response(subprotocol),
        )

    # Requests

    def _start_request(self) -> None:
        """Leave the connection to the class for requests."""
        data = self._data
        # Also stops the timer for the first data: a request has its own deadlines.
        self._leave()
        seconds = self._app_state.get(STALL_STATE, STALL_SECONDS)
        protocol = RequestProtocol(self._config, self._state, self._app_state, self._loop, stall_seconds=seconds)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        # Last: these bytes may be a whole handshake, which sets another protocol.
        protocol.data_received(data)

    def _leave(self) -> None:
        self._data = b""
        self._head_timer.cancel()
        self._state.connections.discard(self)


class Arrivals:
    """What the new connections of one server share: the queue for their turns, and what its application announced."""

    _of_servers: ClassVar[WeakKeyDictionary[ServerState, "Arrivals"]] = WeakKeyDictionary()

    def __init__(self, config: Config, app_state: Mapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._root_path = config.root_path
        self._loop = loop
        self._waiting: deque[HttpProtocol] = deque()
        self._admissions = _announced(config, app_state)
        # The same class that uvicorn wraps applications in, so that both ways trust the same proxies.
        self._proxy_headers = (
            ProxyHeadersMiddleware(_end, trusted_hosts=config.forwarded_allow_ips or "")
            if config.proxy_headers
            else None
        )

    @classmethod
    def of(
        cls, state: ServerState, config: Config, app_state: Mapping[str, Any], loop: asyncio.AbstractEventLoop
    ) -> "Arrivals":
        """Return the one object of a server. It is created after the startup of the application."""
        found = cls._of_servers.get(state)
        if found is None:
            found = cls._of_servers[state] = cls(config, app_state, loop)
        return found

    def wait(self, connection: HttpProtocol) -> None:
        """Add a connection to the queue."""
        if not self._waiting:
            self._loop.call_soon(self._take_turn)
        self._waiting.append(connection)

    def _take_turn(self) -> None:
        turn = [self._waiting.popleft() for _ in range(min(HANDSHAKES_PER_TURN, len(self._waiting)))]
        # Before the handshakes, so that the next turn comes even if one of them raises.
        if self._waiting:
            self._loop.call_soon(self._take_turn)
        for connection in turn:
            try:
                connection.arrive()
            except Exception:
                _own_logger.exception("connection aborted after an unexpected error in its handshake")
                connection.transport.abort()

    def admission(self, scope: AsgiScope) -> Admission | None:
        """Return the endpoint that the application has announced for this path, and complete the scope; or None."""
        admission = self._admissions.get(scope["path"].removeprefix(self._root_path))
        if admission is not None and self._proxy_headers is not None:
            self._apply_proxy_headers(scope, self._proxy_headers)
        return admission

    def _apply_proxy_headers(self, scope: AsgiScope, middleware: ProxyHeadersMiddleware) -> None:
        """Set the client's address and the scheme to the forwarded ones, as uvicorn does for an application."""
        if not _FORWARDED.isdisjoint(dict(scope["headers"])):
            _run(middleware(scope, _end, _end))  # type: ignore[arg-type]  # it passes these on to _end


def _announced(config: Config, app_state: Mapping[str, Any]) -> Mapping[str, Admission]:
    """Return what admits handshakes, by path, as the application that uvicorn calls may have announced it.

    What an application inside another one announces does not count: the outer one, such as a middleware, would miss the
    handshakes. Only uvicorn's own middleware for proxy headers is known, and its work is done here.
    """
    announced = app_state.get(ADMISSIONS_STATE)
    application = config.loaded_app
    if config.proxy_headers and isinstance(application, ProxyHeadersMiddleware):
        application = application.app
    if isinstance(announced, Admissions) and announced.application is application:
        return announced.find()
    return {}


async def _end(*_: Any) -> Any:
    """Do nothing, in place of an application."""


def _run(call: Awaitable[None]) -> None:
    """Run a coroutine that never waits."""
    for _ in call.__await__():
        raise RuntimeError("the coroutine waits")


def _may_be_event_stream(data: bytes) -> bool:
    """Return whether the first bytes of a connection look like a request for an event stream, under any prefix."""
    return data.startswith(b"GET /") and _EVENT_STREAM in data.partition(b"\r\n")[0]
