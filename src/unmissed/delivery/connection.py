"""One client connection: its identity, position and socket."""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from unmissed.core import wire
from unmissed.core.audience import Identity, keys_of, topic_key
from unmissed.core.errors import InvalidFrame, InvalidToken, InvalidTopic, TopicRefused
from unmissed.core.topics import MAX_TOPICS, granted_topics, is_granted
from unmissed.core.window import Outcome, Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.chunks import Chunk, Chunks, JoinedChunk
from unmissed.delivery.liveness import Liveness
from unmissed.delivery.past import Past
from unmissed.delivery.socket import Socket

SPARSE = 8
"""A client that sees less than one in so many messages of a chunk continues with the next messages that it sees."""

MAX_REFUSED_FRAMES = 3
MAX_FRAMES_BETWEEN_CHECKS = 100
MAX_BYTES_BETWEEN_CHECKS = 65_536


Renewal = Callable[[str], tuple[Identity, float]]
"""Verifies a token; returns its identity and its expiry in monotonic seconds. Raises InvalidToken."""


class ConnectionRegistry(Protocol):
    """What a connection tells about itself."""

    def remove(self, connection: "Connection") -> None:
        """Forget a connection, because its client has disconnected."""
        ...

    def change_topics(self, connection: "Connection", topics: frozenset[str]) -> None:
        """Find a connection by these topics, in place of those that it follows."""
        ...


