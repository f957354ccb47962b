"""A WebSocket protocol class for uvicorn: parses client frames and writes encoded frames."""

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSING, CONNECTING, OPEN
from websockets.server import ServerProtocol

from unmissed.core.wire import CloseCode, close_reason
from unmissed.delivery.chunks import Chunk
from unmissed.delivery.socket import SocketListener
from unmissed.server.asgi import AsgiBridge
from unmissed.server.kernel import unacknowledged_bytes
from unmissed.server.uvicorn_names import Config, ServerState

MAX_MESSAGE_BYTES = 65_536
"""Largest client message in bytes, unless uvicorn's ``--ws-max-size`` differs from its default."""

_UVICORN_MAX_SIZE = 16 * 1024 * 1024
_WRITE_BUFFER_BYTES = 16_384
_CLOSE_SECONDS = 10.0
_MIN_SEGMENT_BYTES = 1_024
_MAX_SEGMENT_BYTES = 16_384
_MANY_FRAMES = 16
_MIN_FRAGMENT_BYTES = 64
_MAX_CONTROL_FRAMES_PER_SECOND = 100
_MAX_BYTES_WHILE_CLOSING = 4_096
_LINGER_SECONDS = 1.0
_PONG = 0x8A

# At debug level the library logs request headers, which contain tokens. This logger is not in the hierarchy.
_silent = logging.Logger("unmissed.websocket", logging.CRITICAL)  # noqa: LOG001


