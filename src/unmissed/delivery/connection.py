"""One client connection: its identity, position and socket."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from unmissed.core import wire
from unmissed.core.audience import Identity, topic_key
from unmissed.core.errors import InvalidFrame, InvalidToken, InvalidTopic
from unmissed.core.topics import check_topics
from unmissed.core.window import Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.access import Access
from unmissed.delivery.chunks import Chunk, Chunks, JoinedChunk
from unmissed.delivery.due import Due
from unmissed.delivery.following import Following
from unmissed.delivery.inbox import Inbox, Requests
from unmissed.delivery.liveness import Liveness
from unmissed.delivery.measures import Measures
from unmissed.delivery.past import Past
from unmissed.delivery.socket import Socket

SPARSE = 8
"""A client that sees less than one in so many messages of a chunk continues with the next messages that it sees."""


TURN = 2_000
"""Sequence numbers through which a connection is brought before others have their turn."""
MAX_EARLIER = 16
"""How many renewed tokens of a connection are remembered."""


class Host(Protocol):
    """What a connection needs of the fan-out that serves it."""

    chunks: Chunks
    requests: Requests
    measures: Measures

    def ended(self, connection: "Connection", code: int, reason: str) -> None:
        """Forget a connection that was closed or lost."""
        ...

    def changed(self, connection: "Connection", *, up_to_date: bool) -> None:
        """Record that a connection has caught up, or has fallen behind."""
        ...

    def continue_later(self, connection: "Connection") -> None:
        """Let a connection deliver again in a later turn of the event loop."""
        ...

    def change_topics(self, connection: "Connection", topics: frozenset[str]) -> None:
        """Find a connection by these topics, in place of those that it follows."""
        ...


class Connection:
    """A connected client. It has no queue: its pending messages are those after its position in the log."""

    __slots__ = (
        "_access",
        "_chunks",
        "_closing",
        "_current",
        "_due",
        "_following",
        "_heartbeat_at",
        "_host",
        "_inbox",
        "_last",
        "_measures",
        "_position",
        "_socket",
        "client",
        "earlier",
        "ends_at",
        "expires_at",
        "id",
        "identity",
        "liveness",
        "opened_at",
        "transport",
    )

    def __init__(
        self,
        connection_id: str,
        *,
        identity: Identity,
        client: str | None,
        transport: str,
        socket: Socket,
        position: int,
        following: Following,
        access: Access,
        opened_at: float,
        expires_at: float,
        ends_at: float,
        liveness: Liveness,
        host: Host,
    ) -> None:
        self.id = connection_id
        self.identity = identity
        self.earlier: tuple[Identity, ...] = ()
        """The identities of the last tokens that were renewed on this connection."""
        self.client = client
        """The address of the client, if the server knows it."""
        self.transport = transport
        """How the client is connected: a name for operators."""
        self.opened_at = opened_at
        """Monotonic time in seconds at which delivery began."""
        self.expires_at = expires_at
        """Monotonic time in seconds at which the authentication expires; infinity if it never expires."""
        self.ends_at = ends_at
        """Monotonic time in seconds at which the client is asked to reconnect; infinity if it never is."""
        self.liveness = liveness
        self._socket = socket
        self._host = host
        self._chunks = host.chunks
        self._measures = host.measures
        self._access = access
        self._following = following
        self._position = position
        self._current = False
        self._due: Due | None = None
        self._inbox: Inbox | None = None
        """Exists from the first frame of the client on."""
        self._heartbeat_at = 0.0
        self._closing: tuple[int, str] | None = None
        self._last = 0
        """The last message to deliver, once the connection is closing."""

    @property
    def topics(self) -> frozenset[str]:
        """The topics that the client follows."""
        return self._following.topics

    @property
    def position(self) -> int:
        """The last sequence number written to the socket, or skipped because it was evicted or is not visible.

        Nobody visits a connection that is up to date because of messages for others: it stands where the flushes are.
        """
        return max(self._position, self._chunks.flushed_through) if self._current else self._position

    @property
    def lag(self) -> int:
        """How many sequence numbers the position is behind the latest message."""
        return 0 if self._current else self._chunks.window.latest - self._position

    @property
    def write_progress(self) -> int:
        """A counter that increases whenever the client takes data."""
        return self._socket.write_progress

    def open(self, greeting: bytes, *, heartbeat: bool, heartbeat_at: float) -> None:
        """Send the ``connected`` frame and every message after the position, then a heartbeat if requested."""
        due = self._due = Due()
        due.add(greeting)
        due.heartbeat = heartbeat
        self._heartbeat_at = heartbeat_at
        self._socket.attach(self)
        self.deliver()

    def deliver(self) -> None:
        """Write the messages after the position until the socket accepts no more data or none are left.

        A connection with more than TURN messages before it, or with the past of topics, continues in a later turn of
        the event loop. If none are left and the connection is closing, close the socket.
        """
        socket, window = self._socket, self._chunks.window
        last = window.latest if self._closing is None else self._last
        start = self._position = self.position
        while socket.writable:
            due, was_in_past = self._due, False
            if due is not None:
                was_in_past = due.past is not None
                chunk = self._next_with_frames(due, window, last)
            elif self._position >= last:
                break
            elif self._position < window.evicted_through:
                chunk = JoinedChunk(*self._gap(window), *self._rest(last))
            else:
                chunk = self._next_messages(last)
            if chunk.payloads:
                socket.write(chunk)
            # The frames that waited for the past are written in the step after it.
            if self._position >= last and not was_in_past:
                break
            if self._position - start >= TURN or (was_in_past and self._in_past):
                self._host.continue_later(self)
                break
        current = self._position >= last and self._closing is None
        if current is not self._current:
            self._current = current
            self._host.changed(self, up_to_date=current)
        if self._closing is not None and self._position >= last and self._due is None:
            socket.close(*self._closing)

    def _next_messages(self, last: int) -> Chunk:
        chunk = self._chunks.after(self._position)
        if chunk.last > last:
            chunk = chunk.through(last)
        if not chunk.for_everyone:
            keys = self._following.keys
            seen = chunk.visible_to(keys)
            sparse = chunk.last < last and len(seen.messages) * SPARSE < len(chunk.messages)
            chunk = self._chunks.visible_after(self._position, keys, last=last) if sparse else seen
        self._position = chunk.last
        self._measures.delivered += len(chunk.messages)
        return chunk

    def _next_with_frames(self, due: Due, window: Window, last: int) -> Chunk:
        """Return the next messages, with the frames that belong before and after them."""
        parts = [Chunk(*due.take_before())]
        if due.past is not None:
            parts.append(self._next_of_past(due.past, window))
        else:
            parts += self._gap(window)
            parts += self._rest(last)
            parts.append(Chunk(*due.take_after(self._position, last=self._position >= last)))
        if self._closing is not None and self._position >= last:
            due.discard_waiting()
        if not due:
            self._due = None
        if self._inbox is not None:
            self._inbox.check_room()
        return JoinedChunk(*parts)

    def _gap(self, window: Window) -> Iterator[Chunk]:
        """Yield a ``gap`` frame if messages after the position that the client would have seen were evicted."""
        if self._position < window.evicted_through:
            if self._position < (lost := window.lost_through(self._following.keys)):
                self._measures.gaps += 1
                yield Chunk(wire.gap(first=self._position + 1, last=lost))
            self._position = window.evicted_through

    def _rest(self, last: int) -> Iterator[Chunk]:
        """Yield the next messages, if any are left."""
        if self._position < last:
            yield self._next_messages(last)

    def _next_of_past(self, past: Past, window: Window) -> Chunk:
        """Return the next messages of the past, and at its end the ``following`` frame."""
        chunk = past.next_chunk(window)
        if not past.complete:
            return chunk
        self._frames.past = None
        # Some of them may have been unfollowed in the meantime, which was answered before this.
        added = past.topics & self.topics
        answer = wire.following(added=added, position=self._position, outcome=past.outcome, request_id=past.request_id)
        return JoinedChunk(chunk, Chunk(answer))

    @property
    def _in_past(self) -> bool:
        """Whether messages of topics that are followed now come before all others."""
        return self._due is not None and self._due.past is not None

    @property
    def _frames(self) -> Due:
        if self._due is None:
            self._due = Due()
        return self._due

    def send_frame(self, payload: bytes, *, after: int | None = None) -> None:
        """Send a frame as soon as the socket accepts data, or not before all messages up to ``after`` were sent."""
        if after is None:
            self._frames.add(payload)
        elif self._closing is None:
            self._frames.add_after(after, payload)
        self.deliver()

    @property
    def unread_bytes(self) -> int:
        """Bytes of frames that wait for the client to read."""
        return 0 if self._due is None else self._due.size

    def silent_for(self, now: float) -> float:
        """Return the seconds since the first unanswered ping; 0 while nothing is read that might answer it."""
        return 0.0 if self._inbox is not None and self._inbox.paused else self.liveness.silent_for(now)

    def pause_reading(self) -> None:
        """Take no more frames from the client. Those that were read already may still arrive."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Take frames from the client again."""
        self._socket.resume_reading()

    # Topics and tokens

    @property
    def chose_topics(self) -> bool:
        """Whether the client chose its topics, instead of following those that it was granted by name."""
        return self._following.chosen

    def follow(
        self,
        topics: frozenset[str],
        *,
        since: int | None = None,
        epoch: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Follow these topics, too, from the position on, or first their messages after ``since``.

        Answers with a ``following`` frame. Raises InvalidTopic, and InvalidFrame while the past of other topics is
        being sent; nothing changes then.
        """
        if self._in_past:
            raise InvalidFrame("the past of other topics is being sent: wait for the following frame")
        if since is not None:
            self._reach(since)
        new, keys = topics - self.topics, self._following.keys
        followed = self.topics | new
        check_topics(followed)
        self._change_topics(followed)
        if since is None:
            self.send_frame(wire.following(added=new, position=self.position, request_id=request_id))
            return
        past = self._following.past(
            new, keys=keys, since=since, epoch=epoch, until=self.position, window=self._chunks.window
        )
        past.request_id = request_id
        self._frames.begin_past(past)
        self.deliver()

    def _reach(self, number: int) -> None:
        """Deliver up to a number that the client has seen elsewhere, as far as the socket accepts data.

        What it has seen of new topics is then behind the position, and not sent again.
        """
        while self.position < number and self._socket.writable:
            before = self.position
            self.deliver()
            if self.position == before:
                return

    def unfollow(self, topics: Iterable[str], *, request_id: str | None = None) -> None:
        """Stop following these topics. Answers with a ``following`` frame."""
        removed = self.topics.intersection(topics)
        if removed:
            self._following.chosen = True
            self._change_topics(self.topics - removed)
        self.send_frame(wire.following(removed=removed, position=self.position, request_id=request_id))

    def renew(self, identity: Identity, *, expires_at: float, topics: frozenset[str]) -> None:
        """Use another identity of the same user from now on, and follow these topics.

        ``expires_at`` is in monotonic seconds. Answers with an ``authenticated`` frame. Raises InvalidToken if it is
        another user or there are too many topics; nothing changes then.
        """
        if identity.user_id != self.identity.user_id:
            raise InvalidToken("the token is for another user: open another connection")
        try:
            check_topics(topics)
        except InvalidTopic as error:
            raise InvalidToken(str(error)) from None
        # Without topics and scopes, which may take a hundred times as much as the rest.
        earlier = replace(self.identity, topics=frozenset(), scopes=frozenset())
        self.earlier = (*self.earlier, earlier)[-MAX_EARLIER:]
        self.identity, self.expires_at = identity, expires_at
        added, removed = topics - self.topics, self.topics - topics
        self._change_topics(topics)
        self.send_frame(
            wire.authenticated(expires_at=identity.expires_at, added=added, removed=removed, position=self.position)
        )

    def _change_topics(self, topics: frozenset[str]) -> None:
        if self._due is not None and self._due.past is not None:
            self._due.past.keys -= frozenset(map(topic_key, self.topics - topics))
        self._host.change_topics(self, topics)
        self._following.change(topics, position=self.position)

    # End

    @property
    def closing(self) -> bool:
        """Whether the connection is closed when everything has been sent."""
        return self._closing is not None

    def check(self, now: float, *, unix_time: float, heartbeat_seconds: float, stall_seconds: float) -> None:
        """Send what is due at ``now`` (monotonic seconds), and end an expired, stalled or dead connection.

        A token expires by whichever clock says so first: the wall clock may have been wrong when it was verified.
        """
        if self._inbox is not None:
            self._inbox.begin_interval()
        if now >= self.ends_at and not self.closing:
            self.ask_to_reconnect("the connection has reached its maximum duration: reconnect", after=0.0)
        if now >= self.expires_at or unix_time >= (self.identity.expires_at or math.inf):
            self.close(CloseCode.UNAUTHORIZED, "the token has expired: reconnect with a new one", discard=True)
        if self.liveness.is_stalled(now, stall_seconds=stall_seconds, closing=self.closing):
            self._measures.stalls += 1
            self.abort(f"stalled: the client has taken nothing for {stall_seconds:g} s")
            return
        if self.liveness.is_dead(now):
            self.abort("dead: the client has not answered a ping")
            return
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + heartbeat_seconds
            self._frames.heartbeat = True
            self.deliver()
        self.liveness.ping_if_due(now)

    def ask_to_reconnect(self, reason: str, *, after: float, discard: bool = False) -> None:
        """Ask the client to reconnect after so many seconds, and close its connection."""
        self.send_frame(wire.reconnect(after_ms=round(after * 1000)))
        self.close(CloseCode.SERVICE_RESTART, reason, discard=discard)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Close the socket after everything that was sent or published before, or, with ``discard``, only written.

        Frames received after this call are ignored. A client that does not take everything within the time after which
        a connection counts as stalled is disconnected.
        """
        if self._closing is None:
            self._closing, self._last = (code, reason), self._chunks.window.latest
            if self._inbox is not None:
                self._inbox.close()
        if discard:
            self._due = None
            self._last = self.position
        self.deliver()

    def abort(self, reason: str) -> None:
        """Drop the connection and discard unsent data. The reason is for hooks and logs."""
        self._host.ended(self, *(self._closing or (CloseCode.LOST, reason)))
        self._socket.abort()

    def make_room(self) -> None:
        """Close the socket for a newer connection of the user, and forget this one now: its client may be gone."""
        reason = "replaced by a newer connection of this user: reconnect later"
        self.close(CloseCode.TOO_MANY, reason, discard=True)
        self._host.ended(self, CloseCode.TOO_MANY, reason)

    # SocketListener

    def socket_writable(self) -> None:
        """Continue delivery from the position."""
        self.deliver()

    def socket_received(self, frame: str | bytes) -> None:
        """Answer a client frame."""
        if self._inbox is None:
            self._inbox = Inbox(self, access=self._access, requests=self._host.requests)
        self._inbox.take(frame)

    def socket_closed(self, code: int, reason: str) -> None:
        """Report that this client has disconnected."""
        if self._inbox is not None:
            self._inbox.close()
        self._host.ended(self, *(self._closing or (code, reason)))
