"""What delivery needs of a socket, and what a socket reports back."""

from typing import Protocol

from unmissed.delivery.chunks import Chunk

SOCKET_EXTENSION = "unmissed.socket"
"""Key in ``scope["extensions"]`` under which a server may offer its native ``Socket``."""


class SocketListener(Protocol):
    """Receives the events of a socket, always on the event loop."""

    def socket_writable(self) -> None:
        """Handle that ``write`` may be called again."""
        ...

    def socket_received(self, frame: str | bytes) -> None:
        """Handle a client frame: text, or bytes for a binary one."""
        ...

    def socket_closed(self) -> None:
        """Handle the end of the socket, whichever side closed it."""
        ...


class Socket(Protocol):
    """One accepted WebSocket. It never blocks: it tells whether it accepts data, and calls back when it does again."""

    @property
    def writable(self) -> bool:
        """Whether ``write`` may be called now."""
        ...

    @property
    def buffer_empty(self) -> bool:
        """Whether the network has taken everything written so far."""
        ...

    @property
    def write_progress(self) -> int:
        """A count that grows whenever the client takes data. Only changes of it are meaningful."""
        ...

    @property
    def receive_progress(self) -> int:
        """A count that grows whenever the client sends anything. Only changes of it are meaningful."""
        ...

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener from now on."""
        ...

    def write(self, chunk: Chunk) -> None:
        """Send these payloads in order, each as one text message. Call it only when ``writable``."""
        ...

    def keepalive(self) -> bool:
        """Send a ping, and return True; or return False where the server itself looks for dead clients."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake after what was written. The listener is told when the socket is closed."""
        ...

    def abort(self) -> None:
        """Drop the connection and discard unsent data. A close would wait for a peer that is not reading."""
        ...
