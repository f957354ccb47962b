"""The write side that WebSockets and event streams share: shared bytes go directly to the transport, without a task."""

import asyncio
import contextlib
import struct
import sys
from typing import cast

from unmissed.delivery.socket import CLOSE_SECONDS, SocketListener
from unmissed.framework_names import ServerState

_WRITE_BUFFER_BYTES = 16_384

if sys.platform == "linux":
    import fcntl
    import termios

    def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
        """Return how many bytes of the kernel's send queue the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # On Linux, SIOCOUTQ is another name for TIOCOUTQ, the one that Python knows.
            (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
            return int(size)
        return 0

else:

    def _unacknowledged_bytes(transport: asyncio.Transport) -> int:  # noqa: ARG001
        """Return 0, because this system does not report the number."""
        return 0


class NativeSocket(asyncio.Protocol):
    """A connection after its last HTTP request: its write buffer, the progress of its client, and its end."""

    __slots__ = ("_close_timer", "_listener", "_loop", "_state", "_written", "transport", "writable")

    def __init__(self, server_state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self.writable = True
        """Whether the transport accepts data. False once the connection is closing."""
        self._state = server_state
        self._loop = loop
        self._listener: SocketListener | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._written = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from the HTTP protocol."""
        self.transport = cast("asyncio.Transport", transport)
        # Small: what a client has not taken stays in the log, once for all clients, and not in each buffer.
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn's type names only its classes

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio passes it
        """Report the disconnect to the listener."""
        self._state.connections.discard(self)
        self.writable = False
        if self._close_timer is not None:
            self._close_timer.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.socket_closed(*self.close_code)

    def eof_received(self) -> None:
        """Return None, which closes the transport: a client that has closed its half expects nothing more."""

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """Report to the listener that the transport accepts data again."""
        self.writable = not self.closing
        if self.writable and self._listener is not None:
            self._listener.socket_writable()

    # Socket

    @property
    def buffer_empty(self) -> bool:
        """Whether the kernel has accepted everything. Always False while the connection is closing."""
        return self._close_timer is None and not self.transport.get_write_buffer_size()

    @property
    def write_progress(self) -> int:
        """Number of bytes that the client's TCP stack has acknowledged; outside Linux, that the kernel has accepted."""
        unsent = self.transport.get_write_buffer_size()
        return self._written - unsent - _unacknowledged_bytes(self.transport)

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener from now on."""
        self._listener = listener

    def pause_reading(self) -> None:
        """Stop reading client data."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue reading client data."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def abort(self) -> None:
        """Reset the connection and discard unsent data."""
        self.transport.abort()

    # For the subclasses

    @property
    def closing(self) -> bool:
        """Whether the end has begun, or the connection is lost."""
        return self.transport.is_closing()

    @property
    def close_code(self) -> tuple[int, str]:
        """Code and reason of the end."""
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    def _close_transport(self) -> None:
        """Close the transport, and abort it 10 seconds later: a close waits for a peer that may never read."""
        self.writable = False
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(CLOSE_SECONDS, self.transport.abort)
