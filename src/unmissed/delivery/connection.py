"""One client: its position, its audience, its socket."""

from collections.abc import Callable

from unmissed.core import wire
from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidFrame
from unmissed.core.window import Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.slices import JoinedSlice, Slice, Slices
from unmissed.delivery.socket import Socket

MAX_REFUSED_FRAMES = 3
MAX_FRAMES_BETWEEN_CHECKS = 100


class Connection:
    """A client that is here. It has no queue: what it has not got yet is what the log holds after its position."""

    __slots__ = (
        "_closed",
        "_frames",
        "_heartbeat_at",
        "_heartbeat_due",
        "_leaving",
        "_refused",
        "_replies",
        "_slices",
        "_socket",
        "_stalled_since",
        "_taken",
        "expires_at",
        "id",
        "identity",
        "position",
    )

    def __init__(
        self,
        connection_id: str,
        *,
        identity: Identity,
        socket: Socket,
        slices: Slices,
        position: int,
        expires_at: float,
        closed: Callable[["Connection"], None],
    ) -> None:
        self.id = connection_id
        self.identity = identity
        self.position = position
        """The last sequence number that was written to the socket, or passed over as not visible."""
        self.expires_at = expires_at
        """Monotonic seconds at which the authentication ends; infinite when it does not."""
        self._socket = socket
        self._slices = slices
        self._closed = closed
        self._replies: list[bytes] = []
        self._heartbeat_due = False
        self._heartbeat_at = 0.0
        self._taken = 0
        self._stalled_since: float | None = None
        self._frames = 0
        self._refused = 0
        self._leaving = False

    def open(self, greeting: bytes, *, heartbeat: bool, heartbeat_at: float) -> None:
        """Greet the client and bring it up to date; with ``heartbeat``, tell it when that is done."""
        self._heartbeat_due = heartbeat
        self._heartbeat_at = heartbeat_at
        self._replies.append(greeting)
        self._socket.attach(self)
        self.deliver()

    def deliver(self) -> None:
        """Write what the log holds after the position, until the socket has enough or nothing is left."""
        socket, window = self._socket, self._slices.window
        while socket.writable and (self.position < window.latest or self._replies or self._heartbeat_due):
            extras = self._replies or self._heartbeat_due or self.position < window.evicted_through
            piece = self._next_with_extras(window) if extras else self._next_messages()
            if piece.payloads:
                socket.write(piece)

    def check(self, now: float, *, heartbeat_seconds: float, stall_seconds: float) -> None:
        """Do what is due at ``now``: a heartbeat, the end of an expired or stalled client."""
        self._frames = 0
        if now >= self.expires_at:
            self.close(CloseCode.UNAUTHORIZED, "the token has expired: come back with a new one")
        if self._is_stalled(now, stall_seconds):
            self._socket.abort()
        elif now >= self._heartbeat_at:
            self._heartbeat_at = now + heartbeat_seconds
            self._heartbeat_due = True
            self.deliver()

    def close(self, code: int, reason: str) -> None:
        """Close the WebSocket behind what was written. What the client says from now on is ignored."""
        self._leaving = True
        self._socket.close(code, reason)

    def abort(self) -> None:
        """End the connection at once."""
        self._socket.abort()

    def say(self, payload: bytes) -> None:
        """Send a frame that is not a message, as soon as the socket takes it."""
        self._replies.append(payload)
        self.deliver()

    def socket_writable(self) -> None:
        """Continue from the position."""
        self.deliver()

    def socket_received(self, frame: str | bytes) -> None:
        """Answer a frame of the client."""
        if self._leaving:
            return
        self._frames += 1
        if self._frames > MAX_FRAMES_BETWEEN_CHECKS:
            self.close(CloseCode.TOO_MANY, "too many frames: come back later, and send fewer")
            return
        try:
            self.say(self._answer(frame))
        except InvalidFrame as error:
            self._refuse(str(error))

    def socket_closed(self) -> None:
        """Tell the manager that this client is gone."""
        self._closed(self)

    def _next_messages(self) -> Slice:
        messages = self._slices.after(self.position)
        self.position = messages.last
        return messages.visible_to(self.identity.user_id)

    def _next_with_extras(self, window: Window) -> Slice:
        """Return the next messages, with what is to be said before and behind them."""
        parts: list[Slice] = []
        if self._replies:
            parts.append(Slice(*self._replies))
            self._replies.clear()
        if self.position < window.evicted_through:
            parts.append(Slice(wire.gap(first=self.position + 1, last=window.evicted_through)))
            self.position = window.evicted_through
        if self.position < window.latest:
            parts.append(self._next_messages())
        if self._heartbeat_due and self.position == window.latest:
            self._heartbeat_due = False
            parts.append(Slice(wire.heartbeat(position=self.position)))
        return JoinedSlice(*parts)

    def _answer(self, frame: str | bytes) -> bytes:
        match wire.parse_client_frame(frame):
            case wire.Ping():
                return wire.PONG
            case wire.Authenticate():
                raise InvalidFrame("this connection is authenticated: open another one to use another token")

    def _refuse(self, detail: str) -> None:
        self._refused += 1
        self.say(wire.error(code=CloseCode.BAD_MESSAGE, detail=detail))
        if self._refused >= MAX_REFUSED_FRAMES:
            self.close(CloseCode.BAD_MESSAGE, "too many frames were refused")

    def _is_stalled(self, now: float, stall_seconds: float) -> bool:
        socket = self._socket
        if socket.idle or self._stalled_since is None or socket.taken != self._taken:
            self._taken = socket.taken
            self._stalled_since = None if socket.idle else now
            return False
        return now - self._stalled_since >= stall_seconds
