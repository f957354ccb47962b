"""An event stream as a native socket: the body of a response that an ASGI application has begun."""

import asyncio

from unmissed.core.chunks import COMMENT, LAST_HTTP_CHUNK, Chunk, http_chunk, last_event
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.socket import MAX_BYTES_DISCARDED
from unmissed.framework_names import ServerState
from unmissed.server.native_socket import NativeSocket

_PING = http_chunk(COMMENT)


class EventStreamProtocol(NativeSocket):
    """The rest of an HTTP connection whose response is an event stream, in a chunked body. It ends the connection."""

    __slots__ = ("_discarded",)

    def __init__(
        self,
        transport: asyncio.Transport,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        *,
        writable: bool,
    ) -> None:
        super().__init__(server_state, loop)
        self.writable = writable
        self._discarded = 0
        transport.set_protocol(self)
        self.connection_made(transport)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Discard what follows the request, and reset the connection of a client that does not stop."""
        self._discarded += len(data)
        if self._discarded > MAX_BYTES_DISCARDED:
            self.abort()

    def shutdown(self) -> None:
        """End the stream because uvicorn is shutting down."""
        self.close(CloseCode.SERVICE_RESTART)

    # Socket

    @property
    def receive_progress(self) -> int:
        """Number of bytes that the client has acknowledged: nothing else shows that it still reads."""
        return self.write_progress

    @property
    def close_code(self) -> tuple[int, str]:
        """The code of a lost connection, because a client cannot give another one."""
        return CloseCode.LOST, ""

    def write(self, chunk: Chunk) -> None:
        """Write the encoded events."""
        self._write(chunk.http_chunk)

    def keepalive(self) -> bool:
        """Send a comment if the transport accepts data, and return True: acknowledgements are tracked here."""
        if self.writable:
            self._write(_PING)
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Send an ``error`` frame and the end of the body after the data written so far, and close the connection."""
        if not self.closing:
            self._write(http_chunk(last_event(code, reason)) + LAST_HTTP_CHUNK)
            self._close_transport()
