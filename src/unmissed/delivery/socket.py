"""What a connection needs of a socket, and the portable one that runs under any ASGI server."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from unmissed.delivery.slices import Slice

SOCKET_EXTENSION = "unmissed.socket"
"""Under this name a server that can offers its own ``Socket`` in the scope's extensions."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Listener(Protocol):
    """What a socket calls back, always on the event loop."""

    def socket_writable(self) -> None:
        """Take note that ``write`` may be called again."""
        ...

    def socket_received(self, frame: str | bytes) -> None:
        """Take a frame of the client: text, or bytes for a binary one."""
        ...

    def socket_closed(self) -> None:
        """Take note that the socket is gone, whoever ended it."""
        ...


class Socket(Protocol):
    """One accepted WebSocket. It never blocks: it says whether it takes more, and calls back when it does."""

    @property
    def writable(self) -> bool:
        """Whether ``write`` may be called now."""
        ...

    @property
    def idle(self) -> bool:
        """Whether everything written was taken by the network."""
        ...

    @property
    def taken(self) -> int:
        """A count that grows whenever the network takes something; only its changes have a meaning."""
        ...

    def attach(self, listener: Listener) -> None:
        """Call this listener back from now on."""
        ...

    def write(self, piece: Slice) -> None:
        """Send these payloads, each as a text message, in order. Only when ``writable``."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake behind what was written. The listener hears of the end."""
        ...

    def abort(self) -> None:
        """End it at once, whatever is still unsent: a close would wait behind a peer that does not read."""
        ...


class AsgiSocket:
    """A socket over ASGI's ``receive`` and ``send``, already accepted. It holds one slice at a time.

    ASGI tells about flow control only by making ``send`` wait, so one writer task awaits it here, and nowhere else.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._pending: Slice | None = None
        self._closing: tuple[int, str] | None = None
        self._wake = asyncio.Event()
        self._end = asyncio.timeout(None)
        self.taken = 0

    @property
    def writable(self) -> bool:
        """Whether the slice before has been sent."""
        return self._pending is None and self._closing is None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return self.writable

    def attach(self, listener: Listener) -> None:
        """Call this listener back from now on."""
        self._listener = listener

    def write(self, piece: Slice) -> None:
        """Hand a slice to the writer."""
        self._pending = piece
        self._wake.set()

    def close(self, code: int, reason: str = "") -> None:
        """Close behind the slice that is being sent. Only the first call counts."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake.set()

    def abort(self) -> None:
        """Let ``run`` return at once. The server ends the transport as its own rules say."""
        if self._end.when() is None:
            self._end.reschedule(0)

    async def run(self) -> None:
        """Serve the socket until it is closed or aborted."""
        writer = asyncio.create_task(self._write())
        try:
            async with self._end:
                await self._read()
        except TimeoutError:
            pass
        finally:
            writer.cancel()
            self._listener.socket_closed()

    async def _read(self) -> None:
        while True:
            event = await self._receive()
            if event["type"] != "websocket.receive":
                return
            text = event.get("text")
            self._listener.socket_received(event["bytes"] if text is None else text)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._send_pending()
                if self._closing is not None:
                    code, reason = self._closing
                    await self._send({"type": "websocket.close", "code": code, "reason": reason})
                    return
                self._listener.socket_writable()
        except (OSError, RuntimeError):
            # Servers differ in how they say that the peer is gone; reading says it too, but may wait for a timeout.
            self.abort()

    async def _send_pending(self) -> None:
        if self._pending is not None:
            for text in self._pending.texts:
                await self._send({"type": "websocket.send", "text": text})
                self.taken += 1
            self._pending = None
