"""One run of a manager: the connections to its node, and everything that serves them and ends with them."""

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from unmissed.application.client_requests import ClientRequests
from unmissed.application.commands import Commands
from unmissed.application.hooks import ConnectionLifecycle, Hooks
from unmissed.cluster.cluster_node import ClusterNode
from unmissed.cluster.live_notes import HOLD_SECONDS
from unmissed.cluster.overview import OwnNode
from unmissed.cluster.presence_messages import PresenceMessages, PresenceState
from unmissed.core.audience import Identity, keys_of
from unmissed.core.client_frames import Command
from unmissed.core.ephemeral import Ephemeral
from unmissed.core.errors import (
    LOG_UNAVAILABLE,
    NODE_FAILS,
    Draining,
    InvalidMessage,
    LogUnavailable,
    MessageTooLarge,
    NotRunning,
    OutdatedState,
    UnknownConnection,
    WrongThread,
)
from unmissed.core.messages import Draft, Message, rfc3339
from unmissed.core.receipts import key_of_user
from unmissed.core.retention import Retention
from unmissed.core.revocations import Revocations
from unmissed.core.state_reading import StateReading
from unmissed.core.window import PAGE_BYTES, Page, Window
from unmissed.delivery.checks import Checks
from unmissed.delivery.connection import Connection
from unmissed.delivery.fanout import FanOut, Limits
from unmissed.delivery.inbox import RequestHandling
from unmissed.delivery.measures import NodeMeasures
from unmissed.delivery.socket import Socket
from unmissed.framework_names import server_stops
from unmissed.logs.base import Log, Publication, Wakeable
from unmissed.security.access import Access, Subscription
from unmissed.settings import Settings
from unmissed.tasks import Pace, end
from unmissed.transactions.outbox import TransactionOutbox

NOT_ACCEPTING = "not accepting connections: the server is starting or shutting down"

_STOP_SECONDS = 1.0
"""The longest wait for running hooks, and for the other nodes, at the end of a run."""

_OWN_LOOP = "the event loop that the manager was started on"
_FROM_THREADS = "manager.publish_threadsafe(message)"

_Result = TypeVar("_Result")

logger = logging.getLogger("unmissed")


