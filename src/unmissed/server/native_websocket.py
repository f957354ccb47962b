"""An open WebSocket on a transport: writes encoded frames, and parses client frames when there are any."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from websockets.exceptions import InvalidState
from websockets.protocol import OPEN, SERVER, State
from websockets.protocol import Protocol as WebSocketParser

from unmissed.core.chunks import Chunk
from unmissed.core.close_codes import CloseCode, close_reason
from unmissed.delivery.socket import SocketListener
from unmissed.framework_names import Config, ServerState
from unmissed.server.frame_parser import FrameParser, ProtocolViolation, Received, StillSending
from unmissed.server.native_socket import NativeSocket

MAX_MESSAGE_BYTES = 65_536
"""Largest client message in bytes, unless uvicorn's ``--ws-max-size`` differs from its default."""

_UVICORN_MAX_SIZE = 16 * 1024 * 1024
_LINGER_SECONDS = 1.0
_PING = b"\x89\x00"
_PONG_OPCODE = 0x8A
_PONG_START, _PONG_BYTES = b"\x8a\x80", 6
"""A masked pong without a payload: the client's answer to ``_PING``."""

# At debug level the library logs request headers, which contain tokens. This logger is not in the hierarchy.
silent = logging.Logger("unmissed.websocket", logging.CRITICAL)  # noqa: LOG001


def max_message_bytes(config: Config) -> int:
    """Return the largest client message that a server accepts."""
    return MAX_MESSAGE_BYTES if config.ws_max_size == _UVICORN_MAX_SIZE else config.ws_max_size


class NativeWebSocket(NativeSocket):
    """A WebSocket without a task, whose frames use the public sans-I/O API of ``websockets``.

    A plain handshake is answered without an application: ``response`` opens the WebSocket, and is sent with the first
    frame. Messages are never compressed: compression takes memory for each connection, and compressed frames cannot be
    shared.
    """

    __slots__ = ("_frames", "_max_size", "_pinged", "_response", "receive_progress")

    def __init__(
        self,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        *,
        max_size: int,
        transport: asyncio.Transport | None = None,
        response: bytes = b"",
    ) -> None:
        super().__init__(server_state, loop)
        if transport is not None:
            self.transport = transport
        self.receive_progress = 0
        """Bytes received so far, including pongs."""
        self._max_size = max_size
        self._response = response
        self._frames: FrameParser | None = None
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
        self.close(CloseCode.SERVICE_RESTART)
        self._close_transport()

    # Socket

    def attach(self, listener: SocketListener) -> None:
        """Open the WebSocket, and report events to this listener."""
        self._listener = listener
        if self.transport.is_closing():
            # The client disconnected while it was authenticated.
            self._loop.call_soon(listener.socket_closed, *self.close_code)
        else:
            # Not before: until a connection is attached, the handshake can still be left to the application.
            self.connection_made(self.transport)
            self.transport.set_protocol(self)

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
            self._send_output()
            self.writable = False
            self._abort_later()

    @property
    def closing(self) -> bool:
        """Whether the closing handshake has begun, or the connection is lost."""
        return self._parser_state is not OPEN or self.transport.is_closing()

    @property
    def close_code(self) -> tuple[int, str]:
        """Code and reason of the close, as ASGI reports them."""
        close = self._frames and (self._parser.close_rcvd or self._parser.close_sent)
        return (close.code, close.reason) if close else (CloseCode.LOST, "")

    def pause_reading(self) -> None:
        """Stop reading and parsing until the application has received the parsed messages."""
        self._incoming.pause()

    def resume_reading(self) -> None:
        """Parse the pending data, then continue reading."""
        self._incoming.resume()

    # For an ASGI application

    def send(self, data: str | bytes) -> None:
        """Send one message."""
        with contextlib.suppress(InvalidState):
            if isinstance(data, str):
                self._parser.send_text(data.encode())
            else:
                self._parser.send_binary(data)
        self._send_output()

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self._parser.send_ping(payload)
        self._send_output()

    def fail(self, code: int, reason: str = "") -> None:
        """Send a close frame without waiting for an answer (RFC 6455 section 7.1.7)."""
        self._parser.fail(code, reason)
        self._send_output()

    # Parser and transport

    @property
    def _incoming(self) -> FrameParser:
        if self._frames is None:
            self._frames = FrameParser(
                self._new_parser(),
                self.transport,
                handle=self._handle,
                send_output=self._send_output,
                loop=self._loop,
                max_size=self._max_size,
            )
        return self._frames

    def _new_parser(self) -> WebSocketParser:
        return WebSocketParser(SERVER, state=OPEN, max_size=self._max_size, logger=silent)

    @property
    def _parser(self) -> WebSocketParser:
        return self._incoming.parser

    @property
    def _parser_state(self) -> State:
        """The state of the WebSocket. It is open while no parser was needed."""
        return OPEN if self._frames is None else self._parser.state

    def _handle(self, received: Received) -> None:
        """Pass a message to the listener, or end a WebSocket whose client breaks a rule."""
        match received:
            case str() | bytes():
                self._take_message(received)
            case ProtocolViolation(code=code, reason=reason):
                self.fail(code, reason)
            case StillSending():
                self._linger()

    def _take_message(self, message: str | bytes) -> None:
        """Pass a message to the listener, unless the server has closed the WebSocket."""
        # The parser is ahead: what a client sent before its own close frame, in the same segment, is taken after it.
        if self._listener is not None and (self._parser_state is OPEN or self._closed_by_client):
            self._listener.socket_received(message)

    @property
    def _closed_by_client(self) -> bool:
        return self._parser.close_rcvd is not None and bool(self._parser.close_rcvd_then_sent)

    def _send_output(self) -> None:
        """Write what the parser has produced."""
        output = self._parser.data_to_send()
        self._write_output(output if self.writable else without_pongs(output))

    def _write_output(self, output: Sequence[bytes]) -> None:
        """Write these bytes; the empty ones at the end of a WebSocket close the transport."""
        for data in output:
            if data:
                self._write(data)
            else:
                self._close_transport()

    def _linger(self) -> None:
        """Abort in a second, and not in ten: the client keeps sending after the close."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = self._loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _write(self, data: bytes) -> None:
        """Write to the transport: the first time, together with the response to a plain handshake."""
        # The response that opens the WebSocket (101) leaves with the first frame, which ``attach`` leads to at once. On
        # its own, it is a second send() and packet for each of the clients that reconnect together after a restart:
        # they then read 1.5 to 1.9 times instead of once. And a refusal by the listener still finds nothing written.
        if self._response:
            data, self._response = self._response + data, b""
        super()._write(data)


def without_pongs(output: Sequence[bytes]) -> list[bytes]:
    """Return the output without pongs, which would accumulate without bound for a peer that is not reading."""
    return [data for data in output if not data or data[0] != _PONG_OPCODE]
