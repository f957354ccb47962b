"""One client connection: the events of its socket go in, what its reader returns goes out."""

import logging
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from unmissed.core.audience import Identity
from unmissed.core.close_codes import CloseCode
from unmissed.core.ephemeral import LiveBatch
from unmissed.core.reader import ClientReader, TopicChange, Turn
from unmissed.core.server_frames import ReconnectFrame
from unmissed.delivery.inbox import Closing, Effect, Granted, Inbox, Renewed, RequestHandling
from unmissed.delivery.liveness import Liveness
from unmissed.delivery.socket import Socket
from unmissed.security.access import Access, Subscription

logger = logging.getLogger("unmissed")

SHUTTING_DOWN = "the server is shutting down: reconnect shortly"

MAX_EARLIER = 16
"""How many renewed tokens of a connection are remembered."""


class Schedule(NamedTuple):
    """When something is due on a connection, in monotonic seconds; infinity if it never is."""

    opened_at: float
    """Delivery begins."""
    expires_at: float
    """The authentication expires."""
    ends_at: float
    """The client is asked to reconnect."""
    heartbeat_at: float
    """The first heartbeat."""
    ping_at: float
    """The first ping."""


@dataclass(frozen=True, slots=True)
class Reports:
    """What the connections of one fan-out share: to whom each reports, and who answers the requests of clients."""

    handling: RequestHandling
    ended: Callable[["Connection", int, str], None]
    """A connection was closed or lost, with this code and reason."""
    progressed: Callable[["Connection"], None]
    """A connection has caught up, or has fallen behind."""
    stalled: Callable[["Connection", str], None]
    """A connection is dropped because its client has taken nothing, with the reason."""
    lost: Callable[["Connection", int, int], None]
    """The client was sent a gap, with the first and the last number."""
    turn_over: Callable[["Connection"], None]
    """A connection has more to deliver, in a later turn of the event loop."""
    topics_changed: Callable[["Connection", TopicChange], None]
    """A connection follows other topics from now on."""


