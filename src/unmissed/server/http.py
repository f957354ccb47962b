"""uvicorn's HTTP protocol, with what its handling of slow clients and of upgrades lacks."""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 65_536

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP class: ``uvicorn app:app --http unmissed.server:HttpProtocol``.

    The head of a request must be complete within 10 seconds and 64 KiB, and frames that a client sends in one segment
    with its handshake are kept. Of uvicorn it relies on the methods that it overrides, and on ``parser``.
    """

    _patience: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Expect the head of a request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._patience.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of the head."""
        self._patience.cancel()
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Be content: how long a body may take is for the application to say."""
        self._patience.cancel()
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; what follows a handshake belongs to the WebSocket."""
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
            self._bound_head(len(data))

    def _expect_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _bound_head(self, more: int) -> None:
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
