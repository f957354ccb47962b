"""A WebSocket protocol class for uvicorn: writes encoded frames, and parses client frames when there are any."""

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import Any, cast

from websockets.exceptions import HeaderLineTooLong, InvalidState, RequestLineTooLong, TooManyHeaders
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN, SERVER, State
from websockets.protocol import Protocol as WebSocketParser
from websockets.server import ServerProtocol

from unmissed.core.chunks import Chunk
from unmissed.core.close_codes import CloseCode, close_reason
from unmissed.delivery.socket import SocketListener
from unmissed.framework_names import Config, ServerState, get_remote_addr
from unmissed.server.asgi_bridge import AsgiBridge
from unmissed.server.frame_parser import Frames
from unmissed.server.native_socket import NativeSocket

MAX_MESSAGE_BYTES = 65_536
"""Largest client message in bytes, unless uvicorn's ``--ws-max-size`` differs from its default."""

_UVICORN_MAX_SIZE = 16 * 1024 * 1024
_LINGER_SECONDS = 1.0
_PING = b"\x89\x00"
_PONG_OPCODE = 0x8A
_PONG_START, _PONG_BYTES = b"\x8a\x80", 6
"""A masked pong without a payload: the client's answer to ``_PING``."""
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_LIMITS: dict[type[Exception], str] = {
    RequestLineTooLong: "its URL is too long (WEBSOCKETS_MAX_LINE_LENGTH)",
    HeaderLineTooLong: "a header, such as a cookie or a token, is too long (WEBSOCKETS_MAX_LINE_LENGTH)",
    TooManyHeaders: "it has too many headers (WEBSOCKETS_MAX_NUM_HEADERS)",
}
"""The limits of the library, with the environment variables that change them."""

logger = logging.getLogger("uvicorn.error")

# At debug level the library logs request headers, which contain tokens. This logger is not in the hierarchy.
_silent = logging.Logger("unmissed.websocket", logging.CRITICAL)  # noqa: LOG001


