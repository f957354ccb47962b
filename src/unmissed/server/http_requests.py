"""HTTP requests, with limits on time, size and pipelining."""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools

from unmissed.core.rest import closing_answer
from unmissed.delivery.socket import BODY_EXTENSION, Socket
from unmissed.framework_names import (
    Config,
    FlowControl,
    HttpToolsProtocol,
    RequestHooks,
    RequestResponseCycle,
    ServerState,
)
from unmissed.server.deadlines import Deadlines
from unmissed.server.event_stream_protocol import EventStreamProtocol

MAX_URL_BYTES = 8_192
MAX_HEAD_BYTES = 65_536
"""Maximum size of a request without its body. Chunked framing may add 16 bytes per byte of the body."""

_SEGMENT_BYTES = 8_192
_MAX_FRAMING_RATIO = 16
_LINGER_BYTES = 262_144
_INVALID = HTTPStatus.BAD_REQUEST
_URI_TOO_LONG = HTTPStatus.REQUEST_URI_TOO_LONG
_HEADERS_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_REASONS = {
    _INVALID: "it is not valid HTTP",
    _URI_TOO_LONG: f"its URL has more than {MAX_URL_BYTES:,} bytes",
    _HEADERS_TOO_LARGE: f"its head, or the framing of its body, has more than {MAX_HEAD_BYTES:,} bytes",
}
_ANSWERS = {status: closing_answer(status, f"request refused: {reason}") for status, reason in _REASONS.items()}


