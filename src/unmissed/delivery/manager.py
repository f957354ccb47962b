"""ConnectionManager: takes messages and clients, and brings them together."""

import asyncio
import contextlib
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from unmissed.core import wire
from unmissed.core.audience import Identity, visible
from unmissed.core.errors import Draining, InvalidMessage, MessageTooLarge, NotRunning, WrongThread
from unmissed.core.messages import Draft, Message
from unmissed.core.window import Recovery, Window
from unmissed.core.wire import CloseCode
from unmissed.delivery.connection import Connection
from unmissed.delivery.fanout import FanOut
from unmissed.delivery.registry import Registry
from unmissed.delivery.slices import Slices
from unmissed.delivery.socket import Socket
from unmissed.logs.base import Log, Publication
from unmissed.logs.memory import MemoryLog
from unmissed.settings import Settings

_CHECK_SECONDS = 1.0
_GOING_DOWN = "the server is going down: come back soon"


class ConnectionManager:
    """Stamps every message once, keeps the newest, and brings every connection up to date.

    It belongs to one event loop: enter it there with ``async with manager:``, or give ``manager.lifespan`` to the
    application. Only ``publish_threadsafe`` may be called from elsewhere.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Use these settings, or those of the environment, and keep messages in this process unless given a log.

        ``clock`` gives monotonic seconds and decides about ages; ``wall_clock`` gives Unix seconds, for timestamps
        and token expiry. Raises ConfigurationError.
        """
        self.settings = settings or Settings.load()
        self._log: Log = log or MemoryLog(retention=self.settings.retention(), clock=clock, wall_clock=wall_clock)
        self._clock = clock
        self._wall_clock = wall_clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registry = self._new_registry()

    async def __aenter__(self) -> Self:
        """Start a new life of the log on the running event loop. Raises ConfigurationError if it cannot work."""
        loop = asyncio.get_running_loop()
        await self._log.start(appended=self._appended)
        self._registry = self._new_registry()
        self._slices = Slices(self.window)
        self._fan_out = FanOut(self._registry, self.window, loop=loop)
        self._draining = False
        self._checks = loop.create_task(self._check_for_ever())
        self._loop = loop
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection with 1012 and end this life of the log."""
        self._loop = None
        self._fan_out.stop()
        self._checks.cancel()
        for connection in self._registry:
            connection.close(CloseCode.SERVICE_RESTART, _GOING_DOWN)
        await self._log.stop()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002  # ASGI frameworks pass it
        """Run the manager as an ASGI application's lifespan: ``FastAPI(lifespan=manager.lifespan)``."""
        async with self:
            yield

    @property
    def ready(self) -> bool:
        """Whether connections and messages are taken: it is running and not draining."""
        return self._loop is not None and not self._draining

    @property
    def epoch(self) -> str:
        """The name of this life of the log."""
        return self._log.epoch

    @property
    def window(self) -> Window:
        """The retained messages."""
        return self._log.window

    async def broadcast(self, message: Mapping[str, Any]) -> Message:
        """Publish ``{"type": str, "data"?: any, ...}`` to everyone; return it stamped. Raises InvalidMessage."""
        return await self.publish(message)

    async def send_message(self, connection_id: str, message: Mapping[str, Any]) -> Message:
        """Publish a message to the *user* of a connection, whose other and later connections get it too.

        Return it stamped. Raises UnknownConnection or InvalidMessage; then nothing was published.
        """
        return await self.publish(message, users=[self._registry[connection_id].identity.user_id])

    async def emit(self, type: str, data: object = None) -> Message:
        """Publish ``{"type": type, "data": data}`` to everyone; return it stamped. Raises InvalidMessage."""
        return await self.publish({"type": type, "data": data})

    async def publish(self, message: Mapping[str, Any], *, users: Iterable[str] | None = None) -> Message:
        """Publish a message to these users, or as its own ``users`` say, or to everyone; return it stamped.

        Raises InvalidMessage, and then no number was used; NotRunning; WrongThread outside the manager's loop.
        """
        if isinstance(users, str):
            raise InvalidMessage("users is a list of user ids, not one string: write users=[user_id]")
        fields = message if users is None else {**message, "users": list(users)}
        publication = await self.publish_batch([fields])
        return publication.messages[0]

    async def publish_batch(
        self, messages: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> Publication:
        """Publish messages as one block of contiguous numbers: all of them or, if one is refused, none.

        The same ``idempotency_key`` again publishes nothing and returns the first receipt. Raises Draining when the
        server is going down and nobody would get them.
        """
        self._require_own_loop("manager.publish_threadsafe(message)")
        if self._draining:
            raise Draining
        drafts = self._drafts(messages)
        self._fan_out.make_room(drafts)
        publication = await self._log.publish(drafts, idempotency_key=idempotency_key)
        await self._fan_out.give_way()
        return publication

    def publish_threadsafe(
        self, message: Mapping[str, Any], *, users: Iterable[str] | None = None, timeout: float | None = None
    ) -> Message:
        """Publish from a thread, such as a synchronous route; wait until it is stamped, and return it.

        One caller's messages keep their order. Raises what ``publish`` raises, and TimeoutError after ``timeout``
        seconds. On the event loop itself it raises WrongThread: there, ``await manager.publish(message)``.
        """
        loop = self._loop
        if loop is None:
            raise NotRunning
        if _running_loop() is loop:
            raise WrongThread(right_call="'await manager.publish(message)'")
        return asyncio.run_coroutine_threadsafe(self.publish(message, users=users), loop).result(timeout)

    def recover(self, since: int, *, epoch: str | None = None) -> Recovery:
        """Return what the log holds after a position, for whatever audience; without ``epoch`` numbers alone decide.

        Whoever shows it to somebody asks ``visible`` about each message first.
        """
        return self.window.since(since, now=self._clock(), same_epoch=epoch in (None, self.epoch))

    def get_messages_since(self, since: int, *, user_id: str | None = None) -> list[dict[str, Any]]:
        """Return the retained messages after ``since`` that are for everyone and, if one is given, for this user."""
        messages = self.recover(since).messages
        return [message.as_dict() for message in messages if visible(message.audience, user_id)]

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections that are open now."""
        return tuple(self._registry)

    def connect(
        self, socket: Socket, *, identity: Identity, since: int | None = None, epoch: str | None = None
    ) -> Connection:
        """Take over an accepted WebSocket: greet it, send what it missed after ``since``, then everything new.

        Without ``since`` it starts with what is published next. Raises NotRunning, Draining or TooManyConnections;
        the socket is then as it was.
        """
        self._require_own_loop("the event loop that the manager was started on")
        if self._draining:
            raise Draining
        self._registry.require_room(identity.user_id)
        now = self._clock()
        self._log.expire()
        window = self.window
        outcome, start = None, window.latest
        if since is not None:
            outcome, start = window.locate(since, same_epoch=epoch in (None, self.epoch))
        connection = Connection(
            secrets.token_urlsafe(9),
            identity=identity,
            socket=socket,
            slices=self._slices,
            position=start,
            expires_at=self._monotonic(identity.expires_at),
            closed=self._registry.remove,
        )
        self._registry.add(connection)
        greeting = wire.connected(
            connection_id=connection.id,
            epoch=self.epoch,
            oldest=window.oldest,
            latest=window.latest,
            outcome=outcome,
            start=start,
        )
        # The first heartbeat comes at a random moment, so that clients who came together do not stay in step.
        heartbeat_at = now + self.settings.heartbeat_seconds * random.random()
        connection.open(greeting, heartbeat=since is not None, heartbeat_at=heartbeat_at)
        return connection

    def disconnect(self, connection_id: str, *, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close a connection from the server's side. Raises UnknownConnection."""
        self._registry[connection_id].close(code, reason)

    def drain(self, *, seconds: float) -> None:
        """Send everyone away, to come back at random moments within ``seconds``, and take nobody new."""
        self._draining = True
        for connection in self._registry:
            connection.say(wire.reconnect(after_ms=round(random.uniform(0, seconds) * 1000)))
            connection.close(CloseCode.SERVICE_RESTART, _GOING_DOWN)

    def check(self) -> None:
        """Do what is due now: expire messages, send heartbeats, end stalled and expired clients.

        The running manager does this by itself about once a second.
        """
        self._log.expire()
        now, settings = self._clock(), self.settings
        self._fan_out.for_each(
            lambda connection: connection.check(
                now, heartbeat_seconds=settings.heartbeat_seconds, stall_seconds=settings.stall_seconds
            )
        )

    async def _check_for_ever(self) -> None:
        pause = min(_CHECK_SECONDS, self.settings.heartbeat_seconds / 4, self.settings.stall_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            self.check()

    def _appended(self) -> None:
        self._fan_out.appended()

    def _drafts(self, messages: Sequence[Mapping[str, Any]]) -> list[Draft]:
        most = self.window.retention.max_messages
        if not 0 < len(messages) <= most:
            raise InvalidMessage(
                f"a batch has 1 to {most} messages, as many as the log keeps: this has {len(messages)}"
            )
        drafts = [Draft.of(message, max_bytes=self.settings.max_message_bytes) for message in messages]
        max_bytes = self.window.retention.max_bytes
        if sum(draft.size_in_log for draft in drafts) > max_bytes:
            raise MessageTooLarge("the batch, which the log could not hold,", limit=max_bytes)
        return drafts

    def _monotonic(self, unix_time: float | None) -> float:
        """Return a moment of the wall clock on the monotonic one, which later changes of the former do not move."""
        return math.inf if unix_time is None else self._clock() + unix_time - self._wall_clock()

    def _require_own_loop(self, right_call: str) -> None:
        if self._loop is None:
            raise NotRunning
        if _running_loop() is not self._loop:
            raise WrongThread(right_call=right_call)

    def _new_registry(self) -> Registry:
        return Registry(
            max_connections=self.settings.max_connections, max_per_user=self.settings.max_connections_per_user
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
