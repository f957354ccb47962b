"""The interface between delivery and a socket, and what server and application announce to each other.

A server may offer each of the extensions below independently: without ``SOCKET_EXTENSION``, an endpoint serves a
WebSocket over ASGI, and without ``BODY_EXTENSION`` a body. An application may announce any of the keys in the lifespan
state of ASGI, or none: another application around it may not pass the state on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from unmissed.core.chunks import Chunk

SOCKET_EXTENSION = "unmissed.socket"
"""Key in ``scope["extensions"]`` under which a server may offer its native ``Socket``."""

UNDECIDED_EVENT = "unmissed.undecided"
"""Key in a ``websocket.accept`` event: whether the application may still refuse the client.

A browser sees a refusal only after the acceptance. The server logs the outcome when a listener is attached, or when the
application sends or closes.
"""

BODY_EXTENSION = "unmissed.body"
"""Key in ``scope["extensions"]`` of a request under which a server may offer a function that hands its response over.

The application calls it when it has sent the head. The function returns a native ``Socket``, which sends events as the
rest of the response: then the application must send nothing more. Or it returns None, if the head has not left yet, or
the body cannot be sent that way.
"""

STALL_STATE = "unmissed.stall_seconds"
"""Key in the lifespan state under which an application announces ``UNMISSED_STALL_SECONDS`` to the server."""

ADMISSIONS_STATE = "unmissed.admissions"
"""Key in the lifespan state under which an application announces its ``Admissions`` to the server."""

CLOSE_SECONDS = 10.0
"""Seconds that a client has to take what was written, and to answer a close."""

MAX_BYTES_DISCARDED = 65_536
"""Bytes from a client that are discarded when its data is not needed. Beyond that, it is no longer read."""


class SocketListener(Protocol):
    """Receives the events of a socket, always on the event loop."""

    def socket_writable(self) -> None:
        """Handle the socket becoming writable again."""
        ...

    def socket_received(self, frame: str | bytes) -> None:
        """Handle a client frame: ``str`` for a text frame, ``bytes`` for a binary frame."""
        ...

    def socket_closed(self, code: int, reason: str) -> None:
        """Handle the loss or close of the connection, by either side. The code of a loss is 1006."""
        ...


class Socket(Protocol):
    """A WebSocket or an event stream. It never blocks: the listener is notified when ``write`` may be called again."""

    @property
    def writable(self) -> bool:
        """Whether ``write`` may be called now."""
        ...

    @property
    def buffer_empty(self) -> bool:
        """Whether everything written so far has been passed to the network."""
        ...

    @property
    def write_progress(self) -> int:
        """A counter that increases whenever the client receives data. Only its changes are meaningful."""
        ...

    @property
    def receive_progress(self) -> int:
        """A counter that increases whenever the client sends anything. Only its changes are meaningful."""
        ...

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener from now on."""
        ...

    def pause_reading(self) -> None:
        """Report no more frames of the client, apart from those that have arrived. Further calls have no effect."""
        ...

    def resume_reading(self) -> None:
        """Report frames again."""
        ...

    def write(self, chunk: Chunk) -> None:
        """Send these payloads in order, each as one message. Call it only when ``writable``."""
        ...

    def keepalive(self) -> bool:
        """Send a ping and return True, or return False if nothing can be sent that clients answer."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Send this code and reason after the data written so far, and close. The end is reported to the listener."""
        ...

    def abort(self) -> None:
        """Drop the connection and discard unsent data. A close would wait for a peer that is not reading."""
        ...


Admission = Callable[[dict[str, Any], Callable[[str | None], Socket]], bool]
"""A function ``(scope, open)`` that connects the WebSocket of a handshake and returns True, or returns False.

``scope`` is the scope that the application would get, with the forwarded address of the client.
``open(subprotocol)`` returns the socket, which answers the handshake when a listener is attached to it. After False the
handshake is still unanswered, and the application answers it.
"""


@dataclass(frozen=True, slots=True)
class Admissions:
    """Where a server may pass plain handshakes directly, without a request to the application."""

    application: object
    """The application that the announcement is about. A server that calls another one must not use it."""
    find: Callable[[], Mapping[str, Admission]]
    """Returns what admits handshakes, by path. Call it once, after the startup: it may change the application."""