class RequestProtocol(RequestHooks, HttpToolsProtocol):
    """uvicorn's class for HTTP requests, which also starts WebSockets, with limits.

    A request head must arrive within 10 seconds, a body within 20 seconds plus 1 second per kB. The client must read
    the response (see ``Deadlines``). At most one segment of pipelined requests is parsed ahead. A response that is sent
    before the end of the body closes the connection. Frames in the same segment as a handshake are passed on.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        stall_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self._stall_seconds = stall_seconds

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait for the first request head."""
        super().connection_made(transport)
        self._unparsed = b""
        self._framing_bytes = self._body_bytes = 0
        self._refusal = _INVALID
        self._running: RequestResponseCycle | None = None
        self._lingering = False
        self.flow = _ReadFlow(transport, parse_rest=self._parse_rest)
        self._deadlines = Deadlines(self.loop, transport, flow=self.flow, stall_seconds=self._stall_seconds)
        self._deadlines.expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and report the disconnect to the running request: uvicorn reports it only to the latest."""
        self._deadlines.stop()
        self._unparsed = b""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse client data, except for requests that must wait for the responses to earlier requests."""
        if self._lingering:
            self._discard(len(data))
            return
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._parse()

    def shutdown(self) -> None:
        """Shut down with uvicorn: finish a complete request, and give slow clients only two more seconds."""
        self._deadlines.hurry()
        super().shutdown()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Stop the keep-alive timer, and wait for the rest of the head."""
        self.stop_keepalive_timer()
        self._framing_bytes = self._body_bytes = 0
        self._in_head = True
        self._deadlines.expect_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refusal = _URI_TOO_LONG
            raise ValueError("the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header. Trailers, which arrive after the body, are ignored (RFC 9110 section 6.5)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, and wait for its body."""
        self._in_head = False
        self._deadlines.expect_body()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the application."""
        self._body_bytes += len(body)
        self._deadlines.received_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Clear the deadline, because the request is complete."""
        self._deadlines.expect_nothing()
        super().on_message_complete()

    # uvicorn callbacks

    def request_starts(self, cycle: RequestResponseCycle) -> None:
        """Announce in the scope that the connection can be handed over."""
        self._running = cycle
        cast("dict[str, Any]", cycle.scope)["extensions"] = {BODY_EXTENSION: partial(self._hand_over, cycle)}

    def on_response_complete(self) -> None:
        """Start the next pipelined request. Close if the client is still sending the body of the current one."""
        # First: it starts the keep-alive timer, which a linger stops.
        super().on_response_complete()
        if self._deadlines.in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._linger()

    # Parsing

    def _parse(self) -> None:
        """Feed the parser segment by segment until reading is paused."""
        while self._unparsed and self._may_parse():
            segment, self._unparsed = self._unparsed[:_SEGMENT_BYTES], self._unparsed[_SEGMENT_BYTES:]
            self._feed(segment)

    def _parse_rest(self) -> bool:
        """Parse the pending data, and return whether more data may be read."""
        self._parse()
        return not self._unparsed and self._may_parse()

    def _may_parse(self) -> bool:
        """Return whether there is nothing to wait for. uvicorn resumes reading also while pipelined requests wait."""
        return not self.pipeline and not self.flow.read_paused and not self.transport.is_closing()

    def _feed(self, segment: bytes) -> None:
        body_bytes = self._body_bytes
        try:
            self.parser.feed_data(segment)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(segment[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        else:
            # Negative if another request has begun in this segment, which resets the count of its body.
            self._framing_bytes += len(segment) - max(self._body_bytes - body_bytes, 0)
            if self._framing_bytes > MAX_HEAD_BYTES + _MAX_FRAMING_RATIO * self._body_bytes:
                self._refuse(_HEADERS_TOO_LARGE)

    def _refuse(self, status: HTTPStatus) -> None:
        address = ":".join(map(str, self.client or ()))
        self.logger.warning("%s - request refused, because %s", address, _REASONS[status])
        self.transport.write(_ANSWERS[status])
        self.transport.close()

    def _upgrade(self, following: bytes) -> None:
        if not self.accepts_upgrade():
            return
        self._deadlines.stop()
        rest, self._unparsed = following + self._unparsed, b""
        transport = self.transport
        # uvicorn passes on the head alone. What follows it is passed on below, to the protocol that is set then.
        self.handle_websocket_upgrade()
        protocol = transport.get_protocol()
        if rest and isinstance(protocol, asyncio.Protocol):
            protocol.data_received(rest)

    # The end of requests

    def _hand_over(self, cycle: RequestResponseCycle) -> Socket | None:
        """Return a socket for the body of this response, and with it the connection; or None if that is impossible.

        Requests that the client has sent in between are not answered: the response has ``Connection: close``. To the
        cycle, it looks as if the client had disconnected.
        """
        if not _is_open(cycle) or cycle.scope["http_version"] != "1.1" or self.transport.is_closing():
            return None
        # The cycle sends nothing more, and the deadlines of requests do not apply to a stream.
        cycle.disconnected = True
        self._deadlines.stop()
        self.pipeline.clear()
        self._unparsed = b""
        self.parser = None  # type: ignore[assignment]  # as in uvicorn: the parser refers to this object
        self.connections.discard(self)
        self.flow.resume_reading()
        return EventStreamProtocol(self.transport, self.server_state, self.loop, writable=not self.flow.write_paused)

    def _linger(self) -> None:
        """Discard input for 2 seconds. A close with unread input would reset the connection and lose the response."""
        self.stop_keepalive_timer()
        self._lingering = True
        self._discard(len(self._unparsed))
        self._unparsed = b""
        self._deadlines.linger()

    def _discard(self, size: int) -> None:
        self._body_bytes += size
        if self._body_bytes > _LINGER_BYTES:
            self.transport.abort()


def _is_open(cycle: RequestResponseCycle) -> bool:
    """Return whether a complete request was answered with a head, and with a body in chunks that has not ended."""
    return (
        not cycle.disconnected and not cycle.more_body and not cycle.response_complete and bool(cycle.chunked_encoding)
    )


class _ReadFlow(FlowControl):
    """uvicorn's flow control, extended to parse pending data before reading more."""

    def __init__(self, transport: asyncio.Transport, *, parse_rest: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._source = transport
        self._loop = asyncio.get_running_loop()
        self._parse_rest = parse_rest
        self._resuming = False

    def resume_reading(self) -> None:
        if self.read_paused and not self._resuming:
            self._resuming = True
            # Later: uvicorn resumes before it takes the next request off the pipeline, for which parsing waits.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        # Before parsing, which asks whether reading is paused, and may pause it again.
        self._resuming = self.read_paused = False
        if self._parse_rest():
            self._source.resume_reading()
        else:
            self.read_paused = True
