"""Keepalive: whether the client of a connection takes what is sent, and answers pings."""

from unmissed.delivery.socket import Socket

PING_SECONDS = 20.0
"""Seconds between two pings. A client that sends and acknowledges nothing in between is disconnected."""


class Liveness:
    """The pings of one connection, and how long its client has taken nothing. Times are monotonic seconds."""

    __slots__ = ("_ping_at", "_pinged", "_socket", "_stalled_since", "_unanswered_since", "_write_progress")

    def __init__(self, socket: Socket, *, ping_at: float) -> None:
        self._socket = socket
        self._ping_at = ping_at
        self._pinged: tuple[int, int] | None = None
        self._unanswered_since = 0.0
        self._write_progress = 0
        self._stalled_since: float | None = None

    def is_dead(self, now: float) -> bool:
        """Return whether neither a frame nor an acknowledgement has arrived since the last ping."""
        return now >= self._ping_at and self._pinged == (self._socket.receive_progress, self._socket.write_progress)

    def is_stalled(self, now: float, *, stall_seconds: float, closing: bool) -> bool:
        """Return whether the client has taken nothing for ``stall_seconds``, or not everything while ``closing``.

        While closing, progress does not count: a client that takes a few bytes at a time could delay the end for hours.
        """
        socket = self._socket
        if socket.buffer_empty:
            self._stalled_since = None
            return False
        progress = socket.write_progress
        if self._stalled_since is None or (progress != self._write_progress and not closing):
            self._write_progress, self._stalled_since = progress, now
        return now - self._stalled_since >= stall_seconds

    def ping_if_due(self, now: float) -> None:
        """Send a ping every PING_SECONDS."""
        if now >= self._ping_at:
            self.ping(now)

    def ping(self, now: float) -> None:
        """Send a ping, unless the server sends its own pings."""
        self._ping_at = now + PING_SECONDS
        socket = self._socket
        # Before the ping: a client on this machine acknowledges it at once, and that must count as an answer.
        progress = socket.receive_progress, socket.write_progress
        if not socket.keepalive():
            return
        if self._pinged is None or progress[0] != self._pinged[0]:
            self._unanswered_since = now
        self._pinged = progress

    def silent_for(self, now: float) -> float:
        """Return the seconds since the first unanswered ping, or 0 if every ping was answered."""
        if self._pinged is None or self._socket.receive_progress != self._pinged[0]:
            return 0.0
        return now - self._unanswered_since
