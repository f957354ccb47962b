"""A WebSocket protocol class for uvicorn: lets an ASGI application decide about each handshake."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, cast

from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN, State
from websockets.protocol import Protocol as WebSocketParser
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from unmissed.core.encoding import encode_json
from unmissed.core.rest import PROBLEM_MEDIA_TYPE, closing_answer, problem
from unmissed.delivery.socket import SOCKET_EXTENSION, SocketListener
from unmissed.framework_names import Config, ServerState, get_remote_addr
from unmissed.server.asgi_bridge import AsgiBridge
from unmissed.server.frame_parser import Pong, Received
from unmissed.server.native_websocket import NativeWebSocket, max_message_bytes, silent, without_pongs
from unmissed.server.plain_handshake import websocket_scope

_BAD_REQUEST = closing_answer(HTTPStatus.BAD_REQUEST, "the handshake is not valid HTTP")

_LIMITS: dict[type[Exception], str] = {
    RequestLineTooLong: "its URL is too long (WEBSOCKETS_MAX_LINE_LENGTH)",
    HeaderLineTooLong: "a header, such as a cookie or a token, is too long (WEBSOCKETS_MAX_LINE_LENGTH)",
    TooManyHeaders: "it has too many headers (WEBSOCKETS_MAX_NUM_HEADERS)",
}
"""The limits of the library, with the environment variables that change them."""

logger = logging.getLogger("uvicorn.error")


class WebSocketProtocol(NativeWebSocket):
    """A WebSocket protocol class for uvicorn: ``uvicorn app:app --ws unmissed.server:WebSocketProtocol``.

    A WebSocket starts with an ASGI application; an endpoint finds this object in the scope's extensions as
    ``unmissed.socket``, may attach a connection to it, and return. From then on it needs no task.
    """

    __slots__ = ("app_state", "config")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(server_state, _loop or asyncio.get_running_loop(), max_size=max_message_bytes(config))
        self.config = config
        self.app_state = app_state

    def shutdown(self) -> None:
        """Close the WebSocket, or refuse its handshake, because uvicorn is shutting down."""
        if self._parser_state is CONNECTING:
            self._respond(
                self._handshake.reject(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down: reconnect shortly")
            )
        else:
            super().shutdown()

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener, including frames that the ASGI application has not read."""
        bridge, self._listener = self._listener, listener
        if isinstance(bridge, AsgiBridge):
            # Reading is still paused if frames are unread. They come in a later turn, after the listener's first write.
            if unread := bridge.hand_over():
                self._loop.call_soon(self._deliver_unread, unread)
        else:
            # The client disconnected before the application called attach().
            self._loop.call_soon(listener.socket_closed, *self.close_code)

    def _deliver_unread(self, frames: list[str | bytes]) -> None:
        """Pass on the frames that the application has not read, and then read again."""
        for frame in frames:
            self._take_message(frame)
        # Not before: what is still unparsed came after these frames, and must not overtake them.
        self.resume_reading()

    # The handshake

    def _new_parser(self) -> WebSocketParser:
        return _HandshakeParser(max_size=self._max_size, logger=silent)

    @property
    def _parser_state(self) -> State:
        """The state of the WebSocket, which begins with a handshake."""
        return self._parser.state

    @property
    def _handshake(self) -> ServerProtocol:
        return cast("ServerProtocol", self._parser)

    def _handle(self, received: Received) -> None:
        match received:
            case Request():
                self._take_handshake(received)
            case Pong(payload=payload):
                # For a connection, ``receive_progress`` is enough.
                if isinstance(self._listener, AsgiBridge):
                    self._listener.take_pong(payload)
            case _:
                super()._handle(received)

    def _take_handshake(self, request: Request) -> None:
        """Refuse the handshake, or let the application decide."""
        response = self._refusal(request) or self._handshake.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._respond(response)
            return
        # Informational responses need no date (RFC 9110 section 6.6.1).
        del response.headers["Date"]
        scope = websocket_scope(
            request.path.encode("ascii"),
            [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in request.headers.raw_items()],
            config=self.config,
            transport=self.transport,
            state=self.app_state,
            extensions={"websocket.http.response": {}, SOCKET_EXTENSION: self},
        )
        bridge = AsgiBridge(self, scope, response, respond=self._respond, config=self.config)
        self._listener = bridge
        bridge.start(self._loop, self._state)

    def _respond(self, response: Response) -> None:
        """Send the response to the handshake, unless the connection is already closing."""
        if not self.transport.is_closing():
            self._handshake.send_response(response)
            self._send_output()

    def _refusal(self, request: Request) -> Response | None:
        """Return the response to a handshake that ``websockets`` would accept or reject with a less precise status."""
        # RFC 9112 section 3.2: a request without this header, or with several, must get 400.
        if len(request.headers.get_all("Host")) != 1:
            return self._handshake.reject(HTTPStatus.BAD_REQUEST, "exactly one Host header is required")
        # RFC 6455 section 4.4: the refusal names the version, so that a client can try again with it.
        versions = request.headers.get_all("Sec-WebSocket-Version")
        if versions and versions != ["13"]:
            response = self._handshake.reject(HTTPStatus.UPGRADE_REQUIRED, "only version 13 is supported (RFC 6455)")
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = "13"
            return response
        return None

    def _take_message(self, message: str | bytes) -> None:
        """Pass a message to the listener: during the handshake, one that came with it, which the application reads."""
        if self._parser_state is CONNECTING and self._listener is not None:
            self._listener.socket_received(message)
        else:
            super()._take_message(message)

    def _send_output(self) -> None:
        """Write what the parser has produced."""
        output = self._parser.data_to_send()
        # No pongs are allowed before the handshake.
        if not self.writable or self._parser_state is CONNECTING:
            output = without_pongs(output)
        if output == [b""] and self._parser_state is CONNECTING:
            output = [_BAD_REQUEST, b""]
        if output and self._parser_state is not OPEN:
            self._log_refusal(self._handshake.handshake_exc)
        self._write_output(output)

    def _log_refusal(self, error: Exception | None) -> None:
        """Log why the handshake was refused before the application saw it."""
        if error is not None:
            address = ":".join(map(str, get_remote_addr(self.transport) or ()))
            why = _LIMITS.get(type(error), "it is not valid")
            logger.warning("%s - WebSocket handshake refused, because %s: %s", address, why, error)


class _HandshakeParser(ServerProtocol):
    """The parser of ``websockets``, which refuses a handshake as all of this server does."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """Return a response with a problem as its body."""
        response = super().reject(status, text)
        response.body = encode_json(problem(response.status_code, " ".join(text.split())))
        for name, value in (("Content-Type", PROBLEM_MEDIA_TYPE), ("Content-Length", str(len(response.body)))):
            # Headers of ``websockets`` are added to those of the same name.
            del response.headers[name]
            response.headers[name] = value
        response.headers["Cache-Control"] = "no-store"
        return response
