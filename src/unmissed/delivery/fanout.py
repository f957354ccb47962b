"""The fan-out: delivers the messages of one window to every open connection."""

import logging
import math
import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from unmissed.core.audience import keys_of
from unmissed.core.chunks import Chunks
from unmissed.core.close_codes import CloseCode
from unmissed.core.server_frames import ConnectedFrame
from unmissed.core.window import Outcome, Window
from unmissed.delivery.backpressure import Behind
from unmissed.delivery.connection import Connection
from unmissed.delivery.following import Following
from unmissed.delivery.inbox import Requests
from unmissed.delivery.liveness import PING_SECONDS, Liveness
from unmissed.delivery.measures import Measures
from unmissed.delivery.registry import Registry
from unmissed.delivery.socket import Socket
from unmissed.delivery.turns import Turns
from unmissed.security.access import Access, Subscription

logger = logging.getLogger("unmissed")

SLICE = 800
"""Connections that are brought up to date in one iteration of the event loop: about 7 ms of work."""

_JITTER = 0.2
_SHUTTING_DOWN = "the server is shutting down: reconnect shortly"
_NEW_EPOCH = "the log has begun a new epoch: reconnect"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and intervals for connections. None means no limit."""

    heartbeat_seconds: float
    stall_seconds: float
    max_connections: int | None = None
    max_connections_per_user: int | None = None


class ConnectionEvents(Protocol):
    """Is told when a connection has begun and ended."""

    def opened(self, connection: Connection) -> None:
        """Handle a new connection."""
        ...

    def ended(self, connection: Connection, code: int, reason: str) -> None:
        """Handle the end of a connection."""
        ...


class FanOut:
    """The open connections to one window, and the delivery to them.

    Their ids begin with ``node_id``. ``clock`` returns the seconds of message ages.
    """

    def __init__(
        self,
        window: Window,
        *,
        node_id: str,
        limits: Limits,
        requests: Requests,
        events: ConnectionEvents,
        clock: Callable[[], float],
    ) -> None:
        self.window = window
        self.requests = requests
        self.measures = Measures()
        self.chunks = Chunks(window)
        self.behind = Behind()
        self._turns = Turns(lambda connection: _for_each((connection,), Connection.deliver))
        self.connections = Registry(
            max_connections=limits.max_connections, max_per_user=limits.max_connections_per_user
        )
        self._node_id = node_id
        self._events = events
        self._limits = limits
        self._clock = clock
        self._rest: Iterator[Connection] | None = None
        """The connections that a flush in slices has not reached yet."""
        self._flushing = self._flushed = _Mark.of(window)

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
        now, identity, topics = self._clock(), subscription.identity, subscription.topics
        self.connections.check_limits(identity.user_id, now=now)
        outcome, start = self._start(subscription)
        connection = Connection(
            f"{self._node_id}.{secrets.token_urlsafe(9)}",
            identity=identity,
            client=subscription.client,
            transport=transport,
            socket=socket,
            position=start,
            following=Following(identity.user_id, topics, chosen=subscription.chose_topics, start=start),
            access=access,
            opened_at=now,
            expires_at=expires_at,
            # At random times, so that clients that connected at the same time do not reconnect at the same time.
            ends_at=now + max_seconds * random.uniform(1 - _JITTER, 1),
            # Random first delays spread out the heartbeats and pings of clients that connected at the same time.
            liveness=Liveness(socket, ping_at=now + PING_SECONDS * random.random()),
            host=self,
        )
        greeting = ConnectedFrame(
            connection_id=connection.id,
            epoch=self.window.epoch,
            first=self.window.first_number,
            oldest=self.window.oldest,
            latest=self.window.latest,
            outcome=outcome,
            sequence_number=start,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            max_age=self.window.retention.max_age,
            topics=topics or None,
            expires_at=identity.expires_at,
        ).encode()
        if outcome is not None:
            self.measures.count_recovery(connection.transport, outcome)
        self.connections.add(connection)
        self.behind.add(connection)
        heartbeat_at = now + self._limits.heartbeat_seconds * random.random()
        connection.open(greeting, heartbeat=subscription.since is not None, heartbeat_at=heartbeat_at)
        self._events.opened(connection)
        return connection

    def ended(self, connection: Connection, code: int, reason: str) -> None:
        """Forget a connection that was closed or lost."""
        self.behind.discard(connection)
        if self.connections.remove(connection):
            self.measures.closes[code] += 1
            self._events.ended(connection, code, reason)

    def changed(self, connection: Connection, *, up_to_date: bool) -> None:
        """Record that a connection has caught up, or has fallen behind."""
        if up_to_date:
            self.behind.discard(connection)
        elif connection in self.connections:
            self.behind.add(connection)

    def continue_later(self, connection: Connection) -> None:
        """Let a connection deliver again in a later turn of the event loop."""
        self._turns.add(connection)

    def change_topics(self, connection: Connection, topics: frozenset[str]) -> None:
        """Find a connection by these topics, in place of those that it follows."""
        self.connections.change_topics(connection, topics)

    def _start(self, wanted: Subscription) -> tuple[Outcome | None, int]:
        """Return the outcome for a client that sent a position, and the number after which it continues."""
        if wanted.since is None:
            return None, self.window.latest
        outcome, start = self.window.locate(wanted.since, epoch=wanted.epoch)
        if outcome is not Outcome.GAP:
            return outcome, start
        keys = keys_of(wanted.identity.user_id, wanted.topics)
        return self.window.locate(wanted.since, epoch=wanted.epoch, keys=keys)

    def flush(self) -> None:
        """Bring every connection up to date as far as its socket accepts data."""
        self._rest = None
        while not self.flush_slice():
            pass

    def flush_slice(self) -> bool:
        """Bring the next SLICE of the connections that see what is new up to date, and return whether all are.

        A message that is published meanwhile reaches the connections of the later slices with this flush.
        """
        if self._rest is None and self._flushed.latest == self.window.latest:
            return True
        started = self._clock()
        if self._rest is None:
            self._rest = iter(self._audience())
            self._flushing = _Mark.of(self.window)
        reached = _for_each(islice(self._rest, SLICE), Connection.deliver)
        now = self._clock()
        self.measures.flush_seconds.observe(now - started)
        if reached == SLICE:
            return False
        self._rest = None
        self._measure_writes(now)
        self._flushed = self._flushing
        self.chunks.flushed_through = self._flushed.latest
        return True

    def _measure_writes(self, now: float) -> None:
        """Measure how long the messages of this flush have waited."""
        for message in self.window.messages_after(max(self._flushed.latest, self.window.evicted_through)):
            if message.sequence_number > self._flushing.latest:
                return
            self.measures.publish_to_write_seconds.observe(now - message.appended_at)

    def _audience(self) -> Iterable[Connection]:
        """Return the connections that see what is new. Those that are behind continue when their socket is writable."""
        window, flushed = self.window, self._flushed.latest
        if flushed < window.evicted_through:
            return self.connections
        keys: set[str] = set()
        for message in window.messages_after(flushed):
            if message.audience.keys is None:
                return self.connections
            keys |= message.audience.keys
        return self.connections.with_any_of(keys)

    def check(self, connections: Iterable[Connection], now: float, *, unix_time: float) -> None:
        """Send the heartbeats that are due, and end connections that are stalled, dead or expired."""
        heartbeat, stall = self._limits.heartbeat_seconds, self._limits.stall_seconds

        _for_each(
            connections,
            lambda connection: connection.check(
                now, unix_time=unix_time, heartbeat_seconds=heartbeat, stall_seconds=stall
            ),
        )

    def drain(self, *, seconds: float) -> None:
        """Ask every client to reconnect after a random delay of at most ``seconds``, and close all connections.

        What was published before is delivered first.
        """
        self._reconnect_all(self.connections, _SHUTTING_DOWN, seconds=seconds)

    def drain_bounded(self, *, seconds: float) -> None:
        """Do the same for the connections whose duration is bounded, and that are not closing yet."""
        bounded = [each for each in self.connections if each.ends_at < math.inf and not each.closing]
        self._reconnect_all(bounded, _SHUTTING_DOWN, seconds=seconds)

    def before_restart(self, *, seconds: float) -> None:
        """Deliver what the sockets accept now, and close all connections as ``drain`` does: their epoch ends."""
        self.flush()
        self._reconnect_all(self.connections, _NEW_EPOCH, seconds=seconds, discard=True)

    def _reconnect_all(
        self, connections: Iterable[Connection], reason: str, *, seconds: float, discard: bool = False
    ) -> None:
        _for_each(
            connections,
            lambda connection: connection.ask_to_reconnect(reason, after=random.uniform(0, seconds), discard=discard),
        )

    def close(self) -> None:
        """Deliver what the sockets accept now, and close every connection with code 1012.

        It does not wait for clients: ``check`` is not called any more, and could not disconnect those that do not read.
        """
        self.flush()
        _for_each(
            self.connections,
            lambda connection: connection.close(CloseCode.SERVICE_RESTART, _SHUTTING_DOWN, discard=True),
        )

    @property
    def unflushed(self) -> tuple[int, int]:
        """How many messages, and bytes, were appended after what the last complete flush offered to connections."""
        return self.window.latest - self._flushed.latest, self.window.appended_bytes - self._flushed.appended_bytes


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far the window was filled at some time."""

    latest: int
    appended_bytes: int

    @classmethod
    def of(cls, window: Window) -> "_Mark":
        return cls(window.latest, window.appended_bytes)


def _for_each(connections: Iterable[Connection], act: Callable[[Connection], None]) -> int:
    """Call ``act`` with each connection, and return their number. One that raises is aborted; the others are served."""
    count = 0
    for connection in connections:
        count += 1
        try:
            act(connection)
        except Exception:
            logger.exception("connection aborted after an unexpected error: connection_id=%s", connection.id)
            connection.abort("an unexpected error: see the log output")
    return count
