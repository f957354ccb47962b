"""ConnectionManager: publishes messages and delivers them to every connection."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from unmissed.core.audience import Identity, keys_of, topic_key
from unmissed.core.errors import (
    AlreadyRunning,
    Draining,
    InvalidMessage,
    MessageTooLarge,
    NotRunning,
    UnknownConnection,
    WrongThread,
)
from unmissed.core.messages import Draft, Message
from unmissed.core.window import Page, Recovery, Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.backpressure import Backpressure
from unmissed.delivery.connection import Connection, Renewal
from unmissed.delivery.fanout import FanOut, Limits
from unmissed.delivery.socket import Socket
from unmissed.delivery.throttle import Throttle
from unmissed.logs.base import Log, Publication
from unmissed.logs.urls import log_from_url
from unmissed.settings import Settings

_CHECK_SECONDS = 1.0
_OTHER_THREADS = "manager.publish_threadsafe(message)"
_SLICE_SECONDS = 0.005
_CHECK_PARTS = 5


class ConnectionManager:
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
        self._fan_out: FanOut | None = None
        """Set while the manager runs."""

    async def __aenter__(self) -> Self:
        """Open the log on the running event loop. Raises AlreadyRunning, or ConfigurationError if it cannot work."""
        if self._fan_out is not None:
            raise AlreadyRunning
        self._loop = asyncio.get_running_loop()
        window = await self._log.open()
        self._draining = False
        self._fan_out = FanOut(window, limits=self._limits())
        self._throttle = Throttle(self._fan_out, loop=self._loop)
        self._backpressure = Backpressure(self._fan_out, self._throttle)
        self._log.subscribe(self._throttle.request)
        self._checks = self._loop.create_task(self._check_periodically())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with code 1012, then close the log."""
        fan_out, self._fan_out = self._running, None
        self._throttle.stop()
        self._checks.cancel()
        fan_out.close()
        await self._log.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002  # ASGI frameworks pass it
        """Run the manager as the lifespan of an ASGI application: ``FastAPI(lifespan=manager.lifespan)``."""
        async with self:
            yield

    @property
    def ready(self) -> bool:
        """Whether connections and messages are accepted: the manager is running and not draining."""
        return self._fan_out is not None and not self._draining

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
        return await self.publish(message, users=[self._running.connections[connection_id].identity.user_id])

    async def emit(
        self,
        type: str,
        data: object = ...,
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
    ) -> Message:
        """Publish ``{"type": type, "data": data}``; return it stamped. Raises InvalidMessage.

        Without ``data`` the message has none; ``None`` is null.
        """
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
        publication = await self.publish_batch([_addressed(message, users=users, topics=topics)])
        return publication.messages[0]

    async def publish_batch(
        self, messages: Iterable[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> Publication:
        """Publish messages as one block of contiguous numbers. If one message is refused, none is published.

        Repeating an ``idempotency_key`` with the same messages publishes nothing and returns the first receipt. Raises
        IdempotencyConflict when they are others, and Draining when the server is shutting down and nobody would receive
        them.
        """
        self._check_accepting(_OTHER_THREADS)
        drafts = await self._drafts(messages)
        # The manager may have stopped while they were built.
        self._check_accepting(_OTHER_THREADS)
        await self._backpressure.before_append(drafts)
        return await self._log.publish(drafts, idempotency_key=idempotency_key)

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
        """Return the retained messages after ``since`` that everyone, this user or followers of these topics see."""
        keys = keys_of(user_id, topics) if user_id is not None else frozenset(map(topic_key, topics))
        self.window.expire(self._clock())
        _, start = self.window.locate(since)
        return [message.as_dict() for message in self.window.visible_after(start, keys)]

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections that are open now."""
        return () if self._fan_out is None else tuple(self._fan_out.connections)

    def connect(
        self,
        socket: Socket,
        *,
        identity: Identity,
        since: int | None = None,
        epoch: str | None = None,
        topics: Iterable[str] | None = None,
        renew: Renewal | None = None,
    ) -> Connection:
        """Deliver to an accepted WebSocket: first the messages that it missed after ``since``, then every new one.

        Without ``since``, delivery starts with the next message. The connection follows ``topics``, by default all that
        the identity grants by name. With ``renew``, from ``renewal``, its client may renew its token. If InvalidTopic,
        TopicRefused, NotRunning, Draining, WrongThread or TooManyConnections is raised, the socket is unchanged.
        """
        self._check_accepting("the event loop that the manager was started on")
        self._log.expire()
        return self._running.connect(
            socket,
            identity=identity,
            topics=topics,
            since=since,
            epoch=epoch,
            expires_at=self._monotonic(identity.expires_at),
            renew=renew,
            now=self._clock(),
        )

    def renewal(self, verify: Callable[[str], Identity]) -> Renewal:
        """Return what ``connect`` needs so that clients may renew their tokens, from a function that verifies them."""

        def renew(token: str) -> tuple[Identity, float]:
            identity = verify(token)
            return identity, self._monotonic(identity.expires_at)

        return renew

    def disconnect(self, connection_id: str, *, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close a connection from the server's side, unless it is gone already."""
        with contextlib.suppress(UnknownConnection):
            self._running.connections[connection_id].close(code, reason)

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
        self._log.expire()
        self._check(self.connections)

    def _check(self, connections: Iterable[Connection]) -> None:
        unix_time = self._wall_clock() - self.settings.token_leeway
        self._running.check(connections, self._clock(), unix_time=unix_time)

    async def _check_periodically(self) -> None:
        seconds = min(_CHECK_SECONDS, self.settings.heartbeat_seconds / 4, self.settings.stall_seconds / 4)
        while True:
            self._log.expire()
            connections = self.connections
            for part in range(_CHECK_PARTS):
                await asyncio.sleep(seconds / _CHECK_PARTS)
                self._check(connections[part::_CHECK_PARTS])

    async def _drafts(self, messages: Iterable[Mapping[str, Any]]) -> list[Draft]:
        """Check and encode the messages, and let others run after each slice of time."""
        retention, drafts, size = self.window.retention, list[Draft](), 0
        pause_at = self._loop.time() + _SLICE_SECONDS
        for message in messages:
            drafts.append(Draft.of(message, max_bytes=self.settings.max_message_bytes))
            size += drafts[-1].size_in_log
            if size > retention.max_bytes:
                raise MessageTooLarge("the batch, which must fit in the log,", limit=retention.max_bytes)
            if len(drafts) > retention.max_messages:
                break
            if self._loop.time() >= pause_at:
                await asyncio.sleep(0)
                pause_at = self._loop.time() + _SLICE_SECONDS
        if not 0 < len(drafts) <= retention.max_messages:
            raise InvalidMessage(f"a batch has 1 to {retention.max_messages} messages, as many as the log retains")
        return drafts

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


def _addressed(
    message: Mapping[str, Any], *, users: Iterable[str] | None, topics: Iterable[str] | None
) -> Mapping[str, Any]:
    """Return the message with its recipients. Raises InvalidMessage for one string in place of a list."""
    for name, value in (("users", users), ("topics", topics)):
        if isinstance(value, str):
            raise InvalidMessage(f"{name} is a list of names, not one string: write {name}=[{value!r}]")
        if value is not None:
            message = {**message, name: list(value)}
    return message


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