class WebSocketProtocol(NativeSocket):
    """A WebSocket protocol class for uvicorn: ``uvicorn app:app --ws unmissed.server:WebSocketProtocol``.

    Handshake and frames use the public sans-I/O API of ``websockets``. A WebSocket starts with an ASGI application; an
    endpoint finds this object in the scope's extensions as ``unmissed.socket``, may attach a connection to it, and
    return. From then on it is a ``Socket`` without a task. ``HttpProtocol`` answers a plain handshake without an
    application: it passes the ``transport``, and the ``response``, which is sent with the first frame. Messages are
    never compressed: compression takes memory for each connection, and compressed frames cannot be shared.
    """

    __slots__ = ("_frames", "_opened_plainly", "_pinged", "_response", "app_state", "config", "receive_progress")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        transport: asyncio.Transport | None = None,
        response: bytes | None = None,
    ) -> None:
        super().__init__(server_state, _loop or asyncio.get_running_loop())
        if transport is not None:
            self.transport = transport
        self.config = config
        self.app_state = app_state
        self.receive_progress = 0
        """Bytes received so far, including pongs."""
        self._opened_plainly = response is not None
        self._response = response or b""
        self._frames: Frames | None = None
        self._pinged = False

    # asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect to the listener."""
        if self._frames is not None:
            self._frames.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse client data. The parser is created for the first data that is not the answer to a ping."""
        self.receive_progress += len(data)
        if self._pinged and self._frames is None and len(data) == _PONG_BYTES and data.startswith(_PONG_START):
            self._pinged = False
        else:
            self._incoming.feed(data)

    def shutdown(self) -> None:
        """Close the WebSocket because uvicorn is shutting down."""
        if self._parser_state is CONNECTING:
            self.respond(self._handshake.reject(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down\n"))
        else:
            self.close(CloseCode.SERVICE_RESTART)
            self._close_transport()

    # Socket

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener, including frames that the ASGI application has not read."""
        bridge, self._listener = self._listener, listener
        if isinstance(bridge, AsgiBridge):
            # Reading is still paused if frames are unread. They come in a later turn, after the listener's first write.
            if unread := bridge.hand_over():
                self._loop.call_soon(self._deliver_unread, unread)
        elif self._response and not self.transport.is_closing():
            # Not before: until a connection is attached, the handshake can still be left to the application.
            self.connection_made(self.transport)
            self.transport.set_protocol(self)
        else:
            # The client disconnected before the application called attach().
            self._loop.call_soon(listener.socket_closed, *self.close_code)

    def write(self, chunk: Chunk) -> None:
        """Write the encoded frames."""
        self._write(chunk.frames)

    def keepalive(self) -> bool:
        """Send a ping if the transport accepts data, and return True: pongs are tracked here."""
        if self.writable:
            self._pinged = True
            self._write(_PING)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame after the data written so far, and wait up to 10 seconds for the client's close frame."""
        if not self.closing:
            self._parser.send_close(code, close_reason(reason))
            self.send_output()
            self.writable = False
            self._abort_later()

    # For the ASGI application

    @property
    def closing(self) -> bool:
        """Whether the closing handshake has begun, or the connection is lost."""
        return self._parser_state is not OPEN or self.transport.is_closing()

    @property
    def close_code(self) -> tuple[int, str]:
        """Code and reason of the close, as ASGI reports them."""
        close = self._frames and (self._parser.close_rcvd or self._parser.close_sent)
        return (close.code, close.reason) if close else (CloseCode.LOST, "")

    def respond(self, response: Response) -> None:
        """Send the response to the handshake, unless the connection is already closing."""
        if not self.transport.is_closing():
            self._handshake.send_response(response)
            self.send_output()

    def send(self, data: str | bytes) -> None:
        """Send one message of an ASGI application."""
        with contextlib.suppress(InvalidState):
            if isinstance(data, str):
                self._parser.send_text(data.encode())
            else:
                self._parser.send_binary(data)
        self.send_output()

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self._parser.send_ping(payload)
        self.send_output()

    def pause_reading(self) -> None:
        """Stop reading and parsing until the application has received the parsed messages."""
        self._incoming.pause()

    def resume_reading(self) -> None:
        """Parse the pending data, then continue reading."""
        self._incoming.resume()

    def fail(self, code: int, reason: str = "") -> None:
        """Send a close frame without waiting for an answer (RFC 6455 section 7.1.7)."""
        self._parser.fail(code, reason)
        self.send_output()

    # For the parser of frames

    def take_handshake(self, request: Request) -> None:
        """Refuse the handshake, or let the application decide."""
        response = self._refusal(request) or self._handshake.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.respond(response)
            return
        # Informational responses need no date (RFC 9110 section 6.6.1).
        del response.headers["Date"]
        bridge = AsgiBridge(self, request, response)
        self._listener = bridge
        bridge.start(self._loop, self._state)

    def take_message(self, message: str | bytes) -> None:
        """Pass a message to the listener, unless the server has closed the WebSocket."""
        # The parser is ahead: what a client sent before its own close frame, in the same segment, is taken after it.
        if self._listener is not None and (self._parser_state in (CONNECTING, OPEN) or self._closed_by_client):
            self._listener.socket_received(message)

    def take_pong(self, payload: bytes) -> None:
        """Report a pong to the bridge. For a connection, ``receive_progress`` is enough."""
        if isinstance(self._listener, AsgiBridge):
            self._listener.take_pong(payload)

    def send_output(self) -> None:
        """Write what the parser has produced."""
        output = self._parser.data_to_send()
        if not self.writable or self._parser_state is CONNECTING:
            # Pongs to a peer that is not reading would accumulate without bound. None are allowed before the handshake.
            output = [data for data in output if not data or data[0] != _PONG_OPCODE]
        if output == [b""] and self._parser_state is CONNECTING:
            output = [_BAD_REQUEST, b""]
        if output and self._parser_state is not OPEN and isinstance(self._parser, ServerProtocol):
            self._log_refusal(self._parser.handshake_exc)
        for data in output:
            if data:
                self._write(data)
            else:
                self._close_transport()

    def linger(self) -> None:
        """Abort in a second, and not in ten: the client keeps sending after the close."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = self._loop.call_later(_LINGER_SECONDS, self.transport.abort)

    # Parser and transport

    @property
    def _incoming(self) -> Frames:
        if self._frames is None:
            max_size = MAX_MESSAGE_BYTES if self.config.ws_max_size == _UVICORN_MAX_SIZE else self.config.ws_max_size
            if self._opened_plainly:
                parser = WebSocketParser(SERVER, state=OPEN, max_size=max_size, logger=_silent)
            else:
                parser = ServerProtocol(max_size=max_size, logger=_silent)
            self._frames = Frames(parser, self, loop=self._loop, max_size=max_size)
        return self._frames

    @property
    def _parser(self) -> WebSocketParser:
        return self._incoming.parser

    @property
    def _parser_state(self) -> State:
        """The state of the WebSocket. After a plain handshake, it is open while no parser was needed."""
        return OPEN if self._frames is None and self._opened_plainly else self._parser.state

    @property
    def _closed_by_client(self) -> bool:
        return self._parser.close_rcvd is not None and bool(self._parser.close_rcvd_then_sent)

    @property
    def _handshake(self) -> ServerProtocol:
        return cast("ServerProtocol", self._parser)

    def _log_refusal(self, error: Exception | None) -> None:
        """Log why the handshake was refused before the application saw it."""
        if error is not None:
            address = ":".join(map(str, get_remote_addr(self.transport) or ()))
            why = _LIMITS.get(type(error), "it is not valid")
            logger.warning("%s - WebSocket handshake refused, because %s: %s", address, why, error)

    def _refusal(self, request: Request) -> Response | None:
        """Return the response to a handshake that ``websockets`` would accept or reject with a less precise status."""
        if len(request.headers.get_all("Host")) != 1:
            return self._handshake.reject(HTTPStatus.BAD_REQUEST, "exactly one Host header is required\n")
        versions = request.headers.get_all("Sec-WebSocket-Version")
        if versions and versions != ["13"]:
            response = self._handshake.reject(HTTPStatus.UPGRADE_REQUIRED, "only version 13 is supported (RFC 6455)\n")
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = "13"
            return response
        return None

    def _deliver_unread(self, frames: list[str | bytes]) -> None:
        """Pass on the frames that the application has not read, and then read again."""
        for frame in frames:
            self.take_message(frame)
        # Not before: what is still unparsed came after these frames, and must not overtake them.
        self.resume_reading()

    def _write(self, data: bytes) -> None:
        """Write to the transport: the first time, together with the response to a plain handshake."""
        # The response that opens the WebSocket (101) leaves with the first frame, which ``attach`` leads to at once. On
        # its own, it is a second send() and packet for each of the clients that reconnect together after a restart:
        # they then read 1.5 to 1.9 times instead of once. And a refusal by the listener still finds nothing written.
        if self._response:
            data, self._response = self._response + data, b""
        super()._write(data)