class WebSocketProtocol(asyncio.Protocol):
    """A WebSocket protocol class for uvicorn: ``uvicorn app:app --ws unmissed.server:WebSocketProtocol``.

    Handshake and frames use the public sans-I/O API of ``websockets``. Each WebSocket starts with an ASGI application;
    an endpoint finds this object in the scope's extensions as ``unmissed.socket``, may attach a connection to it, and
    return. From then on it is a ``Socket`` without a task. It never compresses: that costs memory for each connection,
    and compressed frames cannot be shared.
    """

    __slots__ = (
        "_bytes_while_closing",
        "_close_timer",
        "_conn",
        "_control_frames",
        "_control_second",
        "_fragments",
        "_is_text",
        "_listener",
        "_loop",
        "_max_fragments",
        "_parsing",
        "_reading_paused",
        "_segment_bytes",
        "_state",
        "_unparsed",
        "_written",
        "app_state",
        "config",
        "receive_progress",
        "transport",
        "writable",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self.app_state = app_state
        self.writable = True
        """Whether the transport accepts data. False once the WebSocket is closing."""
        self._state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        max_size = MAX_MESSAGE_BYTES if config.ws_max_size == _UVICORN_MAX_SIZE else config.ws_max_size
        self._conn = ServerProtocol(max_size=max_size, logger=_silent)
        self._max_fragments = max_size // _MIN_FRAGMENT_BYTES
        self._fragments: list[bytes] = []
        self._is_text = True
        self._listener: SocketListener | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._control_frames = 0
        self._control_second = 0
        self._written = 0
        self.receive_progress = 0
        """Bytes received so far, including pongs."""
        self._unparsed = b""
        self._segment_bytes = _MIN_SEGMENT_BYTES
        self._parsing: asyncio.Handle | None = None
        self._reading_paused = False
        self._bytes_while_closing = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from uvicorn's HTTP protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn's type names only its classes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio passes it
        """Report the disconnect to the listener."""
        self._state.connections.discard(self)
        self.writable = False
        self._unparsed = b""
        self._conn.receive_eof()
        if self._close_timer is not None:
            self._close_timer.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.socket_closed()

    def data_received(self, data: bytes) -> None:
        """Parse client data: one segment now, and the others in later iterations of the event loop."""
        self.receive_progress += len(data)
        self._unparsed = self._unparsed + data if self._unparsed else data
        if self._parsing is None and not self._reading_paused:
            self._parse()

    def pause_reading(self) -> None:
        """Stop reading and parsing until the application has received the parsed messages."""
        self._reading_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Parse the pending data, then continue reading."""
        self._reading_paused = False
        if self._parsing is None:
            self._parsing = self._loop.call_soon(self._parse_rest)

    def eof_received(self) -> None:
        """Let the transport close: a WebSocket cannot be half-closed."""

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """Report to the listener that the transport accepts data again."""
        self.writable = self._conn.state is OPEN
        if self.writable and self._listener is not None:
            self._listener.socket_writable()

    def shutdown(self) -> None:
        """Close the WebSocket because uvicorn is shutting down."""
        if self._conn.state is CONNECTING:
            self.respond(self._conn.reject(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down\n"))
        else:
            self.close(CloseCode.SERVICE_RESTART)
            self._close_transport()

    # Socket

    @property
    def buffer_empty(self) -> bool:
        """Whether the kernel has accepted everything. Always False while the WebSocket is closing."""
        return self._close_timer is None and not self.transport.get_write_buffer_size()

    @property
    def write_progress(self) -> int:
        """Number of bytes that the client's TCP stack has acknowledged; outside Linux, that the kernel has accepted."""
        unsent = self.transport.get_write_buffer_size()
        return self._written - unsent - unacknowledged_bytes(self.transport)

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener, including frames that the ASGI application has not read."""
        bridge, self._listener = self._listener, listener
        if isinstance(bridge, AsgiBridge):
            for frame in bridge.hand_over():
                self._loop.call_soon(listener.socket_received, frame)
        else:
            # The client disconnected before the application called attach().
            self._loop.call_soon(listener.socket_closed)

    def write(self, chunk: Chunk) -> None:
        """Write the encoded frames."""
        frames = chunk.frames
        self._written += len(frames)
        self.transport.write(frames)

    def keepalive(self) -> bool:
        """Send a ping if the transport accepts data, and return True: pongs are tracked here."""
        if self.writable:
            self.ping(b"")
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame after the data written so far, and wait up to 10 seconds for the client's close frame."""
        if self._conn.state is OPEN:
            self._conn.send_close(code, close_reason(reason))
            self._send_output()
            self.writable = False
            self._abort_later()

    def abort(self) -> None:
        """Reset the connection and discard unsent data."""
        self.transport.abort()

    # WebSocketTransport, for the ASGI application

    @property
    def closing(self) -> bool:
        """Whether the closing handshake has begun, or the connection is lost."""
        return self._conn.state is not OPEN or self.transport.is_closing()

    @property
    def close_code(self) -> tuple[int, str]:
        """Code and reason of the close, as ASGI reports them."""
        close = self._conn.close_rcvd or self._conn.close_sent
        return (close.code, close.reason) if close else (CloseCode.LOST, "")

    def respond(self, response: Response) -> None:
        """Send the response to the handshake, unless the connection is already closing."""
        if not self.transport.is_closing():
            self._conn.send_response(response)
            self._send_output()

    def send(self, data: str | bytes) -> None:
        """Send one message of an ASGI application."""
        with contextlib.suppress(InvalidState):
            if isinstance(data, str):
                self._conn.send_text(data.encode())
            else:
                self._conn.send_binary(data)
        self._send_output()

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self._conn.send_ping(payload)
        self._send_output()

    def fail(self, code: int, reason: str = "") -> None:
        """Send a close frame without waiting for an answer (RFC 6455 section 7.1.7)."""
        self._conn.fail(code, reason)
        self._send_output()

    # Incoming

    def _parse(self) -> None:
        """Parse one segment. Pause reading until the rest is parsed."""
        if self.transport.is_closing():
            self._unparsed = b""
            return
        segment = self._next_segment()
        if self._discards(len(segment)):
            return
        self._conn.receive_data(segment)
        self._send_output()
        events = self._conn.events_received()
        self._adapt_segments(len(events))
        for event in events:
            self._take(event)
        if self._unparsed and self._parsing is None:
            self.transport.pause_reading()
            if not self._reading_paused:
                self._parsing = self._loop.call_soon(self._parse_rest)

    def _next_segment(self) -> bytes:
        """Return what to parse in this turn of the event loop. The handshake, which uvicorn limits, is never split."""
        size = len(self._unparsed) if self._listener is None else self._segment_bytes
        segment, self._unparsed = self._unparsed[:size], self._unparsed[size:]
        return segment

    def _adapt_segments(self, frames: int) -> None:
        """Parse more at once while frames are large: the cost of parsing is the number of frames."""
        if frames > _MANY_FRAMES:
            self._segment_bytes = _MIN_SEGMENT_BYTES
        elif self._segment_bytes < _MAX_SEGMENT_BYTES:
            self._segment_bytes *= 2

    def _parse_rest(self) -> None:
        self._parsing = None
        if self._unparsed and not self._reading_paused:
            self._parse()
        if not self._unparsed and not self._reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _discards(self, size: int) -> bool:
        """Return whether data is discarded unparsed, because the client keeps sending after the server's close.

        The connection ends a second later: an earlier reset could destroy the close frame before the client reads it.
        """
        if self._conn.state is not CLOSING:
            return False
        before, self._bytes_while_closing = self._bytes_while_closing, self._bytes_while_closing + size
        if self._bytes_while_closing <= _MAX_BYTES_WHILE_CLOSING:
            return False
        self._unparsed = b""
        if before <= _MAX_BYTES_WHILE_CLOSING and self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = self._loop.call_later(_LINGER_SECONDS, self.transport.abort)
        return True

    def _take(self, event: Request | Response | Frame) -> None:
        if isinstance(event, Request):
            self._take_handshake(event)
        elif isinstance(event, Frame):
            self._take_frame(event)

    def _take_handshake(self, request: Request) -> None:
        response = self._refusal(request) or self._conn.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.respond(response)
            return
        bridge = AsgiBridge(self, request, response)
        self._listener = bridge
        bridge.start(self._loop, self._state)

    def _refusal(self, request: Request) -> Response | None:
        """Return the response to a handshake that ``websockets`` would accept or reject with a less precise status."""
        if len(request.headers.get_all("Host")) != 1:
            return self._conn.reject(HTTPStatus.BAD_REQUEST, "exactly one Host header is required\n")
        versions = request.headers.get_all("Sec-WebSocket-Version")
        if versions and versions != ["13"]:
            response = self._conn.reject(HTTPStatus.UPGRADE_REQUIRED, "only version 13 is supported (RFC 6455)\n")
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = "13"
            return response
        return None

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            self._take_control(frame)
        elif frame.opcode is not Opcode.CLOSE:
            self._take_data(frame)

    def _take_control(self, frame: Frame) -> None:
        second = int(self._loop.time())
        if second != self._control_second:
            self._control_second, self._control_frames = second, 0
        self._control_frames += 1
        if self._control_frames > _MAX_CONTROL_FRAMES_PER_SECOND:
            self.fail(CloseCode.TOO_MANY, "too many control frames")
        elif frame.opcode is Opcode.PONG and isinstance(self._listener, AsgiBridge):
            self._listener.take_pong(bytes(frame.data))

    def _take_data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > self._max_fragments:
            self.fail(CloseCode.TOO_LARGE, "too many fragments")
        elif frame.fin:
            message = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
            self._fragments.clear()
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        if self._listener is None or self._conn.state not in (CONNECTING, OPEN):
            return
        try:
            self._listener.socket_received(message.decode() if self._is_text else message)
        except UnicodeDecodeError:
            self.fail(CloseCode.INVALID_DATA, "invalid UTF-8 in a text message")

    # Outgoing

    def _send_output(self) -> None:
        output = self._conn.data_to_send()
        if not self.writable or self._conn.state is CONNECTING:
            # Pongs to a peer that is not reading would accumulate without bound. None are allowed before the handshake.
            output = [data for data in output if not data or data[0] != _PONG]
        if output == [b""] and self._conn.state is CONNECTING:
            output = [_BAD_REQUEST, b""]
        for data in output:
            if data:
                self._written += len(data)
                self.transport.write(data)
            else:
                self._close_transport()

    def _close_transport(self) -> None:
        """Close the transport, and abort it 10 seconds later: a close waits for a peer that may never read."""
        self.writable = False
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(_CLOSE_SECONDS, self.transport.abort)


_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
