"""What a client sends on a WebSocket: parsed in bounded steps, and within budgets for frames and bytes."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSING, OPEN
from websockets.protocol import Protocol as WebSocketParser

from unmissed.core.close_codes import CloseCode
from unmissed.delivery.socket import MAX_BYTES_DISCARDED

_MIN_SEGMENT_BYTES = 1_024
_MAX_SEGMENT_BYTES = 16_384
_MANY_FRAMES = 16
_MIN_FRAGMENT_BYTES = 64
_MAX_CONTROL_FRAMES_PER_SECOND = 100
_MAX_BYTES_WHILE_CLOSING = 4_096


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class ProtocolViolation:
    """The client has broken a rule: the WebSocket is to be closed without waiting for an answer."""

    code: CloseCode
    reason: str


class StillSending:
    """The client keeps sending after the server's close."""


Received = Request | str | bytes | Pong | ProtocolViolation | StillSending
"""What a client has sent: a handshake, the message of text or binary frames, or one of the facts above."""


class FrameParser:
    """Parses the frames of one client: one segment of bytes in each iteration of the event loop.

    ``parser`` is the sans-I/O API of ``websockets``. It also holds the state of the closing handshake. ``handle`` is
    called with what has been received, and ``send_output`` after each step, which may have made output.
    """

    __slots__ = (
        "_bytes_while_closing",
        "_control_frames",
        "_control_second",
        "_fragments",
        "_handle",
        "_is_text",
        "_loop",
        "_max_fragments",
        "_parsing",
        "_reading_paused",
        "_segment_bytes",
        "_send_output",
        "_transport",
        "_unparsed",
        "parser",
    )

    def __init__(
        self,
        parser: WebSocketParser,
        transport: asyncio.Transport,
        *,
        handle: Callable[[Received], None],
        send_output: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        max_size: int,
    ) -> None:
        self.parser = parser
        self._transport = transport
        self._handle = handle
        self._send_output = send_output
        self._loop = loop
        self._max_fragments = max_size // _MIN_FRAGMENT_BYTES
        self._fragments: list[bytes] = []
        self._is_text = True
        self._control_frames = 0
        self._control_second = 0
        self._unparsed = b""
        # A handshake, which uvicorn limits, is not split.
        self._segment_bytes = _MIN_SEGMENT_BYTES if parser.state is OPEN else sys.maxsize
        self._parsing: asyncio.Handle | None = None
        self._reading_paused = False
        self._bytes_while_closing = 0

    def feed(self, data: bytes) -> None:
        """Parse client data: one segment now, and the rest in later iterations of the event loop."""
        self._unparsed = self._unparsed + data if self._unparsed else data
        if self._parsing is None and not self._reading_paused:
            self._parse()

    def pause(self) -> None:
        """Stop reading and parsing."""
        self._reading_paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Parse the pending data, then continue reading."""
        self._reading_paused = False
        if self._parsing is None:
            # Later: a listener may resume while it handles a frame, and the rest of that segment comes before this.
            # One that resumes for each frame would have everything parsed in one turn of the event loop.
            self._parsing = self._loop.call_soon(self._parse_rest)

    def end(self) -> None:
        """Drop the pending data: the connection is lost."""
        self._unparsed = b""
        self.parser.receive_eof()

    def _parse(self) -> None:
        """Parse one segment. Pause reading until the rest is parsed."""
        transport = self._transport
        if transport.is_closing():
            self._unparsed = b""
            return
        size = self._segment_bytes
        segment, self._unparsed = self._unparsed[:size], self._unparsed[size:]
        if self._discards(len(segment)):
            return
        self.parser.receive_data(segment)
        self._send_output()
        events = self.parser.events_received()
        self._adapt_segments(len(events))
        for event in events:
            if isinstance(event, Request):
                self._segment_bytes = _MIN_SEGMENT_BYTES
                self._handle(event)
            elif isinstance(event, Frame):
                self._take_frame(event)
        # The rest waits for the next turn, so that a flood of small frames delays other clients by one segment only.
        if self._unparsed and self._parsing is None:
            transport.pause_reading()
            if not self._reading_paused:
                self._parsing = self._loop.call_soon(self._parse_rest)

    def _adapt_segments(self, frames: int) -> None:
        """Parse more at once while frames are large: the cost of parsing grows with the number of frames."""
        if frames > _MANY_FRAMES:
            self._segment_bytes = _MIN_SEGMENT_BYTES
        elif self._segment_bytes < _MAX_SEGMENT_BYTES:
            self._segment_bytes *= 2

    def _parse_rest(self) -> None:
        self._parsing = None
        if self._unparsed and not self._reading_paused:
            self._parse()
        if not self._unparsed and not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _discards(self, size: int) -> bool:
        """Return whether data is discarded unparsed, because the client keeps sending after the server's close.

        The connection ends a second later: an earlier reset could destroy the close frame before the client reads it.
        Until then, a client that sends more than MAX_BYTES_DISCARDED is no longer read.
        """
        if self.parser.state is not CLOSING:
            return False
        before, self._bytes_while_closing = self._bytes_while_closing, self._bytes_while_closing + size
        if self._bytes_while_closing <= _MAX_BYTES_WHILE_CLOSING:
            return False
        self._unparsed = b""
        if before <= _MAX_BYTES_WHILE_CLOSING:
            self._handle(StillSending())
        if self._bytes_while_closing > MAX_BYTES_DISCARDED:
            self.pause()
        return True

    def _take_frame(self, frame: Frame) -> None:
        # The parser has answered pings and close frames already. How many pings and pongs may come is limited here.
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
            self._violate(CloseCode.TOO_MANY, "too many control frames")
        elif frame.opcode is Opcode.PONG:
            self._handle(Pong(bytes(frame.data)))

    def _take_data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        # Fragments are counted: empty ones take memory, and never reach a limit of bytes.
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > self._max_fragments:
            self._violate(CloseCode.TOO_LARGE, "too many fragments")
        elif frame.fin:
            message = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
            self._fragments.clear()
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        try:
            # A fragment may end within a character: only the whole message must be UTF-8 (RFC 6455 section 5.6).
            decoded = message.decode() if self._is_text else message
        except UnicodeDecodeError:
            self._violate(CloseCode.INVALID_DATA, "invalid UTF-8 in a text message")
        else:
            self._handle(decoded)

    def _violate(self, code: CloseCode, reason: str) -> None:
        self._handle(ProtocolViolation(code, reason))