class Connection:
    """A connected client. It has no queue: its pending messages are those after its position in the log."""

    __slots__ = (
        "_bytes_received",
        "_chunks",
        "_closing",
        "_current",
        "_followed_after",
        "_follows_default",
        "_frames_received",
        "_heartbeat_at",
        "_heartbeat_due",
        "_keys",
        "_last",
        "_past",
        "_position",
        "_refused",
        "_registry",
        "_renew",
        "_server_frames",
        "_socket",
        "_start",
        "expires_at",
        "id",
        "identity",
        "liveness",
        "topics",
    )

    def __init__(
        self,
        connection_id: str,
        *,
        identity: Identity,
        socket: Socket,
        chunks: Chunks,
        position: int,
        topics: frozenset[str],
        follows_default: bool,
        expires_at: float,
        renew: Renewal | None,
        liveness: Liveness,
        registry: ConnectionRegistry,
    ) -> None:
        self.id = connection_id
        self.identity = identity
        self.topics = topics
        """The topics that the client follows."""
        self.expires_at = expires_at
        """Monotonic time in seconds at which the authentication expires; infinity if it never expires."""
        self.liveness = liveness
        self._keys: frozenset[str] | None = None
        self._past: Past | None = None
        self._socket = socket
        self._chunks = chunks
        self._registry = registry
        self._renew = renew
        self._follows_default = follows_default
        self._start = self._position = position
        self._followed_after: dict[str, int] = {}
        """For each topic that was followed later than at the start: the number after which its messages are sent."""
        self._current = False
        self._closing: tuple[int, str] | None = None
        self._last = 0
        """The last message to deliver, once the connection is closing."""
        self._server_frames: list[bytes] = []
        self._heartbeat_due = False
        self._heartbeat_at = 0.0
        self._frames_received = 0
        self._bytes_received = 0
        self._refused = 0

    @property
    def position(self) -> int:
        """The last sequence number written to the socket, or skipped because it was evicted or is not visible.

        Nobody visits a connection that is up to date because of messages for others: it stands where the flushes are.
        """
        return max(self._position, self._chunks.flushed_through) if self._current else self._position

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the client. They are created for the first message that is not for everyone."""
        if self._keys is None:
            self._keys = keys_of(self.identity.user_id, self.topics)
        return self._keys

    def open(self, greeting: bytes, *, heartbeat: bool, heartbeat_at: float) -> None:
        """Send the ``connected`` frame and every message after the position, then a heartbeat if requested."""
        self._heartbeat_due = heartbeat
        self._heartbeat_at = heartbeat_at
        self._server_frames.append(greeting)
        self._socket.attach(self)
        self.deliver()

    def deliver(self) -> None:
        """Write the messages after the position until the socket accepts no more data or none are left.

        If none are left and the connection is closing, close the socket.
        """
        socket, window = self._socket, self._chunks.window
        last = window.latest if self._closing is None else self._last
        self._position = self.position
        while socket.writable:
            if self._server_frames or self._heartbeat_due or self._past is not None:
                chunk = self._next_with_server_frames(window, last)
            elif self._position >= last:
                break
            elif self._position < window.evicted_through:
                chunk = self._next_with_server_frames(window, last)
            else:
                chunk = self._next_messages(last)
            if chunk.payloads:
                socket.write(chunk)
        self._current = self._position >= last and self._closing is None
        if self._closing is not None and self._position >= last and not self._server_frames and self._past is None:
            socket.close(*self._closing)

    def check(self, now: float, *, unix_time: float, heartbeat_seconds: float, stall_seconds: float) -> None:
        """Send what is due at ``now`` (monotonic seconds), and end an expired, stalled or dead connection.

        A token expires by whichever clock says so first: the wall clock may have been wrong when it was verified.
        """
        self._frames_received = self._bytes_received = 0
        if now >= self.expires_at or unix_time >= (self.identity.expires_at or math.inf):
            self.close(CloseCode.UNAUTHORIZED, "the token has expired: reconnect with a new one", discard=True)
        if self.liveness.is_gone(now, stall_seconds=stall_seconds, closing=self._closing is not None):
            self._socket.abort()
            return
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + heartbeat_seconds
            self._heartbeat_due = True
            self.deliver()
        self.liveness.ping_if_due(now)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Close the WebSocket after everything that was sent or published before, or, with ``discard``, only written.

        Frames received after this call are ignored. A client that does not take everything within the time after which
        a connection counts as stalled is disconnected.
        """
        if self._closing is None:
            self._closing, self._last = (code, reason), self._chunks.window.latest
        if discard:
            self._server_frames.clear()
            self._past = None
            self._last = self.position
        self.deliver()

    def abort(self) -> None:
        """Drop the connection and discard unsent data."""
        self._socket.abort()

    def send_frame(self, payload: bytes) -> None:
        """Send a frame that is not a message, as soon as the socket accepts data."""
        self._server_frames.append(payload)
        self.deliver()

    def socket_writable(self) -> None:
        """Continue delivery from the position."""
        self.deliver()

    def socket_received(self, frame: str | bytes) -> None:
        """Answer a client frame."""
        self._frames_received += 1
        self._bytes_received += len(frame)
        if self._frames_received > MAX_FRAMES_BETWEEN_CHECKS or self._bytes_received > MAX_BYTES_BETWEEN_CHECKS:
            self.close(CloseCode.TOO_MANY, "too many frames: reconnect later, and send fewer", discard=True)
            return
        if self._closing is not None:
            return
        if len(frame) > wire.MAX_CLIENT_FRAME_BYTES:
            self.close(CloseCode.TOO_LARGE, f"a frame must have at most {wire.MAX_CLIENT_FRAME_BYTES} bytes")
            return
        try:
            self._answer(frame)
        except TopicRefused as error:
            self.send_frame(wire.error(code=CloseCode.FORBIDDEN, detail=str(error)))
        except InvalidToken as error:
            self._refuse(str(error), code=CloseCode.UNAUTHORIZED)
        except (InvalidFrame, InvalidTopic) as error:
            self._refuse(str(error))

    def socket_closed(self) -> None:
        """Report that this client has disconnected."""
        self._registry.remove(self)

    def _next_messages(self, last: int) -> Chunk:
        chunk = self._chunks.after(self._position)
        if chunk.last > last:
            chunk = chunk.through(last)
        if not chunk.for_everyone:
            seen = chunk.visible_to(self.keys)
            sparse = chunk.last < last and len(seen.messages) * SPARSE < len(chunk.messages)
            chunk = self._chunks.visible_after(self._position, self.keys, last=last) if sparse else seen
        self._position = chunk.last
        return chunk

    def _next_with_server_frames(self, window: Window, last: int) -> Chunk:
        """Return the next messages, with the server frames that belong before and after them."""
        parts: list[Chunk] = []
        if self._server_frames:
            parts.append(Chunk(*self._server_frames))
            self._server_frames.clear()
        if self._past is not None:
            return JoinedChunk(*parts, self._next_of_past(self._past, window))
        if self._position < window.evicted_through:
            if self._position < (lost := window.lost_through(self.keys)):
                parts.append(Chunk(wire.gap(first=self._position + 1, last=lost)))
            self._position = window.evicted_through
        if self._position < last:
            parts.append(self._next_messages(last))
        if self._heartbeat_due and self._position >= last:
            self._heartbeat_due = False
            parts.append(Chunk(wire.heartbeat(position=self._position)))
        return JoinedChunk(*parts)

    def _next_of_past(self, past: Past, window: Window) -> Chunk:
        """Return the next messages of the past, and at its end the ``following`` frame."""
        chunk = past.next_chunk(window)
        if not past.complete:
            return chunk
        self._past = None
        answer = wire.following(self.topics, position=self._position, outcome=past.outcome)
        return JoinedChunk(chunk, Chunk(answer))

    def follow(self, topics: Iterable[str], *, since: int | None = None, epoch: str | None = None) -> None:
        """Follow these topics, too, from the position on, or first their messages after ``since``.

        Answers with a ``following`` frame. Raises InvalidTopic or TopicRefused, and InvalidFrame while the past of
        other topics is being sent; nothing changes then.
        """
        if self._past is not None:
            raise InvalidFrame("the past of other topics is being sent: wait for the following frame")
        new = granted_topics(topics, self.identity.topics) - self.topics
        if len(self.topics) + len(new) > MAX_TOPICS:
            raise InvalidTopic(f"a connection follows at most {MAX_TOPICS} topics: unfollow some")
        old_keys = self.keys
        self._set_topics(self.topics | new)
        if since is None:
            self.send_frame(wire.following(self.topics, position=self.position))
            return
        keys = frozenset(map(topic_key, new))
        sent_after = {key: self._followed_after.get(key, self._start) for key in old_keys}
        outcome, start = self._chunks.window.locate(since, epoch=epoch)
        if outcome is Outcome.GAP:
            outcome, start = Outcome.COMPLETE, since
        self._past = Past(outcome, start, self.position, keys, sent_after)
        self._followed_after.update(dict.fromkeys(keys, start))
        self.deliver()

    def unfollow(self, topics: Iterable[str]) -> None:
        """Stop following these topics. Answers with a ``following`` frame."""
        self._set_topics(self.topics.difference(topics))
        self.send_frame(wire.following(self.topics, position=self.position))

    def renew(self, token: str) -> None:
        """Use another token of the same user from now on, with its expiry and its topics.

        Topics that it does not grant are not followed any more. A client that did not choose its topics follows all
        that it grants by name. Answers with an ``authenticated`` frame. Raises InvalidToken, or InvalidFrame where the
        application authenticates in its own way; nothing changes then.
        """
        if self._renew is None:
            raise InvalidFrame("the token of this connection cannot be renewed: open another connection")
        identity, expires_at = self._renew(token)
        if identity.user_id != self.identity.user_id:
            raise InvalidToken("the token is for another user: open another connection")
        topics = frozenset(topic for topic in self.topics if is_granted(topic, identity.topics))
        if self._follows_default:
            topics |= granted_topics(None, identity.topics)
        if len(topics) > MAX_TOPICS:
            raise InvalidToken(f"a connection follows at most {MAX_TOPICS} topics: unfollow some")
        self.identity, self.expires_at = identity, expires_at
        self._set_topics(topics)
        self.send_frame(wire.authenticated(expires_at=identity.expires_at, topics=self.topics, position=self.position))

    def _set_topics(self, topics: frozenset[str]) -> None:
        removed = frozenset(map(topic_key, self.topics - topics))
        if self._past is not None:
            self._past.keys -= removed
        for key in removed:
            self._followed_after.pop(key, None)
        self._followed_after.update(dict.fromkeys(map(topic_key, topics - self.topics), self.position))
        self._registry.change_topics(self, topics)
        self.topics = topics
        self._keys = None

    def _answer(self, frame: str | bytes) -> None:
        match wire.parse_client_frame(frame):
            case wire.Ping():
                self.send_frame(wire.PONG)
            case wire.Follow(topics=topics, since=since, epoch=epoch):
                self.follow(topics, since=since, epoch=epoch)
            case wire.Unfollow(topics=topics):
                self.unfollow(topics)
            case wire.Authenticate(token=token):
                self.renew(token)

    def _refuse(self, detail: str, *, code: CloseCode = CloseCode.BAD_MESSAGE) -> None:
        self._refused += 1
        self.send_frame(wire.error(code=code, detail=detail))
        if self._refused >= MAX_REFUSED_FRAMES:
            self.close(code, "too many frames were refused")
