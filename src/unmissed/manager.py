"""ConnectionManager: publishes messages and delivers them to every connection."""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from unmissed.application.client_requests import ClientRequests
from unmissed.application.lifecycle import Lifecycle
from unmissed.application.registration import Registration
from unmissed.cluster.people import ConnectionInfo, People
from unmissed.cluster.presence import Followers
from unmissed.core.audience import Identity, keys_of
from unmissed.core.client_frames import Command
from unmissed.core.errors import (
    LOG_UNAVAILABLE,
    NODE_FAILS,
    AlreadyRunning,
    Draining,
    InvalidMessage,
    LogUnavailable,
    NotRunning,
    UnknownConnection,
    WrongThread,
)
from unmissed.core.messages import Message, addressed
from unmissed.core.receipts import key_of_user
from unmissed.core.revocations import Revocations
from unmissed.core.topics import granted_topics
from unmissed.core.window import Page, Recovery, Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.checks import Checks, server_stops
from unmissed.delivery.connection import Connection
from unmissed.delivery.drafts import drafts_of
from unmissed.delivery.fanout import FanOut, Limits
from unmissed.delivery.inbox import RequestHandling
from unmissed.delivery.measures import Measures
from unmissed.delivery.socket import STALL_STATE, Socket
from unmissed.delivery.throttle import Throttle
from unmissed.delivery.window_reader import WindowReader
from unmissed.logs.base import Log, Publication
from unmissed.logs.urls import log_from_url
from unmissed.security.access import Access, Subscription
from unmissed.settings import Settings

CLOSE_SECONDS = 3.0
"""The most seconds that leaving a manager takes, whatever its hooks and its log do."""

_HOOK_SECONDS = 1.0
"""The part of it for the hooks that still run."""

_OTHER_THREADS = "manager.publish_threadsafe(message)"
_NO_RIGHTS = Access()

_Result = TypeVar("_Result")

logger = logging.getLogger("unmissed")


