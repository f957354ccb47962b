"""uvicorn's HTTP protocol class, with limits for slow clients and a safe WebSocket upgrade."""

import asyncio

import httptools

from unmissed.server.uvicorn_names import HttpToolsProtocol

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 65_536

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP class: ``uvicorn app:app --http unmissed.server:HttpProtocol``.

    The head of a request must be complete within 10 seconds and 64 KiB. Frames that arrive in the same segment as the
    handshake are not lost.
    """

    _head_timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the timer for the first request head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the header timer."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Restart the timer for this request head."""
        self._head_timer.cancel()
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the header timer. Body timeouts are the application's job."""
        self._head_timer.cancel()
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse client data. Data after a handshake belongs to the WebSocket."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[upgrade.args[0] :])
            else:
                self._unsupported_upgrade_warning()
        if self._in_head:
            self._limit_head(len(data))

    def _expect_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _limit_head(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _upgrade(self, following: bytes) -> None:
        transport = self.transport
        self.handle_websocket_upgrade()
        protocol = transport.get_protocol()
        if following and isinstance(protocol, asyncio.Protocol):
            protocol.data_received(following)
