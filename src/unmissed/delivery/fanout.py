"""The fan-out: delivers the messages of one window to every open connection."""

import asyncio
import math
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from unmissed.core.audience import keys_of
from unmissed.core.chunks import Chunks
from unmissed.core.close_codes import CloseCode
from unmissed.core.ephemeral import Ephemeral, LiveBatch, WaitingMessages
from unmissed.core.messages import Draft, Message
from unmissed.core.reader import ClientReader, TopicChange
from unmissed.core.server_frames import ConnectedFrame
from unmissed.core.window import Located, Outcome, Window
from unmissed.delivery.backpressure import Behind
from unmissed.delivery.connection import SHUTTING_DOWN, Connection, Reports, Schedule, for_each, reconnect_all
from unmissed.delivery.history import History
from unmissed.delivery.inbox import RequestHandling
from unmissed.delivery.liveness import PING_SECONDS
from unmissed.delivery.measures import Measures
from unmissed.delivery.registry import Registry
from unmissed.delivery.socket import Socket
from unmissed.delivery.throttle import Throttle
from unmissed.security.access import Access, Subscription
from unmissed.tasks import Turns

SLICE = 800
"""Connections that are brought up to date in one iteration of the event loop: about 7 ms of work."""

_JITTER = 0.2
_NEW_EPOCH = "the log has begun a new epoch: reconnect"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and intervals for connections. None means no limit."""

    heartbeat_seconds: float
    stall_seconds: float
    drain_seconds: float
    """When many clients are asked to reconnect, within how many seconds they do."""
    client_rate: float
    client_burst: int
    """What clients may send, which ``connected`` announces."""
    max_connections: int | None = None
    max_connections_per_user: int | None = None


class FanOut:
    """The open connections to one window, and the delivery to them: the listener of the log.

    Their ids begin with ``node_id``. ``opened`` and ``ended`` are called for each connection that begins and ends.
    Every message is offered to every connection before it is evicted, and publishers wait for active readers.
    """

    def __init__(
        self,
        window: Window,
        *,
        node_id: str,
        limits: Limits,
        handling: RequestHandling,
        opened: Callable[[Connection], None],
        ended: Callable[[Connection, int, str], None],
    ) -> None:
        self.window = window
        self.measures = Measures()
        self.history = History(clock=handling.clock)
        self.behind = Behind()
        self.connections = Registry(
            max_connections=limits.max_connections, max_per_user=limits.max_connections_per_user
        )
        self._chunks = Chunks(window)
        self._node_id = node_id
        self._opened = opened
        self._ended = ended
        self._limits = limits
        self._clock = handling.clock
        self._expires_in = handling.expires_in
        self._reports = Reports(
            handling=handling,
            ended=self._forget,
            progressed=self._note_progress,
            stalled=self._note_stall,
            lost=self._note_gap,
            turn_over=Turns[Connection](lambda connection: for_each((connection,), Connection.deliver)).add,
            topics_changed=self.connections.index,
        )
        self._live: WaitingMessages | None = None
        """Exists from the first ephemeral message on."""
        self._batch: LiveBatch | None = None
        """The ephemeral messages that a flush delivers, from its first slice to its last."""
        self._rest: Iterator[Connection] | None = None
        """The connections that a flush in slices has not reached yet."""
        self._flushing = self._flushed = _Mark.of(window)
        self._waited_at = self._flushed
        """How far the window was filled when active readers were last waited for."""
        self._turnstile = asyncio.Lock()
        self._throttle = Throttle(self, loop=asyncio.get_running_loop())

    def connect(
        self,
        socket: Socket,
        subscription: Subscription,
        *,
        expires_at: float,
        access: Access,
        transport: str,
        max_seconds: float,
    ) -> Connection:
        """Deliver to this socket the messages after a position, or only new ones. Raises TooManyConnections."""
        now, identity = self._clock(), subscription.identity
        self.connections.check_limits(identity.user_id, now=now)
        located = self.located(subscription)
        connection = Connection(
            f"{self._node_id}.{secrets.token_urlsafe(9)}",
            subscription,
            transport=transport,
            socket=socket,
            reader=ClientReader(
                self._chunks,
                self.measures,
                user_id=identity.user_id,
                topics=subscription.topics,
                chose_topics=subscription.chose_topics,
                start=self.window.latest if located is None else located.start,
                told=0 if located is None else located.lost_through,
            ),
            access=access,
            schedule=self._schedule(now, expires_at=expires_at, max_seconds=max_seconds),
            reports=self._reports,
        )
        sends_state = subscription.state and (located is None or located.outcome is not Outcome.COMPLETE)
        greeting = self._greeting(connection, located, state=sends_state)
        # Before the first write, which may end the connection: that is reported after its beginning.
        self.connections.add(connection)
        self._opened(connection)
        if self.connections.watchers:
            self.connections.report(connection, TopicChange(added=connection.topics))
        connection.open(greeting, heartbeat=located is not None, state=sends_state)
        # ``deliver`` reports changes only, and a reader is not up to date before its first delivery.
        if not connection.reader.up_to_date:
            self._note_progress(connection)
        if located is not None:
            self.measures.recoveries[transport, located.outcome.value] += 1
            if located.outcome is not Outcome.COMPLETE:
                since = subscription.since or 0
                self.history.recovered(
                    located.outcome, identity.user_id, since=since, lost=located.lost, connection=connection
                )
        return connection

    def located(self, wanted: Subscription) -> Located | None:
        """Return how complete the position of a client is, and where it continues; None if it sent no position."""
        if wanted.since is None:
            return None
        # Without keys first: the keys of a thousand topics are created only if something after the position was
        # evicted, which may have been for others. Most clients that come back have no gap of either kind.
        located = self.window.locate(wanted.since, epoch=wanted.epoch)
        if located.lost_through <= located.start:
            return located
        keys = keys_of(wanted.identity.user_id, wanted.topics)
        return self.window.locate(wanted.since, epoch=wanted.epoch, keys=keys)

    def _schedule(self, now: float, *, expires_at: float, max_seconds: float) -> Schedule:
        """Return random times, so that clients that connected at the same time are not served at the same time."""
        return Schedule(
            opened_at=now,
            expires_at=expires_at,
            ends_at=now + max_seconds * random.uniform(1 - _JITTER, 1) if max_seconds < math.inf else math.inf,
            heartbeat_at=now + self._limits.heartbeat_seconds * random.random(),
            ping_at=now + PING_SECONDS * random.random(),
        )

    def _greeting(self, connection: Connection, located: Located | None, *, state: bool) -> bytes:
        """Return the ``connected`` frame."""
        window = self.window
        lost = None if located is None else located.lost
        first_lost, last_lost = lost or (None, None)
        return ConnectedFrame(
            connection_id=connection.id,
            epoch=window.epoch,
            first=window.first_number,
            oldest=window.oldest,
            latest=window.latest,
            outcome=None if located is None else located.outcome,
            first_lost=first_lost,
            last_lost=last_lost,
            state=state,
            sequence_number=connection.position,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            max_age=window.retention.max_age,
            rate=self._limits.client_rate,
            burst=self._limits.client_burst,
            topics=connection.topics or None,
            expires_at=connection.identity.expires_at,
            expires_in=self._expires_in(connection.identity),
        ).encode()

    def _forget(self, connection: Connection, code: int, reason: str) -> None:
        """Forget a connection that was closed or lost."""
        self.behind.discard(connection)
        if self.connections.remove(connection):
            self.measures.closes[code] += 1
            self.history.closed(connection, code, reason)
            self.connections.report(connection, TopicChange(removed=connection.topics))
            self._ended(connection, code, reason)

    def _note_progress(self, connection: Connection) -> None:
        """Record that a connection has caught up, or has fallen behind."""
        if connection.reader.up_to_date:
            self.behind.discard(connection)
        elif connection in self.connections:
            self.behind.add(connection)

    def _note_stall(self, connection: Connection, reason: str) -> None:
        self.measures.stalls += 1
        self.history.stalled(connection, reason)

    def _note_gap(self, connection: Connection, first: int, last: int) -> None:
        self.history.lost(connection.identity.user_id, first, last, connection=connection)

    def flush(self) -> None:
        """Bring every connection up to date as far as its socket accepts data."""
        # Not from the start: the connections of earlier slices have its ephemeral messages.
        while self._batch is not None:
            self.flush_slice()
        self._rest = None
        while not self.flush_slice():
            pass

    def flush_slice(self) -> bool:
        """Bring the next SLICE of the connections that see what is new up to date, and return whether all are.

        A message that is published between two slices reaches the connections of the later ones with this flush.
        """
        if self._rest is None:
            if self._live is not None:
                self._batch = self._next_batch(self._live)
            if self._batch is None and self._flushed.latest == self.window.latest:
                return True
        started = self._clock()
        if self._rest is None:
            # A copy: connections begin and end between two slices.
            self._rest = iter(tuple(self._audience()))
            self._flushing = _Mark.of(self.window)
        deliver = Connection.deliver if self._batch is None else partial(self._deliver_live, self._batch)
        reached = for_each(islice(self._rest, SLICE), deliver)
        now = self._clock()
        self.measures.flush_seconds.observe(now - started)
        if reached == SLICE:
            return False
        self._rest = self._batch = None
        # The messages of this flush are those between the two marks, so they are measured before the mark moves.
        self._measure_writes(now)
        # To the mark of its beginning: what was appended between two slices has not reached the earlier ones.
        self._flushed = self._flushing
        # Only after the last slice: every up-to-date reader takes its position from it, also those not visited yet.
        self._chunks.flushed_through = self._flushed.latest
        return True

    def _measure_writes(self, now: float) -> None:
        """Measure how long the messages of this flush have waited."""
        # A mark from before a restart is below the first number of the new epoch.
        for message in self.window.messages_after(max(self._flushed.latest, self.window.first_number - 1)):
            if message.sequence_number > self._flushing.latest:
                return
            self.measures.publish_to_write_seconds.observe(now - message.appended_at)

    def _audience(self) -> Iterable[Connection]:
        """Return the connections that see what is new. Those that are behind continue when their socket is writable."""
        window, flushed = self.window, self._flushed.latest
        # The recipients of evicted messages are no longer known here: each reader checks whether it has a gap.
        if flushed < window.evicted_through:
            return self.connections.by_id.values()
        batch = self._batch
        if batch is not None and batch.keys is None:
            return self.connections.by_id.values()
        keys = set[str]() if batch is None else set(batch.keys or ())
        for message in window.messages_after(flushed):
            if message.audience.keys is None:
                return self.connections.by_id.values()
            keys |= message.audience.keys
        return self.connections.with_any_of(keys)

    # Ephemeral messages

    def send_live(self, messages: Sequence[Ephemeral]) -> None:
        """Deliver ephemeral messages with the next flush for which this window has the messages before them."""
        if self._live is None:
            self._live = WaitingMessages()
        self.measures.ephemeral_dropped += self._live.add(messages)
        self._throttle.request()

    def _next_batch(self, live: WaitingMessages) -> LiveBatch | None:
        messages, dropped = live.take(self.window.latest, now=self._clock())
        self.measures.ephemeral_dropped += dropped
        return LiveBatch(messages) if messages else None

    def _deliver_live(self, batch: LiveBatch, connection: Connection) -> None:
        self.measures.ephemeral_delivered += connection.deliver_live(batch)

    def drain(self, *, seconds: float) -> None:
        """Ask every client to reconnect after a random delay of at most ``seconds``, and close all connections.

        What was published before is delivered first.
        """
        reconnect_all(self.connections, SHUTTING_DOWN, seconds=seconds)

    def close(self) -> None:
        """Deliver what the sockets accept now, and close every connection with code 1012.

        It does not wait for clients: ``check`` no longer runs, and could not disconnect those that do not read.
        """
        # No slice may follow the last flush.
        self._throttle.stop()
        self.flush()
        for_each(
            self.connections,
            lambda connection: connection.close(CloseCode.SERVICE_RESTART, SHUTTING_DOWN, discard=True),
        )

    # Backpressure, and what the log reports

    def make_room(self, messages: Sequence[Draft | Message]) -> None:
        """Flush at once what would be evicted by appending these messages."""
        if self.window.latest != self._flushed.latest and not self._fit(messages, after=self._flushed):
            self._throttle.flush_now()

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:
        """Backpressure: after each quarter of what a rule keeps, flush, and wait until active readers have received it.

        ``messages`` are those that come next: only the rules of their topics are looked at.
        """
        # None overtakes another one that waits: publishes keep the order in which they were begun.
        if not self._turnstile.locked() and self._fit(messages, after=self._waited_at, share=4):
            return
        async with self._turnstile:
            before = self._waited_at
            if self.window.latest == before.latest or self._fit(messages, after=before, share=4):
                return
            waited_at = self._waited_at = _Mark.of(self.window)
            self._throttle.flush_now()
            # A turn of the event loop, in which sockets may accept data again.
            await asyncio.sleep(0)
            await self.behind.catch_up(waited_at.latest, served_through=before.latest)

    def _fit(self, messages: Sequence[Draft | Message], *, after: "_Mark", share: int = 1) -> bool:
        """Return whether these messages, with all after a mark, fit into 1/``share`` of what is retained."""
        window = self.window
        size = window.appended_bytes - after.appended_bytes
        for message in messages:
            size += message.size_in_log
        if size > window.retention.max_bytes // share:
            return False
        return window.has_room(messages, after=after.latest, share=share)

    def appended(self) -> None:
        """Flush soon."""
        self._throttle.request()

    def before_restart(self) -> None:
        """Deliver what the sockets accept now, and ask all clients to reconnect: their epoch ends."""
        self.flush()
        # With ``discard``: the restart removes what is not written by now.
        reconnect_all(self.connections, _NEW_EPOCH, seconds=self._limits.drain_seconds, discard=True)


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far the window was filled at some time."""

    latest: int
    appended_bytes: int

    @classmethod
    def of(cls, window: Window) -> "_Mark":
        return cls(window.latest, window.appended_bytes)