class ConnectionManager(Registration):
    """Stamps every message once, retains the newest messages, and delivers them to every connection.

    It belongs to one event loop: enter it there with ``async with manager:``, or pass ``manager.lifespan`` to the
    application. Only ``publish_threadsafe`` may be called from other threads.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use ``settings``, by default from the environment, and ``log``, by default the one at ``settings.log_url``.

        ``clock`` returns monotonic seconds, for message ages; ``wall_clock`` returns Unix seconds, for timestamps,
        first numbers and token expiry. Raises ConfigurationError.
        """
        super().__init__()
        self.settings = settings or Settings.load()
        self._log: Log = log or log_from_url(
            self.settings.log_url,
            retention=self.settings.retention(),
            first_number=None if self.settings.first_number == "clock" else self.settings.first_number,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._clock = clock
        self._wall_clock = wall_clock
        self._revocations = Revocations(wall_clock=wall_clock)
        self._started = False
        """Set from the beginning of a start to the end of a stop."""
        self._fan_out: FanOut | None = None
        """Set while the manager runs."""

    async def __aenter__(self) -> Self:
        """Open the log on the running event loop. Raises AlreadyRunning, or ConfigurationError if it cannot work.

        On a shared log, wait for what the other nodes know of logouts: for a second, or as long as it arrives.
        """
        if self._started:
            raise AlreadyRunning
        self._started = True
        try:
            async with contextlib.AsyncExitStack() as stack:
                fan_out = await self._start(stack)
                stack.pop_all()
        except BaseException:
            self._started = False
            raise
        self._fan_out = fan_out
        return self

    async def _start(self, stack: contextlib.AsyncExitStack) -> FanOut:
        """Create what belongs to one run, which begins here, in the process and the event loop that serve.

        ``stack`` undoes what a failed start has begun.
        """
        self._loop = asyncio.get_running_loop()
        self._node_id = secrets.token_urlsafe(6)
        window = await self._log.open()
        stack.push_async_callback(self._log.close)
        self._draining = False
        self._requests = ClientRequests(
            self.settings,
            publish=self.publish_batch,
            commands=self.commands,
            clock=self._clock,
        )
        handling = RequestHandling(
            clock=self._clock,
            buckets=self._requests.buckets,
            start=self._requests.start,
            answer=self._requests.answer,
            admit=self._admit,
            is_behind=self.is_behind,
            catch_up=self.catch_up,
        )
        limits = self._limits()
        events = Lifecycle(self.hooks, clock=self._clock)
        fan_out = FanOut(
            window, node_id=self._node_id, limits=limits, handling=handling, opened=events.opened, ended=events.ended
        )
        self._people = People(
            fan_out.connections,
            self._revocations,
            node_id=self._node_id,
            channel=self._log.channel,
            key=self._note_key(),
            clock=self._clock,
            wall_clock=self._wall_clock,
        )
        self._throttle = Throttle(fan_out, loop=self._loop)
        self._log.subscribe(WindowReader(fan_out, self._throttle, reconnect_seconds=self.settings.drain_seconds))
        self._checks = Checks(
            fan_out,
            limits=limits,
            expire=self._log.expire,
            clock=self._clock,
            wall_clock=lambda: self._wall_clock() - self.settings.token_leeway,
            server_stops=server_stops,
            drain_seconds=self.settings.drain_seconds,
        )
        self._checking = self._loop.create_task(self._checks.run())
        stack.callback(self._checking.cancel)
        stack.callback(self._throttle.stop)
        stack.push_async_callback(self._people.nodes.stop, seconds=_HOOK_SECONDS)
        # Last: from now on, other nodes ask this one.
        await self._people.nodes.start()
        return fan_out

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with code 1012, wait for the hooks, then close the log, within three seconds."""
        fan_out, self._fan_out = self._running, None
        closes_at = self._loop.time() + CLOSE_SECONDS
        self._throttle.stop()
        self._checking.cancel()
        self._requests.stop()
        fan_out.close()
        try:
            await asyncio.gather(
                self.hooks.finish(seconds=_HOOK_SECONDS), self._people.nodes.stop(seconds=_HOOK_SECONDS)
            )
        finally:
            await self._close_log(closes_at)

    async def _close_log(self, closes_at: float) -> None:
        """Close the log until this time of the event loop. The manager can be started again then."""
        try:
            async with asyncio.timeout_at(closes_at):
                await self._log.close()
        except TimeoutError:
            logger.warning("the log was not closed in time: what was waiting to be written may be lost")
        finally:
            self._started = False

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG002  # ASGI frameworks pass it
        """Run the manager as the lifespan of an ASGI application: ``FastAPI(lifespan=manager.lifespan)``."""
        async with self:
            yield {STALL_STATE: self.settings.stall_seconds}

    @property
    def ready(self) -> bool:
        """Whether connections are accepted: the manager is running and not draining."""
        return self._fan_out is not None and not self._draining

    @property
    def problem(self) -> str | None:
        """Why connections or messages are not accepted, for anyone to read, or None."""
        if not self.ready:
            return "not accepting connections: the server is starting or shutting down"
        if self._log.unavailable is not None:
            return LOG_UNAVAILABLE
        return None if self.detailed_problem is None else NODE_FAILS

    @property
    def detailed_problem(self) -> str | None:
        """Why the log, the periodic checks or the notes of nodes fail, for operators: with addresses and paths."""
        if self._fan_out is None:
            return self._log.unavailable
        return self._log.unavailable or self._checks.problem or self._people.nodes.problem

    @property
    def node_id(self) -> str:
        """Names this run among the nodes of the log. The ids of its connections begin with it. Raises NotRunning."""
        self._running  # noqa: B018  # raises NotRunning
        return self._node_id

    @property
    def epoch(self) -> str:
        """The epoch of the log. Raises NotRunning unless the manager is running."""
        return self.window.epoch

    @property
    def window(self) -> Window:
        """The retained messages. Raises NotRunning unless the manager is running."""
        return self._running.window

    async def broadcast(
        self,
        message: Mapping[str, Any],
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
    ) -> Message:
        """Publish ``{"type": str, "data"?: any, ...}``, by default to everyone. The same as ``publish``."""
        return await self.publish(message, users=users, topics=topics)

    async def send_message(self, connection_id: str, message: Mapping[str, Any]) -> Message:
        """Publish a message to the *user* of a connection, including that user's other and future connections.

        Return it stamped. Publishes nothing if it raises UnknownConnection or InvalidMessage.
        """
        return await self.publish(message, users=[self._connection(connection_id).identity.user_id])

    async def emit(
        self,
        type: str | BaseModel,
        data: object = ...,
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
    ) -> Message:
        """Publish ``{"type": type, "data": data}``; return it stamped. Raises InvalidMessage.

        Without ``data`` the message has none; ``None`` is null. ``type`` may be a Pydantic model instead: its fields
        are the data, and its class names the type, as registered with ``event``, or else by its name.
        """
        if isinstance(type, BaseModel):
            if data is not ...:
                raise InvalidMessage("a model is the data: pass emit(model) alone")
            message = self.events.message_of(type)
        else:
            message = {"type": type} if data is ... else {"type": type, "data": data}
        return await self.publish(message, users=users, topics=topics)

    async def publish(
        self,
        message: Mapping[str, Any],
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
    ) -> Message:
        """Publish a message to ``users`` and to whoever follows one of the ``topics``; return it stamped.

        Each may also be in the message. Without both, it is for everyone. Raises InvalidMessage (no number is used),
        NotRunning, Draining, or WrongThread outside the manager's loop.
        """
        publication = await self.publish_batch([addressed(message, users=users, topics=topics)])
        return publication.messages[0]

    async def publish_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        publisher: str | None = None,
    ) -> Publication:
        """Publish messages as one block of contiguous numbers. If one message is refused, none is published.

        Repeating an ``idempotency_key`` with the same messages publishes nothing and returns the first receipt. A key
        belongs to the application, or to the user whose id is ``publisher``; each has a share of the keys that are
        known at a time. Raises IdempotencyConflict when the messages are others, TooManyRequests when the share is used
        up, and Draining when the server is shutting down and nobody would receive them. Raises LogUnavailable when the
        log has not stored them after ``publish_seconds``.
        """
        self._check_accepting(_OTHER_THREADS)
        drafts = await drafts_of(
            messages, max_message_bytes=self.settings.max_message_bytes, retention=self.window.retention
        )
        # The manager may have stopped while they were built.
        self._check_accepting(_OTHER_THREADS)
        key = None if idempotency_key is None else key_of_user(publisher, idempotency_key)
        measures = self.measures
        publishing = self._log.publish(drafts, idempotency_key=key)
        publication = await self._in_time(publishing, otherwise="the log did not store the message in time")
        measures.published += len(publication.messages)
        return publication

    def publish_threadsafe(
        self,
        message: Mapping[str, Any],
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Publish from another thread, such as that of a synchronous route; return the message once it is stamped.

        Messages from one thread keep their order. Raises what ``publish`` raises, and TimeoutError after ``timeout``
        seconds. On the event loop itself it raises WrongThread: use ``await manager.publish(message)`` there.
        """
        if self._fan_out is None:
            raise NotRunning
        if _running_loop() is self._loop:
            raise WrongThread(right_call="'await manager.publish(message)'")
        return asyncio.run_coroutine_threadsafe(self.publish(message, users=users, topics=topics), self._loop).result(
            timeout
        )

    def recover(self, since: int, *, epoch: str | None = None) -> Recovery:
        """Return the retained messages after a position, whatever their audience. Raises NotRunning if not running.

        Without ``epoch``, only the number is checked. Check ``visible`` before showing a message to a user.
        """
        return self.window.recover(since, now=self._clock(), epoch=epoch)

    def is_behind(self, since: int | None) -> bool:
        """Return whether a position may be one of this log that this node has not reached yet: ``catch_up`` tells."""
        return since is not None and since > self.window.latest and self._log.channel is not None

    async def catch_up(self, since: int | None) -> None:
        """Wait until this node has what a client that comes from another node has seen.

        Raises LogUnavailable if that is not known after ``publish_seconds``.
        """
        if since is not None and self.is_behind(since):
            await self._in_time(self._log.catch_up(since), otherwise="this node is behind the others")

    def page(
        self,
        since: int,
        *,
        user_id: str,
        topics: Iterable[str] = (),
        epoch: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Return the first messages after a position that this user sees: at most 1 MiB, and ``limit`` messages.

        ``topics`` are those that the user follows. At least one message is returned if there is one. Raises NotRunning
        before the start.
        """
        keys = keys_of(user_id, topics)
        return self.window.page(since, keys=keys, now=self._clock(), epoch=epoch, max_messages=limit)

    def get_messages_since(
        self, since: int, *, user_id: str | None = None, topics: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the retained messages after ``since`` that everyone, this user or followers of these topics see.

        Raises InvalidTopic for one string in place of a list of topics.
        """
        keys = keys_of(user_id or "", topics)
        self.window.expire(self._clock())
        _, start = self.window.locate(since)
        return [message.as_dict() for message in self.window.visible_after(start, keys)]

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections to this node that are open now."""
        return () if self._fan_out is None else tuple(self._fan_out.connections)

    def connections_of(self, user_id: str) -> tuple[Connection, ...]:
        """Return the open connections of a user to this node. Raises NotRunning unless the manager is running."""
        return self._running.connections.of_user(user_id)

    async def users(self, topic: str | None = None) -> dict[str, int]:
        """Return who is connected to any node, or follows a topic now: the number of connections by user id.

        Nodes that do not answer within a second are left out. Raises NotRunning, and LogUnavailable if the nodes cannot
        reach each other.
        """
        return await self._everybody.users(topic)

    async def followers(self, topic: str, *, limit: int) -> Followers:
        """Return the first ``limit`` users, alphabetically, that follow a topic now, on all nodes, and how many do.

        Questions at the same time share one answer of the other nodes. Raises what ``users`` raises.
        """
        return await self._everybody.presence.of(topic, limit=limit)

    async def connections_page(
        self, *, after: str = "", limit: int, user_id: str | None = None
    ) -> list[ConnectionInfo]:
        """Return the first ``limit`` connections to any node, of one user if given, above the id ``after``, by id."""
        return await self._everybody.listed(after=after, limit=limit, user_id=user_id)

    @property
    def measures(self) -> Measures:
        """Counters since the start. Raises NotRunning unless the manager is running."""
        return self._running.measures

    @property
    def log_reach(self) -> float:
        """Age in seconds of the oldest message in the log. Raises NotRunning unless the manager is running."""
        return self.window.reach(self._clock())

    def connect(
        self,
        socket: Socket,
        *,
        identity: Identity,
        since: int | None = None,
        epoch: str | None = None,
        topics: Iterable[str] | None = None,
        authorized: frozenset[str] | None = None,
        access: Access = _NO_RIGHTS,
        client: str | None = None,
        transport: str = "websocket",
        max_seconds: float = math.inf,
    ) -> Connection:
        """Deliver to an accepted socket: first the messages that it missed after ``since``, then every new one.

        Without ``since``, delivery starts with the next message. The connection follows ``topics``, by default all that
        the identity grants by name. ``access`` says how its client may renew its token, and who decides about topics
        that it follows later. ``authorized`` are those of the topics that ``access`` has authorized, if it does that.
        ``client`` is its address, and ``transport`` a name for operators. After at most ``max_seconds``, the client is
        asked to reconnect. If InvalidToken, InvalidTopic, TopicRefused, NotRunning, Draining, WrongThread or
        TooManyConnections is raised, the socket is unchanged.
        """
        self._check_accepting("the event loop that the manager was started on")
        self.hooks.check_room()
        self._log.expire()
        subscription = Subscription(
            identity,
            granted_topics(topics, identity.topics) if authorized is None else authorized,
            chose_topics=topics is not None,
            since=since,
            epoch=epoch,
            client=client,
        )
        return self._running.connect(
            socket,
            subscription,
            expires_at=self._admit(identity),
            access=access,
            transport=transport,
            max_seconds=max_seconds,
        )

    def check_capacity(self, user_id: str) -> None:
        """Raise what would refuse another connection of this user now: NotRunning, Draining or TooManyConnections."""
        self._check_accepting("the event loop that the manager was started on")
        self.hooks.check_room()
        self._running.connections.check_limits(user_id, now=self._clock())

    def count_request(self, identity: Identity) -> None:
        """Count a request that comes without a connection against the rate of its user.

        Raises TooManyRequests over ``UNMISSED_CLIENT_RATE``, NotRunning or Draining.
        """
        self._check_accepting("the event loop that the manager was started on")
        self._requests.count(identity.user_id)

    async def run_command(self, identity: Identity, command: Command) -> bytes:
        """Run a command that comes without a connection, and return the ``result`` or ``error`` frame that answers it.

        Its data is compact JSON. Call ``count_request`` before, so that the rate of its user includes it.

        A repeated id returns the first answer, whether it came over HTTP or a WebSocket. Raises CommandError, also
        if the id was used for another command or its answer is forgotten, TooManyRequests, NotRunning or Draining.
        """
        self._check_accepting("the event loop that the manager was started on")
        return await self._requests.run(identity, command)

    def disconnect(self, connection_id: str, *, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close a connection from the server's side, unless it is gone already."""
        with contextlib.suppress(UnknownConnection):
            self._running.connections[connection_id].close(code, reason)

    async def log_out(self, user_id: str) -> int:
        """Close the connections of a user to any node with code 4401, and refuse the tokens issued up to now.

        Return how many were closed. What is refused is forgotten when all nodes have stopped. If LogUnavailable is
        raised, only this node is certain to know it.

        Each node compares ``issued_at`` with its own clock, and with the newest token that the user is known to have. A
        token whose ``issued_at`` is a whole second is refused, too, if it is issued later in the second of the logout.
        Without ``issued_at``, a token is refused if it expires within an hour, or if a closed connection has used it.
        An identity without ``expires_at``, too, cannot be refused: its connections are closed, and the application must
        end its session.
        """
        return await self._everybody.log_out(user_id)

    async def log_out_connection(self, connection_id: str) -> None:
        """Close a connection to any node with code 4401, and refuse the tokens that it has used.

        Other connections with these tokens are closed, too. A token is recognized by its user, ``issued_at`` and
        ``expires_at``: without both times, it is not refused. Raises UnknownConnection. If LogUnavailable is raised, at
        most this node knows about it.
        """
        await self._everybody.log_out_connection(connection_id)

    async def reconnect(self, connection_id: str) -> None:
        """Close a connection to any node with code 1012: its client reconnects. Raises UnknownConnection."""
        await self._everybody.reconnect(connection_id)

    def check_identity(self, identity: Identity) -> None:
        """Raise InvalidToken if the user, or the token, was logged out."""
        self._revocations.check(identity)

    def drain(self, *, seconds: float) -> None:
        """Ask every client to reconnect after a random delay of at most ``seconds``, and close all connections.

        From then on, new connections and new messages are refused with Draining.
        """
        self._draining = True
        self._running.drain(seconds=seconds)

    def check(self) -> None:
        """Run the periodic tasks: expire messages, send heartbeats, close stalled and expired connections.

        The running manager does this about once a second, for a few connections at a time.
        """
        self._running  # noqa: B018  # raises NotRunning
        self._checks.run_once()

    def _admit(self, identity: Identity) -> float:
        """Return when an identity expires, in monotonic seconds. Raises InvalidToken if it was logged out."""
        self._revocations.check(identity)
        return self._monotonic(identity.expires_at)

    def _monotonic(self, unix_time: float | None) -> float:
        """Convert the expiry of a token to monotonic time, so that clock adjustments do not matter."""
        if unix_time is None:
            return math.inf
        return self._clock() + unix_time - self._wall_clock() + self.settings.token_leeway

    @property
    def _running(self) -> FanOut:
        if self._fan_out is None:
            raise NotRunning
        return self._fan_out

    def _connection(self, connection_id: str) -> Connection:
        """Return a connection to this node. Raises UnknownConnection, which says if it is one of another node."""
        try:
            return self._running.connections[connection_id]
        except UnknownConnection:
            node = connection_id.partition(".")[0]
            raise UnknownConnection(connection_id, node=node if node in self._people.nodes.others else None) from None

    @property
    def _everybody(self) -> People:
        self._running  # noqa: B018  # raises NotRunning
        return self._people

    async def _in_time(self, work: Awaitable[_Result], *, otherwise: str) -> _Result:
        """Return what the log returns. Raise LogUnavailable after ``publish_seconds``, for the reason that it gives."""
        try:
            async with asyncio.timeout(self.settings.publish_seconds):
                return await work
        except TimeoutError:
            raise LogUnavailable(self._log.unavailable or otherwise) from None

    def _note_key(self) -> bytes:
        """Return the key that authenticates notes between nodes. Without a secret, anyone can send them."""
        key = self.settings.node_key()
        if key is None and self._log.channel is not None:
            logger.warning(
                "anyone who can send to the engine of the log can log users out: set UNMISSED_NODE_SECRET, to the same "
                "value on all nodes (openssl rand -base64 48)"
            )
        return key or b""

    def _check_accepting(self, right_call: str) -> None:
        if self._fan_out is None:
            raise NotRunning
        if _running_loop() is not self._loop:
            raise WrongThread(right_call=right_call)
        if self._draining:
            raise Draining

    def _limits(self) -> Limits:
        settings = self.settings
        return Limits(
            heartbeat_seconds=settings.heartbeat_seconds,
            stall_seconds=settings.stall_seconds,
            max_connections=settings.max_connections,
            max_connections_per_user=settings.max_connections_per_user,
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
