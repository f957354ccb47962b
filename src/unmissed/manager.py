"""ConnectionManager: publishes messages and delivers them to every connection."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from pydantic import BaseModel

from unmissed.application.registration import Registration
from unmissed.cluster.presence import Followers
from unmissed.cluster.presence_messages import PresenceState
from unmissed.core.audience import Identity, granted_topics, keys_of
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import AlreadyRunning, InvalidMessage, NotRunning, UnknownConnection, WrongThread
from unmissed.core.messages import Message, PublishOptions, Recipients, TransactionOptions, published
from unmissed.core.revocations import Revocations
from unmissed.core.server_frames import PRESENCE_TYPE
from unmissed.core.window import Page, Window
from unmissed.delivery.connection import Connection
from unmissed.delivery.socket import STALL_STATE, Socket
from unmissed.logs.base import Log, Publication
from unmissed.logs.urls import log_from_url
from unmissed.running import Clocks, Running
from unmissed.security.access import NO_RENEWAL, Access, Subscription
from unmissed.settings import Settings
from unmissed.tracing import TracedRun, Tracer
from unmissed.transactions.outbox import TransactionOutbox

LEAVE_SECONDS = 3.0
"""The most seconds that leaving a manager takes, whatever its hooks and its log do."""

LOG_SETTINGS = frozenset({"log_url", "max_messages", "max_bytes", "first_number"})
"""What configures the log at ``log_url``, and no other one."""

_started = ContextVar[list["ConnectionManager"] | None]("unmissed.started", default=None)

logger = logging.getLogger("unmissed")


@contextlib.contextmanager
def started_managers() -> Iterator[list["ConnectionManager"]]:
    """Collect the managers that are started within the context, and in tasks that are created within it.

    A server learns so which managers the lifespan of an application has started. The lifespan state would not name
    those that an application enters in a lifespan of its own.
    """
    started = list[ConnectionManager]()
    token = _started.set(started)
    try:
        yield started
    finally:
        _started.reset(token)


class ConnectionManager(Registration):
    """Stamps every message once, retains the newest messages, and delivers them to every connection.

    It belongs to one event loop: enter it there with ``async with manager:``, or pass ``manager.lifespan`` to the
    application. Only ``publish_threadsafe`` may be called from other threads. Unless the manager is running, everything
    but the decorators, ``settings``, ``ready`` and ``connections`` raises NotRunning.
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
        self._unused_settings = frozenset[str]() if log is None else LOG_SETTINGS
        self._log: Log = log or log_from_url(
            self.settings.log_url,
            retention=self.settings.log_retention(),
            first_number=None if self.settings.first_number == "clock" else self.settings.first_number,
            clock=clock,
            wall_clock=wall_clock,
            max_message_bytes=self.settings.max_message_bytes,
        )
        self._outbox = TransactionOutbox(self.settings)
        self._clocks = Clocks(clock, wall_clock)
        self._tracer = Tracer() if self.settings.trace else None
        self._revocations = Revocations(wall_clock=wall_clock)
        self._started = False
        """Set from the beginning of a start to the end of a stop."""
        self._running: Running | None = None
        if self.settings.presence:
            self.commands.add(PRESENCE_TYPE, self._set_presence)

    async def _set_presence(self, wanted: PresenceState, identity: Identity) -> None:
        await self.running.set_presence(identity.user_id, wanted)

    async def __aenter__(self) -> Self:
        """Open the log on the running event loop. Raises AlreadyRunning, or ConfigurationError if it cannot work.

        On a shared log, wait until the other nodes have sent the logouts that they know, or until nothing has arrived
        for a second.
        """
        # Before anything is awaited: of two starts at the same time, one is refused.
        if self._started:
            raise AlreadyRunning
        self._started = True
        try:
            async with contextlib.AsyncExitStack() as stack:
                window = await self._log.open()
                stack.push_async_callback(self._log.close)
                run = Running if self._tracer is None else partial(TracedRun, tracer=self._tracer)
                running = run(
                    window,
                    log=self._log,
                    settings=self.settings,
                    commands=self.commands,
                    hooks=self._hooks,
                    revocations=self._revocations,
                    clocks=self._clocks,
                    outbox=self._outbox,
                )
                running.unused_settings = self._unused_settings
                # Before the start, which may fail or be cancelled: the periodic checks run already.
                stack.push_async_callback(running.stop)
                await running.start()
                stack.pop_all()
        except BaseException:
            self._started = False
            raise
        # Not before: until it has heard the other nodes, this one would accept tokens that they refuse.
        self._running = running
        started = _started.get()
        if started is not None and self not in started:
            started.append(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with code 1012, wait for the hooks, then close the log, within three seconds."""
        # First: from now on, ``ready`` is false, and publishing and connecting raise NotRunning.
        running, self._running = self.running, None
        closes_at = running.loop.time() + LEAVE_SECONDS
        try:
            await running.stop()
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
    def running(self) -> Running:
        """What exists while the manager runs, for the routes that serve it."""
        if self._running is None:
            raise NotRunning
        return self._running

    @property
    def ready(self) -> bool:
        """Whether connections are accepted: the manager is running and not draining."""
        return self._running is not None and not self._running.draining

    @property
    def window(self) -> Window:
        """The retained messages. ``window.latest`` is the number of the newest, and ``window.epoch`` their epoch."""
        return self.running.window

    # Messages

    @overload
    async def broadcast(
        self, message: Mapping[str, Any], *, ephemeral: Literal[False] = False, **options: Unpack[PublishOptions]
    ) -> Message: ...

    @overload
    async def broadcast(
        self, message: Mapping[str, Any], *, ephemeral: Literal[True], **options: Unpack[Recipients]
    ) -> None: ...

    async def broadcast(
        self, message: Mapping[str, Any], *, ephemeral: bool = False, **options: Unpack[PublishOptions]
    ) -> Message | None:
        """Publish ``{"type": str, "data"?: any, ...}``, by default to everyone. The same as ``publish``."""
        return await self._publish(message, options, ephemeral=ephemeral)

    async def send_message(
        self, connection_id: str, message: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Message:
        """Publish a message to the *user* of a connection, including that user's other and future connections.

        Return it stamped. Publishes nothing if it raises UnknownConnection or InvalidMessage.
        """
        user_id = self.running.connection(connection_id).identity.user_id
        return await self.publish(message, users=[user_id], idempotency_key=idempotency_key)

    @overload
    async def emit(
        self,
        type: str | BaseModel,
        data: object = ...,
        *,
        ephemeral: Literal[False] = False,
        **options: Unpack[PublishOptions],
    ) -> Message: ...

    @overload
    async def emit(
        self, type: str | BaseModel, data: object = ..., *, ephemeral: Literal[True], **options: Unpack[Recipients]
    ) -> None: ...

    async def emit(
        self, type: str | BaseModel, data: object = ..., *, ephemeral: bool = False, **options: Unpack[PublishOptions]
    ) -> Message | None:
        """Publish ``{"type": type, "data": data}`` with the options of ``publish``; return it stamped.

        Without ``data`` the message has none; ``None`` is null. ``type`` may be a Pydantic model instead: its fields
        are the data, and its class names the type, as registered with ``event``, or else by its name. Raises what
        ``publish`` raises.
        """
        if isinstance(type, BaseModel):
            if data is not ...:
                raise InvalidMessage("a model is the data: pass emit(model) alone")
            message = self.events.message_of(type)
        else:
            message = {"type": type} if data is ... else {"type": type, "data": data}
        return await self._publish(message, options, ephemeral=ephemeral)

    @overload
    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: Literal[False] = False, **options: Unpack[PublishOptions]
    ) -> Message: ...

    @overload
    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: Literal[True], **options: Unpack[Recipients]
    ) -> None: ...

    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: bool = False, **options: Unpack[PublishOptions]
    ) -> Message | None:
        """Publish a message to ``users`` and to the followers of ``topics``; return it stamped.

        Without both, it is for everyone. With a ``key``, it is the value of this key, and replaces the earlier one with
        the same recipients; with ``append=True`` it adds a piece to the value, and with ``deleted=True`` it ends it. An
        ``ephemeral`` message has no number and is not stored: it is delivered to clients that are up to date now, after
        what was published before, and to no other. None is returned for it.

        Repeating an ``idempotency_key`` with the same message and recipients publishes nothing, and returns the first
        message: see ``publish_batch``. All but the last may also be in the message. Raises InvalidMessage (no number is
        used), NotRunning, Draining, LogUnavailable, or WrongThread outside the manager's loop; with an idempotency key,
        also IdempotencyConflict or TooManyRequests.
        """
        return await self._publish(message, options, ephemeral=ephemeral)

    async def _publish(self, message: Mapping[str, Any], options: PublishOptions, *, ephemeral: bool) -> Message | None:
        publication = await self.running.publish_batch(
            [_marked(published(message, options), ephemeral=ephemeral)], idempotency_key=options.get("idempotency_key")
        )
        return publication.messages[0] if isinstance(publication, Publication) else None

    @overload
    async def publish_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        publisher: str | None = None,
        ephemeral: Literal[False] = False,
    ) -> Publication: ...

    @overload
    async def publish_batch(self, messages: Iterable[Mapping[str, Any]], *, ephemeral: Literal[True]) -> None: ...

    async def publish_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        publisher: str | None = None,
        ephemeral: bool = False,
    ) -> Publication | None:
        """Publish messages as one block of contiguous numbers. If one message is refused, none is published.

        None is returned if all of them are ``ephemeral``: see ``publish``.

        Repeating an ``idempotency_key`` with the same messages publishes nothing and returns the first publication,
        ``repeated``: the key is known for at least ``max_age`` seconds, and on a log in memory until it ends. A key
        belongs to the application, or to the user whose id is ``publisher``; each has a share of the keys that are
        remembered. Raises IdempotencyConflict for other messages with the same key, TooManyRequests when the share is
        used up, Draining while the server shuts down, and LogUnavailable when the log has not stored the messages after
        ``publish_seconds``.
        """
        publication = await self.running.publish_batch(
            (_marked(message, ephemeral=ephemeral) for message in messages),
            idempotency_key=idempotency_key,
            publisher=publisher,
        )
        return publication if isinstance(publication, Publication) else None

    @overload
    def publish_threadsafe(
        self,
        message: Mapping[str, Any],
        *,
        ephemeral: Literal[False] = False,
        timeout: float | None = None,
        **options: Unpack[PublishOptions],
    ) -> Message: ...

    @overload
    def publish_threadsafe(
        self,
        message: Mapping[str, Any],
        *,
        ephemeral: Literal[True],
        timeout: float | None = None,
        **options: Unpack[Recipients],
    ) -> None: ...

    def publish_threadsafe(
        self,
        message: Mapping[str, Any],
        *,
        ephemeral: bool = False,
        timeout: float | None = None,
        **options: Unpack[PublishOptions],
    ) -> Message | None:
        """Publish from another thread, such as that of a synchronous route; return the message once it is stamped.

        Messages from one thread keep their order. Raises what ``publish`` raises, and TimeoutError after ``timeout``
        seconds: the message may have been published, and repeating it with its ``idempotency_key`` is safe. On the
        event loop itself it raises WrongThread: use ``await manager.publish(message)`` there.
        """
        running = self.running
        if running.is_own_loop:
            raise WrongThread(right_call="'await manager.publish(message)'")
        publishing = self._publish(message, options, ephemeral=ephemeral)
        return asyncio.run_coroutine_threadsafe(publishing, running.loop).result(timeout)

    async def publish_in(self, target: Any, message: Mapping[str, Any], **options: Unpack[TransactionOptions]) -> None:
        """Publish a message if, and only if, the transaction of ``target`` commits. It has no number before that.

        ``target`` is an AsyncSession or AsyncConnection of SQLAlchemy, or a connection of asyncpg or psycopg, to the
        database of the log (``UNMISSED_LOG_URL=postgresql://...``), or of ``UNMISSED_OUTBOX_URL``. A session is flushed
        first. Publish after the change that the message reports: then messages have the order of the changes of each
        row. Options are those of ``publish``, without ``idempotency_key`` and ``ephemeral``.

        It may be called in any thread, and while the manager does not run. Raises InvalidMessage, InvalidTarget or
        ConfigurationError, and executes nothing then; and the errors of the database.
        """
        await self._outbox.publish(target, message, options)

    def publish_in_sync(self, target: Any, message: Mapping[str, Any], **options: Unpack[TransactionOptions]) -> None:
        """Do the same in a Session or Connection of SQLAlchemy, or a connection of psycopg or Django."""
        self._outbox.publish_sync(target, message, options)

    async def position_in(self, target: Any) -> int:
        """Return the number of the latest message, as a transaction in the database of the log sees it.

        A state that is read in the same snapshot (REPEATABLE READ), or after this call, contains what messages up to
        this number report. A client that begins with both receives the later ones, and may see a change twice.
        Raises InvalidTarget or ConfigurationError.
        """
        return await self._outbox.position(target)

    def position_in_sync(self, target: Any) -> int:
        """Do the same in a Session or Connection of SQLAlchemy, or a connection of psycopg or Django."""
        return self._outbox.position_sync(target)

    def get_messages_since(
        self,
        since: int,
        *,
        user_id: str | None = None,
        topics: Iterable[str] = (),
        epoch: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Return the first retained messages after ``since`` that everyone, this user or followers of ``topics`` see.

        A page has at most 1 MiB and ``limit`` messages, but at least one if any is visible. While ``has_more``, ask
        again with the number of the last one. ``outcome`` shows whether any are lost. 0 is the start of the epoch, and
        without ``epoch`` only the number is checked. Raises InvalidTopic for one string in place of a list.
        """
        keys = keys_of(user_id or "", topics)
        return self.window.page(since, keys=keys, now=self._clocks.monotonic(), epoch=epoch, max_messages=limit)

    # People and their connections

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections to this node that are open now."""
        return () if self._running is None else tuple(self._running.connections)

    def connections_of(self, user_id: str) -> tuple[Connection, ...]:
        """Return the open connections of a user to this node."""
        return self.running.connections.of_user(user_id)

    async def users(self, topic: str | None = None) -> dict[str, int]:
        """Return the number of connections of each user to any node, or only of those that follow a topic now.

        Nodes that do not answer within a second are left out. Raises LogUnavailable if none can be reached.
        """
        return await self.running.cluster.presence.users(topic)

    async def followers(self, topic: str, *, limit: int) -> Followers:
        """Return the first ``limit`` users, alphabetically, that follow a topic now, on all nodes, and how many do.

        Questions at the same time share one answer of the other nodes. Raises what ``users`` raises.
        """
        return await self.running.cluster.presence.followers(topic, limit=limit)

    def connect(
        self,
        socket: Socket,
        *,
        identity: Identity,
        since: int | None = None,
        epoch: str | None = None,
        topics: Iterable[str] | None = None,
        client: str | None = None,
        access: Access = NO_RENEWAL,
    ) -> Connection:
        """Deliver to an accepted socket: first the messages that it missed after ``since``, then every new one.

        Without ``since``, delivery starts with the next message. The connection follows ``topics``, by default all that
        the identity grants by name. ``access`` renews the token of its client, and decides about topics that it follows
        later. ``client`` is its address. If InvalidToken, InvalidTopic, TopicRefused, NotRunning,
        Draining, WrongThread or TooManyConnections is raised, the socket is unchanged.
        """
        subscription = Subscription(
            identity,
            granted_topics(topics, identity.topics),
            chose_topics=topics is not None,
            since=since,
            epoch=epoch,
            client=client,
        )
        return self.running.connect(socket, subscription, access=access)

    def disconnect(self, connection_id: str, *, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close a connection from the server's side. Does nothing if it has ended already."""
        with contextlib.suppress(UnknownConnection):
            self.running.connections[connection_id].close(code, reason)

    async def log_out(self, user_id: str) -> int:
        """Close the connections of a user to any node with code 4401, and refuse the tokens issued up to now.

        Return how many were closed. The nodes keep logouts in memory: when all of them have stopped, the tokens are
        accepted again. If LogUnavailable is raised, only this node is certain to refuse them.

        Each node compares ``issued_at`` with its own clock, and with the newest token that the user is known to have. A
        token whose ``issued_at`` is a whole second is refused, too, if it is issued later in the second of the logout.
        Without ``issued_at``, a token is refused if it expires within an hour, or if a closed connection has used it.
        An identity with neither ``issued_at`` nor ``expires_at`` cannot be refused: its connections are closed, and the
        application must end its session.
        """
        return await self.running.cluster.logouts.log_out(user_id)

    async def log_out_connection(self, connection_id: str) -> None:
        """Close a connection to any node with code 4401, and refuse the tokens that it has used.

        Other connections with these tokens are closed, too. A token is recognized by its user, ``issued_at`` and
        ``expires_at``: a token with neither of these times is not refused. Raises UnknownConnection. If LogUnavailable
        is raised, at most this node has done it.
        """
        await self.running.cluster.logouts.log_out_connection(connection_id)

    def check_identity(self, identity: Identity) -> None:
        """Raise InvalidToken if the user, or the token, was logged out. Works also while the manager is not running."""
        self._revocations.check(identity)

    async def reconnect(self, connection_id: str) -> None:
        """Close a connection to any node with code 1012: its client reconnects. Raises UnknownConnection."""
        await self.running.cluster.logouts.reconnect(connection_id)


def _marked(message: Mapping[str, Any], *, ephemeral: bool) -> Mapping[str, Any]:
    """Return a message, with the field ``ephemeral`` if it is. What is returned for it must be known before."""
    if ephemeral:
        return {**message, "ephemeral": True} if isinstance(message, Mapping) else message
    if isinstance(message, dict | Mapping) and message.get("ephemeral"):
        raise InvalidMessage("an ephemeral message is published with manager.publish(message, ephemeral=True)")
    return message
