"""Portable sockets, for any ASGI server: WebSockets and event streams over ``receive`` and ``send``."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from unmissed.core.chunks import Chunk, last_event
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.socket import CLOSE_SECONDS, MAX_BYTES_DISCARDED, SocketListener

AsgiEvent = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiEvent]]
Send = Callable[[AsgiEvent], Awaitable[None]]


class AsgiSocket(ABC):
    """A ``Socket`` over ASGI's ``receive`` and ``send``, already accepted. It holds one chunk at a time.

    ASGI signals flow control only by making ``send`` wait, so only the writer task of this class awaits ``send``.
    """

    def __init__(self, receive: Receive, send: Send, *, close_seconds: float = CLOSE_SECONDS) -> None:
        self._receive = receive
        self._send = send
        self._pending: Chunk | None = None
        self._close: tuple[int, str] | None = None
        self._wake = asyncio.Event()
        self._readable = asyncio.Event()
        """Cleared while the listener wants no more frames."""
        self._readable.set()
        self._close_seconds = close_seconds
        self._ends_at: float | None = None
        self._end: asyncio.Timeout | None = None
        """Set while ``run`` reads."""
        self._listener: SocketListener | None = None
        """None until a connection is attached."""
        self._closed_with: tuple[int, str] = (CloseCode.LOST, "")
        self.write_progress = 0
        self.receive_progress = 0

    @property
    def writable(self) -> bool:
        """Whether the previous chunk was sent and the socket is not closing."""
        return self._pending is None and self._close is None

    @property
    def buffer_empty(self) -> bool:
        """Whether no chunk and no close is waiting to be sent."""
        return self.writable

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener from now on."""
        self._listener = listener

    def pause_reading(self) -> None:
        """Receive nothing from the server, which then stops reading from the client."""
        self._readable.clear()

    def resume_reading(self) -> None:
        """Receive again."""
        self._readable.set()

    def write(self, chunk: Chunk) -> None:
        """Hand a chunk to the writer task."""
        self._pending = chunk
        self._wake.set()

    def keepalive(self) -> bool:
        """Return False: ASGI has no pings, and reports no acknowledgements. Servers send their own pings."""
        return False

    def close(self, code: int, reason: str = "") -> None:
        """Close after the chunk that is being sent. Later calls have no effect."""
        if self._close is None:
            self._close = (code, reason)
            self._wake.set()
            self._end_by(asyncio.get_running_loop().time() + self._close_seconds)

    def abort(self) -> None:
        """Make ``run`` return. The ASGI server decides when to close the TCP connection."""
        # A time in the past on every event loop.
        self._end_by(0)

    async def run(self) -> None:
        """Serve the socket until it is closed or aborted."""
        writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout_at(self._ends_at) as self._end:
                await self._read()
        except TimeoutError:
            # The time after a close is over, or ``abort`` was called.
            pass
        finally:
            # First: an abort from now on, such as by the listener, must find no timeout to move.
            self._end = None
            writer.cancel()
            if self._listener is not None:
                self._listener.socket_closed(*self._closed_with)

    def _end_by(self, time: float) -> None:
        """Make ``run`` return at this time of the event loop, unless it does earlier."""
        if self._ends_at is None or time < self._ends_at:
            self._ends_at = time
            if self._end is not None and not self._end.expired():
                self._end.reschedule(time)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._pending is not None:
                    await self._send_chunk(self._pending)
                    # Not before: until the chunk is sent, ``writable`` is False, so that no second one is held.
                    self._pending = None
                # After the chunk that was written before the close.
                if self._close is not None:
                    await self._send_close(*self._close)
                    return
                if self._listener is not None:
                    self._listener.socket_writable()
        except (OSError, RuntimeError):
            # Servers raise different errors after a disconnect, and ``receive`` may report it only after a timeout.
            self.abort()

    @abstractmethod
    async def _read(self) -> None:
        """Report what the client sends, until it has disconnected."""

    @abstractmethod
    async def _send_chunk(self, chunk: Chunk) -> None:
        """Send a chunk, and count what the server accepts in ``write_progress``."""

    @abstractmethod
    async def _send_close(self, code: int, reason: str) -> None:
        """Send the code and the reason, and close."""


class AsgiWebSocket(AsgiSocket):
    """A WebSocket over ASGI, already accepted."""

    async def _read(self) -> None:
        while True:
            await self._readable.wait()
            event = await self._receive()
            if event["type"] != "websocket.receive":
                self._closed_with = event.get("code") or CloseCode.LOST, event.get("reason") or ""
                return
            self.receive_progress += 1
            text = event.get("text")
            if self._listener is not None:
                self._listener.socket_received(event["bytes"] if text is None else text)

    async def _send_chunk(self, chunk: Chunk) -> None:
        for text in chunk.texts:
            await self._send({"type": "websocket.send", "text": text})
            self.write_progress += 1

    async def _send_close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class AsgiEventStream(AsgiSocket):
    """The body of an HTTP response over ASGI, whose head was sent."""

    async def _read(self) -> None:
        discarded = 0
        while discarded <= MAX_BYTES_DISCARDED:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return
            discarded += len(event.get("body", b""))

    async def _send_chunk(self, chunk: Chunk) -> None:
        await self._send({"type": "http.response.body", "body": chunk.events, "more_body": True})
        self.write_progress += 1

    async def _send_close(self, code: int, reason: str) -> None:
        await self._send({"type": "http.response.body", "body": last_event(code, reason), "more_body": False})
        # Not every server reports the end of a response as a disconnect.
        self.abort()