class Connection:
    """A connected client. It has no queue: its pending messages are those after its position in the log."""

    __slots__ = (
        "_access",
        "_closing",
        "_heartbeat_at",
        "_inbox",
        "_reports",
        "_socket",
        "client",
        "earlier",
        "ends_at",
        "expires_at",
        "id",
        "identity",
        "liveness",
        "opened_at",
        "reader",
        "transport",
    )

    def __init__(
        self,
        connection_id: str,
        subscription: Subscription,
        *,
        transport: str,
        socket: Socket,
        reader: ClientReader,
        access: Access,
        schedule: Schedule,
        reports: Reports,
    ) -> None:
        self.id = connection_id
        self.identity = subscription.identity
        self.earlier: tuple[Identity, ...] = ()
        """The identities of the last tokens that were renewed on this connection."""
        self.client = subscription.client
        """The address of the client, if the server knows it."""
        self.transport = transport
        """How the client is connected: a name for operators."""
        self.opened_at = schedule.opened_at
        self.expires_at = schedule.expires_at
        self.ends_at = schedule.ends_at
        self._heartbeat_at = schedule.heartbeat_at
        self.liveness = Liveness(socket, ping_at=schedule.ping_at)
        self.reader = reader
        self._socket = socket
        self._access = access
        self._reports = reports
        self._inbox: Inbox | None = None
        """Exists from the first frame of the client on."""
        self._closing: tuple[int, str] | None = None

    @property
    def topics(self) -> frozenset[str]:
        """The topics that the client follows."""
        return self.reader.topics

    @property
    def position(self) -> int:
        """The last sequence number written to the socket, or skipped because it is not retained or not visible."""
        return self.reader.position

    @property
    def lag(self) -> int:
        """How many sequence numbers the position is behind the latest message."""
        return self.reader.lag

    @property
    def write_progress(self) -> int:
        """A counter that increases whenever the client takes data."""
        return self._socket.write_progress

    @property
    def closing(self) -> bool:
        """Whether the connection is closed when everything has been sent."""
        return self._closing is not None

    def silent_for(self, now: float) -> float:
        """Return the seconds since the first unanswered ping; 0 while reading is paused, when no answer can arrive."""
        return 0.0 if self._inbox is not None and self._inbox.paused else self.liveness.silent_for(now)

    # Out

    def open(self, greeting: bytes, *, heartbeat: bool, state: bool) -> None:
        """Send the ``connected`` frame, the state if requested, every message after the position, and a heartbeat."""
        self.reader.greet(greeting, heartbeat=heartbeat, state=state)
        self._socket.attach(self)
        self._write()

    def deliver(self) -> None:
        """Write what the socket accepts now, and report whether the client has caught up or fallen behind."""
        was_up_to_date = self.reader.up_to_date
        self._write()
        if self.reader.up_to_date is not was_up_to_date:
            self._reports.progressed(self)

    def deliver_live(self, batch: LiveBatch) -> int:
        """Write what is due, and then the ephemeral messages that the client sees. Return how many were written.

        None are written to a client that is behind, or whose socket accepts no data: it gets them now or never.
        """
        self.deliver()
        if not self.reader.up_to_date or not self._socket.writable:
            return 0
        chunk = batch.visible_to(self.reader.keys)
        if chunk is None:
            return 0
        self._socket.write(chunk)
        return len(chunk.payloads)

    def _write(self) -> None:
        """Write what the reader returns, until the socket accepts no more data or nothing is left in this turn.

        If nothing is left and the connection is closing, close the socket.
        """
        socket, reader = self._socket, self.reader
        had_frames = reader.outbox is not None
        turn: Turn = "goes on"
        while socket.writable:
            chunk, turn = reader.next_chunk()
            if chunk.payloads:
                socket.write(chunk)
            if turn != "goes on":
                break
        else:
            # No ``break``: the socket is full. Flushes would otherwise move the position of the reader without a write.
            reader.pause()
        if reader.declared_gap is not None:
            self._reports.lost(self, *reader.declared_gap)
            reader.declared_gap = None
        if had_frames and self._inbox is not None:
            self._inbox.check_room()
        if not reader.up_to_date:
            if turn == "is over":
                self._reports.turn_over(self)
            if self._closing is not None and reader.finished:
                socket.close(*self._closing)

    def send_frame(self, payload: bytes, *, after: int | None = None) -> None:
        """Send a frame as soon as the socket accepts data, or not before all messages up to ``after`` were sent."""
        self.reader.send(payload, after=after)
        self.deliver()

    # In

    def socket_writable(self) -> None:
        """Continue delivery from the position."""
        self.deliver()

    def socket_received(self, frame: str | bytes) -> None:
        """Answer a client frame."""
        inbox = self._inbox = self._inbox or self._open_inbox()
        self._act(inbox, inbox.take(frame))

    def socket_closed(self, code: int, reason: str) -> None:
        """Report that this client has disconnected."""
        if self._inbox is not None:
            self._inbox.close()
        # If the server has closed the connection, that is the reason: a close frame of the client then only answers it.
        self._reports.ended(self, *(self._closing or (code, reason)))

    def _open_inbox(self) -> Inbox:
        inbox = Inbox(
            self.reader,
            self._socket,
            identity=self.identity,
            access=self._access,
            handling=self._reports.handling,
            act=self._act_later,
        )
        if self.closing:
            inbox.close()
        return inbox

    def _act(self, inbox: Inbox, effect: Effect | None) -> None:
        """Carry out what a frame has led to, and send the answers.

        A flush in slices may have determined its audience before a change of topics. It misses nothing: the reader
        filters with the new topics, and ``deliver`` brings it up to date before the next slice. So neither the index
        nor the delivery has to come first.
        """
        if isinstance(effect, Granted):
            self._reach(effect.frame.since or 0)
            effect = inbox.follow(effect)
        match effect:
            case TopicChange():
                self._reports.topics_changed(self, effect)
            case Renewed(identity=identity, expires_at=expires_at, change=change):
                self.renewed(identity, expires_at=expires_at)
                self._reports.topics_changed(self, change)
            case Closing(code=code, reason=reason, discard=discard):
                self.close(code, reason, discard=discard)
        self.deliver()
        inbox.check_room()

    def _act_later(self, inbox: Inbox, effect: Effect | None) -> None:
        """Do the same for a task of the inbox. A connection that raises is aborted, as in a flush."""
        for_each((self,), lambda _: self._act(inbox, effect))

    def _reach(self, number: int) -> None:
        """Deliver up to a number that the client has seen elsewhere, as far as the socket accepts data.

        What it has seen there of topics that it follows next is then behind the position, and not sent again.
        """
        while (before := self.position) < number and self._socket.writable:
            self.deliver()
            if self.position == before:
                return

    def renewed(self, identity: Identity, *, expires_at: float) -> None:
        """Use another identity of the same user from now on. ``expires_at`` is in monotonic seconds."""
        # Without topics and scopes, which may take a hundred times as much as the rest.
        earlier = replace(self.identity, topics=frozenset(), scopes=frozenset())
        self.earlier = (*self.earlier, earlier)[-MAX_EARLIER:]
        self.identity, self.expires_at = identity, expires_at

    # End

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
            reason = f"stalled: the client has taken nothing for {stall_seconds:g} s"
            self._reports.stalled(self, reason)
            self.abort(reason)
            return
        # Before the next ping below, which replaces the progress that the last one is compared with.
        if self.liveness.is_dead(now):
            self.abort("dead: the client has not answered a ping")
            return
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + heartbeat_seconds
            self.reader.send_heartbeat()
            self.deliver()
        self.liveness.ping_if_due(now)

    def ask_to_reconnect(self, reason: str, *, after: float, discard: bool = False) -> None:
        """Ask the client to reconnect after so many seconds, and close its connection."""
        # Before the close, which is sent as soon as nothing else waits, and with ``discard`` at once.
        self.send_frame(ReconnectFrame(after_ms=round(after * 1000)).encode())
        self.close(CloseCode.SERVICE_RESTART, reason, discard=discard)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Close the socket after everything that was sent or published before, or, with ``discard``, only written.

        Frames received after this call are ignored. A client that does not take everything within the time after which
        a connection counts as stalled is disconnected.
        """
        if self._closing is None:
            self._closing = (code, reason)
            self.reader.end()
            if self._inbox is not None:
                self._inbox.close()
        if discard:
            self.reader.discard()
        self.deliver()

    def abort(self, reason: str) -> None:
        """Drop the connection and discard unsent data. The reason is for hooks and logs."""
        # Here, with the reason: only the first report counts, and the loss that the abort leads to has none.
        self._reports.ended(self, *(self._closing or (CloseCode.LOST, reason)))
        self._socket.abort()

    def give_way(self) -> None:
        """Close the socket for a newer connection of the user, and forget this one now: its client may be gone."""
        reason = "replaced by a newer connection of this user: reconnect later"
        self.close(CloseCode.TOO_MANY, reason, discard=True)
        self._reports.ended(self, CloseCode.TOO_MANY, reason)


def for_each(connections: Iterable[Connection], act: Callable[[Connection], None]) -> int:
    """Call ``act`` with each connection, and return their number. One that raises is aborted; the rest are served."""
    count = 0
    for connection in connections:
        count += 1
        try:
            act(connection)
        except Exception:
            logger.exception("connection aborted after an unexpected error: connection_id=%s", connection.id)
            connection.abort("an unexpected error: see the log output")
    return count


def reconnect_all(connections: Iterable[Connection], reason: str, *, seconds: float, discard: bool = False) -> None:
    """Ask clients to reconnect after random delays of at most ``seconds``, and close their connections."""
    for_each(
        connections,
        lambda connection: connection.ask_to_reconnect(reason, after=random.uniform(0, seconds), discard=discard),
    )