@dataclass(frozen=True, slots=True)
class Clocks:
    """``monotonic`` returns the seconds of ages and intervals, ``wall`` the Unix seconds of timestamps and tokens."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]

    def monotonic_at(self, unix_time: float | None) -> float:
        """Convert the expiry of a token, so that adjustments of the wall clock do not matter. None is infinity."""
        return math.inf if unix_time is None else self.monotonic() + unix_time - self.wall()


@dataclass(frozen=True, slots=True)
class RestQuery:
    """What a client asks for over REST: what it sees after its position, by default everything retained."""

    user_id: str
    topics: frozenset[str]
    since: int | None = None
    epoch: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class LivePublication:
    """The result of publishing ephemeral messages: how many there were, and the timestamp of all."""

    timestamp: str
    count: int


@dataclass(frozen=True, slots=True)
class StateQuery:
    """What a client asks for of a state: the values that it sees after one number, by default all, cut at another.

    Without ``through``, the state is cut at the latest number.
    """

    user_id: str
    topics: frozenset[str]
    after: int | None = None
    through: int | None = None


@dataclass(frozen=True, slots=True)
class StatePage:
    """Values in order, and the number at which the state is cut. ``has_more``: whether further ones may follow."""

    values: list[Message]
    sequence_number: int
    has_more: bool


class Running:
    """One run of a manager on one event loop, from its start to its stop. ``window`` is that of the open log."""

    def __init__(
        self,
        window: Window,
        *,
        log: Log,
        settings: Settings,
        commands: Commands,
        hooks: Hooks,
        revocations: Revocations,
        clocks: Clocks,
        outbox: TransactionOutbox,
    ) -> None:
        self.window = window
        self.loop = asyncio.get_running_loop()
        self.node_id = secrets.token_urlsafe(6)
        """Identifies this run among the nodes of the log. The ids of its connections begin with it."""
        self.draining = False
        self.unused_settings = frozenset[str]()
        """Those that have no effect, because they are for another log."""
        self._started_at = clocks.monotonic()
        self._stopped = False
        self._log = log
        self._settings = settings
        self._hooks = hooks
        self._revocations = revocations
        self._clocks = clocks
        self._requests = ClientRequests(
            settings,
            publish=self.publish_batch,
            commands=commands,
            clock=clocks.monotonic,
        )
        handling = RequestHandling(
            clock=clocks.monotonic,
            buckets=self._requests.buckets,
            start=self._requests.start,
            answer=self._requests.answer,
            valid_until=self._valid_until,
            expires_in=self.expires_in,
            is_behind=self.is_behind,
            catch_up=self.catch_up,
        )
        lifecycle = ConnectionLifecycle(hooks, clock=clocks.monotonic)
        limits = Limits(
            heartbeat_seconds=settings.heartbeat_seconds,
            stall_seconds=settings.stall_seconds,
            drain_seconds=settings.drain_seconds,
            client_rate=settings.client_rate,
            client_burst=settings.client_burst,
            max_connections=settings.max_connections,
            max_connections_per_user=settings.max_connections_per_user,
        )
        self._fan_out = FanOut(
            window,
            node_id=self.node_id,
            limits=limits,
            handling=handling,
            opened=lifecycle.opened,
            ended=lifecycle.ended,
        )
        self.connections = self._fan_out.connections
        self._topics_changed = lifecycle.topics_changed
        hooks.watch_topics = self._watch_topics
        self._watch_topics()
        self.measures = self._fan_out.measures
        """Counters since the start of this run."""
        self.history = self._fan_out.history
        self.cluster = ClusterNode(
            OwnNode(self.node_id, self.connections, self._fan_out.history, self._facts, self._measured),
            revocations,
            channel=log.channel,
            keys=_note_keys(settings, shared=log.channel is not None),
            deliver=self._fan_out.send_live,
            clock=clocks.monotonic,
            wall_clock=clocks.wall,
        )
        self._presence = (
            PresenceMessages(
                window,
                self.connections,
                nodes=self.cluster.nodes,
                settings=settings,
                publish=lambda draft, key: self._store([draft], key=key),
                is_active=lambda: not self.draining,
                clock=clocks.monotonic,
            )
            if settings.presence
            else None
        )
        self._presenting: asyncio.Task[None] | None = None
        self._outbox = outbox
        self._relay = outbox.relay(lambda drafts, key: self._store(drafts, key=key))
        # After ``open``, which replays messages without a listener: each client reads them from its own position.
        log.subscribe(self._fan_out)
        self._checks = Checks(
            self.connections,
            limits=limits,
            expire=log.expire,
            clock=clocks.monotonic,
            wall_clock=lambda: clocks.wall() - settings.token_leeway,
            server_stops=server_stops,
        )
        self._checking = self.loop.create_task(self._checks.run())

    async def start(self) -> None:
        """Join the cluster. On a shared log, wait for the logouts that the other nodes know: see ``Nodes.start``."""
        await self.cluster.nodes.start()
        if self._relay is not None:
            await self._relay.start()
        wakeable = self._relay or self._log.channel
        if isinstance(wakeable, Wakeable):
            self._outbox.connect(wakeable.wake)
        if self._presence is not None:
            self._presenting = self.loop.create_task(self._presence.run())

    async def stop(self) -> None:
        """Close every connection with code 1012, and wait for hooks and for the other nodes, for a second."""
        # First: a publish that is waiting for readers holds this object, and must be refused when it continues.
        self._stopped = True
        self._checking.cancel()
        self._outbox.disconnect()
        if self._relay is not None:
            await self._relay.stop()
        if self._presenting is not None:
            await end(self._presenting)
        self._requests.stop()
        # After the flushes and checks have ended: this flush is the last one, and waits for no client.
        self._fan_out.close()
        await asyncio.gather(self._hooks.finish(seconds=_STOP_SECONDS), self.cluster.nodes.stop(seconds=_STOP_SECONDS))

    def _watch_topics(self) -> None:
        """Report changes of topics to the hooks for them, if there are any."""
        watchers = self.connections.watchers
        if (self._hooks.on_follow or self._hooks.on_unfollow) and self._topics_changed not in watchers:
            watchers.append(self._topics_changed)

    @property
    def is_own_loop(self) -> bool:
        """Whether the caller runs on the event loop of this run."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def drain(self, *, seconds: float) -> None:
        """Ask every client to reconnect after a random delay of at most ``seconds``, and close all connections.

        From then on, new connections and new messages are refused with Draining.
        """
        self.draining = True
        self._fan_out.drain(seconds=seconds)

    def check(self) -> None:
        """Expire messages, send heartbeats, and close stalled and expired connections, as once a second."""
        self._checks.run_once()

    @property
    def problem(self) -> str | None:
        """Why messages are not accepted or delivered, as a public text, or None."""
        if self._log.unavailable is not None:
            return LOG_UNAVAILABLE
        return None if self.detailed_problem is None else NODE_FAILS

    @property
    def detailed_problem(self) -> str | None:
        """Why the log, the checks, the notes or the outbox fail. Only for operators: it names addresses."""
        relayed = None if self._relay is None else self._relay.problem
        return self._log.unavailable or self._checks.problem or self.cluster.nodes.problem or relayed

    def _facts(self) -> dict[str, Any]:
        """Return what operators see of this node on any other."""
        return {
            "connections": len(self.connections.by_id),
            "behind": len(self._fan_out.behind),
            "latest": self.window.latest,
            "started_at": self.cluster.unix_time(self._started_at),
            "draining": self.draining,
            "problem": self.detailed_problem,
        }

    def _measured(self) -> NodeMeasures:
        """Return what this node has measured, for itself and for other nodes."""
        window, lags = self.window, [connection.lag for connection in self.connections]
        return self.measures.report(
            counters={"evicted": window.evicted_messages, "replaced": window.replaced_messages},
            rules=window.shelves(),
            gauges={
                "connections": len(lags),
                "connections_behind": sum(lag > 0 for lag in lags),
                "lag_messages": max(lags, default=0),
                "log_messages": len(window),
                "log_bytes": window.size,
                "log_reach_seconds": self.log_reach,
            },
        )

    @property
    def log_reach(self) -> float:
        """Age in seconds of the oldest message in the log that has no rule."""
        return self.window.reach(self._clocks.monotonic())

    # Messages

    async def publish_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        publisher: str | None = None,
    ) -> Publication | LivePublication:
        """Publish messages as one block of contiguous numbers: see ``ConnectionManager.publish_batch``.

        If all of them have ``"ephemeral": true``, they are delivered live, and not stored.
        """
        self.check_accepting(_FROM_THREADS)
        key = None if idempotency_key is None else key_of_user(publisher, idempotency_key)
        drafts = await self._drafts(messages)
        if any([draft.ephemeral for draft in drafts]):  # noqa: C419  # a list is faster than a generator for a few
            return await self._publish_live(drafts, idempotency_key=idempotency_key)
        return await self._store(drafts, key=key)

    async def _store(self, drafts: Sequence[Draft], *, key: str | None) -> Publication:
        await self._fan_out.wait_for_readers(drafts)
        # Again, since the manager may have stopped.
        self.check_accepting(_FROM_THREADS)
        publishing = self._log.publish(drafts, idempotency_key=key)
        publication = await self._in_time(publishing, otherwise="the log did not store the message in time")
        if not publication.repeated:
            self.measures.published += len(publication.messages)
        return publication

    async def _publish_live(self, drafts: Sequence[Draft], *, idempotency_key: str | None) -> LivePublication:
        """Deliver ephemeral messages here, and send them to the other nodes."""
        self.check_accepting(_FROM_THREADS)
        if not all(draft.ephemeral for draft in drafts):
            raise InvalidMessage("a batch is ephemeral as a whole, or not at all: publish two batches")
        if idempotency_key is not None:
            raise InvalidMessage("an ephemeral message has no Idempotency-Key: leave it out, nothing remembers it")
        timestamp = rfc3339(self._clocks.wall())
        after, ends_at = self.window.latest, self._clocks.monotonic() + HOLD_SECONDS
        messages = [
            Ephemeral(draft.unnumbered(timestamp=timestamp), draft.audience, after, ends_at) for draft in drafts
        ]
        self.measures.ephemeral_published += len(messages)
        self._fan_out.send_live(messages)
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await self.cluster.live.send(messages)
        except TimeoutError:
            logger.debug("ephemeral messages have not reached the other nodes in time")
        return LivePublication(timestamp, len(messages))

    async def set_presence(self, user_id: str, wanted: PresenceState) -> None:
        """Publish the state of a user in a topic: see ``PresenceMessages.set_state``."""
        if self._presence is not None:
            await self._presence.set_state(user_id, wanted.topic, wanted.state)

    async def _drafts(self, messages: Iterable[Mapping[str, Any]], *, traceparent: str | None = None) -> list[Draft]:
        """Return the messages, checked and encoded. ``traceparent`` is added where the publisher has given none."""
        return await drafts_of(
            messages,
            max_message_bytes=self._settings.max_message_bytes,
            retention=self.window.retention,
            traceparent=traceparent,
        )

    def is_behind(self, since: int | None) -> bool:
        """Return whether ``since`` is ahead of this node, as after a move from another node."""
        return since is not None and since > self.window.latest and self._log.channel is not None

    async def catch_up(self, since: int | None) -> None:
        """Wait until this node has reached the position of a client that was connected to another node.

        Raises LogUnavailable if it has not after ``publish_seconds``.
        """
        if since is not None and self.is_behind(since):
            await self._in_time(self._log.catch_up(since), otherwise="this node is behind the other nodes")

    async def recover(self, query: RestQuery) -> Page:
        """Return a page over REST of what a client has missed, and count it if the client has sent a position.

        Waits until this node has reached the position, and raises LogUnavailable if it has not in time. Nothing is
        awaited after the page is read: it and what the caller then reads of the window belong to one moment.
        """
        since, window = query.since, self.window
        # First: a position that is ahead of this node would be a reset.
        await self.catch_up(since)
        page = window.page(
            since or 0,
            keys=keys_of(query.user_id, query.topics),
            now=self._clocks.monotonic(),
            epoch=query.epoch,
            max_messages=query.limit,
        )
        if since is not None:
            self.measures.recoveries["rest", page.outcome.value] += 1
            self.history.recovered(page.outcome, query.user_id, since=since, lost=page.lost)
        return page

    async def state(self, query: StateQuery) -> StatePage:
        """Return up to 1 MiB of the retained values by key that a client sees, in bounded steps.

        Waits until this node has reached the number at which the state is cut. Raises LogUnavailable if it has not in
        time, and OutdatedState if the number is of another epoch, also if one begins while this reads.
        """
        window = self.window
        await self.catch_up(query.through)
        before_all = window.first_number - 1
        through = window.latest if query.through is None else query.through
        keys = keys_of(query.user_id, query.topics)
        reading = StateReading(max(query.after or 0, before_all), through, keys)
        values, room, pace = list[Message](), PAGE_BYTES, Pace()
        window.expire(self._clocks.monotonic())
        while True:
            if not window.first_number - 1 <= through <= window.latest:
                raise OutdatedState
            found = reading.step(window, room=room, whatever=not values)
            values += found
            room -= sum(len(message.payload) for message in found)
            if reading.complete or reading.full:
                return StatePage(values, through, not reading.complete)
            await pace.keep()

    async def _in_time(self, work: Awaitable[_Result], *, otherwise: str) -> _Result:
        """Return the result of the log. Raises LogUnavailable after ``publish_seconds``, with the log's own reason."""
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                return await work
        except TimeoutError:
            raise LogUnavailable(self._log.unavailable or otherwise) from None

    # Clients

    def connect(
        self,
        socket: Socket,
        subscription: Subscription,
        *,
        access: Access,
        transport: str = "websocket",
        max_seconds: float = math.inf,
    ) -> Connection:
        """Deliver to an accepted socket: the messages after the client's position, then every new one.

        ``access`` renews tokens, and decides about topics that are followed later. ``transport`` is for operators.
        After at most ``max_seconds``, the client is asked to reconnect. If InvalidToken, NotRunning, Draining,
        WrongThread or TooManyConnections is raised, the socket is unchanged.
        """
        self.check_accepting()
        self._hooks.check_room()
        # Before the position is located: what is too old must count as lost, and the checks run only once a second. The
        # window is enough, since the position is located in it: the checks expire the rest of the log.
        self.window.expire(self._clocks.monotonic())
        return self._fan_out.connect(
            socket,
            subscription,
            # Checked again: a route may have waited since its own check, and the user may have been logged out.
            expires_at=self._valid_until(subscription.identity),
            access=access,
            transport=transport,
            max_seconds=max_seconds,
        )

    def connection(self, connection_id: str) -> Connection:
        """Return a connection to this node. Raises UnknownConnection, which names the node if another one has it."""
        try:
            return self.connections[connection_id]
        except UnknownConnection:
            node = connection_id.partition(".")[0]
            raise UnknownConnection(connection_id, node=node if node in self.cluster.nodes.others else None) from None

    def check_capacity(self, user_id: str) -> None:
        """Raise what would refuse another connection of this user now: NotRunning, Draining or TooManyConnections."""
        self.check_accepting()
        self._hooks.check_room()
        self.connections.check_limits(user_id, now=self._clocks.monotonic())

    def count_request(self, identity: Identity) -> None:
        """Count a request that comes without a connection against the rate of its user.

        Raises TooManyRequests over ``UNMISSED_CLIENT_RATE``, NotRunning or Draining.
        """
        self.check_accepting()
        self._requests.count(identity.user_id)

    async def run_command(self, identity: Identity, command: Command) -> bytes:
        """Run a command that comes without a connection, and return its answer, a ``result`` or ``error`` frame.

        Its data is compact JSON. Call ``count_request`` first: this does not count the command in its user's rate.

        A repeated id returns the first answer, whether it came over HTTP or a WebSocket. Raises CommandError, also
        if the id was used for another command or its answer is forgotten, TooManyRequests, NotRunning or Draining.
        """
        self.check_accepting()
        return await self._requests.run(identity, command)

    def _valid_until(self, identity: Identity) -> float:
        """Return when an identity expires, in monotonic seconds. Raises InvalidToken if it was logged out."""
        self._revocations.check(identity)
        return self._clocks.monotonic_at(identity.expires_at) + self._settings.token_leeway

    def expires_in(self, identity: Identity) -> float | None:
        """Return the seconds until a token expires, for a client whose clock may be wrong. None if it never does.

        Without ``token_leeway``: a client should have another token by then.
        """
        expires_at = identity.expires_at
        return None if expires_at is None else max(0.0, round(expires_at - self._clocks.wall(), 3))

    def check_accepting(self, right_call: str = _OWN_LOOP) -> None:
        """Raise NotRunning, WrongThread, which names the right call, or Draining."""
        if self._stopped:
            raise NotRunning
        if not self.is_own_loop:
            raise WrongThread(right_call=right_call)
        if self.draining:
            raise Draining


