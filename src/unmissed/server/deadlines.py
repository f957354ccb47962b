"""The deadlines of an HTTP connection: how much time a client has to send a request and read the response."""

import asyncio
from typing import Protocol

HEAD_SECONDS = 10.0
"""Time for a complete request head."""

BODY_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 1_000
"""A body may take BODY_SECONDS, plus one second for each BODY_BYTES_PER_SECOND bytes received."""

LINGER_SECONDS = 2.0
"""How long the rest of a body is discarded after the response was sent."""

_HURRIED_SECONDS = 2.0
_TICK_SECONDS = 5.0


class Flow(Protocol):
    """Shows whether the server has paused reading."""

    read_paused: bool


class Deadlines:
    """The timer that limits how long an HTTP client may delay its connection.

    Deadlines are extended while the server has paused reading, because the client is then waiting for the server.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, *, flow: Flow, stall_seconds: float
    ) -> None:
        self.in_body = False
        """Whether the body of a request is incomplete."""
        self._loop = loop
        self._transport = transport
        self._flow = flow
        self._stall_seconds = stall_seconds
        self._deadline: float | None = None
        self._unread = 0
        self._unread_since = 0.0
        self._timer = loop.call_later(min(_TICK_SECONDS, HEAD_SECONDS), self._tick)

    def expect_head(self) -> None:
        """Give the client HEAD_SECONDS to complete a request head."""
        self._deadline = self._loop.time() + HEAD_SECONDS
        self.in_body = False

    def expect_body(self) -> None:
        """Give the client BODY_SECONDS to complete the body."""
        self._deadline = self._loop.time() + BODY_SECONDS
        self.in_body = True

    def received_body(self, size: int) -> None:
        """Extend the deadline for the received bytes of the body."""
        if self._deadline is not None:
            self._deadline += size / BODY_BYTES_PER_SECOND

    def expect_nothing(self) -> None:
        """Clear the deadline: the application is handling the request."""
        self._deadline = None
        self.in_body = False

    def linger(self) -> None:
        """Close after LINGER_SECONDS."""
        self._deadline = self._loop.time() + LINGER_SECONDS
        self._restart()

    def hurry(self) -> None:
        """Shorten all deadlines to two seconds, because the server is shutting down."""
        self._stall_seconds = min(self._stall_seconds, _HURRIED_SECONDS)
        if self._deadline is not None:
            self._deadline = min(self._deadline, self._loop.time() + _HURRIED_SECONDS)
        self._restart()

    def stop(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _restart(self) -> None:
        self._timer.cancel()
        self._tick()

    def _tick(self) -> None:
        now = self._loop.time()
        if self._is_unread(now):
            # Not ``close``, which waits until the client has read the rest.
            self._transport.abort()
            return
        if self._flow.read_paused and self._deadline is not None:
            self._deadline = max(self._deadline, now + _TICK_SECONDS)
        if self._deadline is not None and now >= self._deadline:
            # The timer goes on: a client that does not read its response keeps a transport open that was closed.
            self._deadline = None
            self._transport.close()
        wait = min(_TICK_SECONDS, self._stall_seconds / 4)
        if self._deadline is not None:
            wait = min(wait, self._deadline - now)
        self._timer = self._loop.call_later(wait, self._tick)

    def _is_unread(self, now: float) -> bool:
        """Return whether the client has read nothing of a pending response for ``stall_seconds``."""
        unread = self._transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        return bool(unread) and now - self._unread_since >= self._stall_seconds
