"""uvicorn's HTTP protocol, with what its handling of slow clients and upgrades lacks."""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

FIRST_REQUEST_SECONDS = 10.0


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP class: ``uvicorn app:app --http unmissed.server:HttpProtocol``.

    It gives up on clients that connect and do not ask for anything, and keeps the frames that a client sends in one
    segment with its handshake. Of uvicorn it relies on the methods that it overrides, and on ``parser``.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin the time within which the first request is to be complete."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(FIRST_REQUEST_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._patience.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Stop waiting: the request is here."""
        self._patience.cancel()
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

    def _upgrade(self, following: bytes) -> None:
        transport = self.transport
        self.handle_websocket_upgrade()
        protocol = transport.get_protocol()
        if following and isinstance(protocol, asyncio.Protocol):
            protocol.data_received(following)