async def drafts_of(
    messages: Iterable[Mapping[str, Any]],
    *,
    max_message_bytes: int,
    retention: Retention,
    traceparent: str | None = None,
) -> list[Draft]:
    """Check and encode a batch, in slices of 5 ms. Raises InvalidMessage, also if the log cannot hold it."""
    drafts, size, pace = list[Draft](), 0, None
    counts: dict[str, int] = {}
    for message in messages:
        if drafts:
            pace = pace or Pace()
            await pace.keep()
        drafts.append(Draft.of(message, max_bytes=max_message_bytes, traceparent=traceparent))
        size += drafts[-1].size_in_log
        if retention.rules:
            _check_count(drafts[-1], counts, retention)
        # As soon as the batch is too large: the rest may be an iterator, whose messages are decoded one by one.
        if size > retention.max_bytes:
            raise MessageTooLarge("the batch, which must fit in the log,", limit=retention.max_bytes)
        if len(drafts) > retention.max_messages:
            break
    if not 0 < len(drafts) <= retention.max_messages:
        raise InvalidMessage(f"a batch has 1 to {retention.max_messages} messages, as many as the log retains")
    return drafts


def _check_count(draft: Draft, counts: dict[str, int], retention: Retention) -> None:
    """Count a draft of a batch. Raises InvalidMessage if they are more than the rule of their first topic retains."""
    first = draft.audience.first
    rule = retention.rule_of(first)
    if rule is None or first is None or (draft.value is not None and draft.value.is_full):
        return
    counts[first] = counts.get(first, 0) + 1
    if counts[first] > rule.max_messages:
        raise InvalidMessage(
            f"a batch has at most {rule.max_messages} messages for {first[1:]!r}, as many as {rule.pattern!r} retains: "
            "publish them in several batches"
        )


def _note_keys(settings: Settings, *, shared: bool) -> tuple[bytes, ...]:
    """Return the keys that authenticate notes between nodes. Without a secret, anyone can send them."""
    keys = settings.node_keys()
    if not keys and shared:
        logger.warning(
            "anyone who can send to the engine of the log can log users out: set UNMISSED_NODE_SECRET, to the same "
            "value on all nodes (openssl rand -base64 48)"
        )
    return keys or (b"",)
