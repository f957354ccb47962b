"""An HTTP protocol class for uvicorn: answers plain WebSocket handshakes, and leaves everything else to requests."""

import asyncio
import logging
from typing import Any, cast

from unmissed.core.framing import EVENTS_PATH
from unmissed.delivery.socket import STALL_STATE, Socket
from unmissed.server.arrivals import Arrivals
from unmissed.server.deadlines import HEAD_SECONDS
from unmissed.server.http_requests import RequestProtocol
from unmissed.server.plain_handshake import MAX_BYTES, Handshake, may_be_plain, plain_handshake
from unmissed.server.scope import address_and_path, websocket_scope
from unmissed.server.uvicorn_names import Config, ServerState
from unmissed.server.websocket_protocol import WebSocketProtocol

STALL_SECONDS = 30.0
"""Seconds after which a client that does not read its response is disconnected, if the application announces none."""

_EVENT_STREAM = EVENTS_PATH.encode()

logger = logging.getLogger("uvicorn.error")


class HttpProtocol(asyncio.Protocol):
    """uvicorn's HTTP class: ``uvicorn app:app --http unmissed.server:HttpProtocol``.

    It waits for the first data of a connection. A plain handshake for a path that has led to ``/ws`` before is passed
    to that endpoint, without a request and a task: after a restart every client reconnects at once. Everything else,
    and each handshake that is refused, is left to ``RequestProtocol`` and the application, which can say why. Both ways
    get the same scope. Handshakes and requests for event streams wait for their turn.
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
        self._arrivals = Arrivals.of(server_state, config, self._loop)
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
        """Let a handshake or a request for an event stream wait for its turn. Other requests do not wait."""
        waiting, self._data = bool(self._data), self._data + data
        if waiting:
            # Its place in the queue stays, and only requests have limits for what follows.
            if len(self._data) > MAX_BYTES:
                self._start_request()
        elif may_be_plain(self._data) or _may_be_event_stream(self._data):
            self._arrivals.wait(self)
        else:
            self._start_request()

    def eof_received(self) -> None:
        """Let the transport close: nobody is there to read an answer."""

    def shutdown(self) -> None:
        """Close the connection because uvicorn is shutting down, or let the application refuse the handshake."""
        if self._data:
            self._start_request()
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
        admission = self._arrivals.admission(scope["path"])
        if admission is None:
            return False
        self._arrivals.apply_proxy_headers(scope)
        try:
            admitted = admission(scope, lambda subprotocol: self._open(handshake, subprotocol))
        except BaseException:
            self._leave()
            raise
        if not admitted:
            return False
        self._leave()
        if logger.isEnabledFor(logging.INFO):
            logger.info('%s - "WebSocket %s" [accepted]', *address_and_path(scope))
        if handshake.rest:
            cast("asyncio.Protocol", self.transport.get_protocol()).data_received(handshake.rest)
        return True

    def _open(self, handshake: Handshake, subprotocol: str | None) -> Socket:
        """Return a socket that opens when a connection is attached to it."""
        return WebSocketProtocol(
            self._config,
            self._state,
            self._app_state,
            self._loop,
            transport=self.transport,
            response=handshake.response(subprotocol),
        )

    # Requests

    def _start_request(self) -> None:
        """Leave the connection to the class for requests."""
        data = self._data
        self._leave()
        seconds = self._app_state.get(STALL_STATE, STALL_SECONDS)
        protocol = RequestProtocol(self._config, self._state, self._app_state, self._loop, stall_seconds=seconds)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)

    def _leave(self) -> None:
        self._data = b""
        self._head_timer.cancel()
        self._state.connections.discard(self)


def _may_be_event_stream(data: bytes) -> bool:
    """Return whether the first bytes of a connection look like a request for an event stream, under any prefix."""
    return data.startswith(b"GET /") and _EVENT_STREAM in data.partition(b"\r\n")[0]
