"""Doubles for tests without a network and without waiting: a manual clock and an in-memory socket."""

from typing import Any

from unmissed.core.chunks import Chunk
from unmissed.core.close_codes import CloseCode
from unmissed.core.encoding import decode_json
from unmissed.delivery.socket import SocketListener


class ManualClock:
    """A clock in seconds, usable as both monotonic and wall clock. Only ``advance`` changes its time."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds


class FakeSocket:
    """An in-memory socket that records its frames. ``pause`` and ``resume`` simulate flow control."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.closed_with: tuple[int, str] | None = None
        self.aborted = False
        self.writable = True
        self.reading_paused = False
        self.write_progress = 0
        self.receive_progress = 0
        self.pings = 0
        self._listener: SocketListener | None = None

    @property
    def payloads(self) -> list[bytes]:
        """The payload of every frame so far."""
        return [payload for chunk in self.chunks for payload in chunk.payloads]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame so far, decoded."""
        return [decode_json(payload) for payload in self.payloads]

    @property
    def buffer_empty(self) -> bool:
        """Whether the simulated network accepts data."""
        return self.writable

    def attach(self, listener: SocketListener) -> None:
        """Report events to this listener from now on."""
        self._listener = listener

    def pause_reading(self) -> None:
        """Record that the server wants no more frames."""
        self.reading_paused = True

    def resume_reading(self) -> None:
        """Record that the server wants frames again."""
        self.reading_paused = False

    def write(self, chunk: Chunk) -> None:
        """Record a chunk."""
        assert self.writable, "write() was called while the socket was not writable"  # noqa: S101  # the contract
        self.chunks.append(chunk)
        self.write_progress += 1

    def keepalive(self) -> bool:
        """Count a ping. ``pong`` answers it."""
        self.pings += 1
        return True

    def pong(self) -> None:
        """Simulate the answer to a ping."""
        self.receive_progress += 1

    def close(self, code: int, reason: str = "") -> None:
        """Record code and reason, and disconnect."""
        self.closed_with = self.closed_with or (code, reason)
        self.drop(code, reason)

    def abort(self) -> None:
        """Disconnect."""
        self.aborted = True
        self.drop()

    def pause(self) -> None:
        """Accept no more data."""
        self.writable = False

    def resume(self) -> None:
        """Accept data again, and report it."""
        self.writable = True
        if self._listener is not None:
            self._listener.socket_writable()

    def receive(self, frame: str | bytes) -> None:
        """Simulate a client frame."""
        self.receive_progress += 1
        if self._listener is not None:
            self._listener.socket_received(frame)

    def drop(self, code: int = CloseCode.LOST, reason: str = "") -> None:
        """Simulate a network failure, or the close of the client with another code."""
        self.writable = False
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.socket_closed(code, reason)
