"""Hooks: functions of the application that are called when clients connect, follow topics and disconnect."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from unmissed.application.threads import FairThreads
from unmissed.core.audience import Identity
from unmissed.core.errors import TooManyConnections
from unmissed.core.reader import TopicChange
from unmissed.delivery.connection import Connection
from unmissed.security.redaction import redact
from unmissed.tasks import is_being_cancelled

logger = logging.getLogger("unmissed")

MAX_RUNNING = 1_000
"""Connections whose hooks run at the same time. Those of further connections wait."""

MAX_WAITING = 100_000
"""Events that may wait for slow hooks, about 500 bytes each. Beyond that, no new connections are accepted."""

HOOK_THREADS = 8


@dataclass(frozen=True, slots=True)
class Connected:
    """A client has connected."""

    connection_id: str
    identity: Identity
    topics: frozenset[str]
    """The topics that it follows at the start."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A client has disconnected, or was disconnected."""

    connection_id: str
    identity: Identity
    code: int
    """The close code: the server's if it closed the connection, else the client's; 1006 for a lost connection."""
    reason: str
    seconds: float
    """How long it was connected."""
    behind: int
    """How many sequence numbers its position was behind the latest message."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A client has begun to follow topics: when it connected, with ``follow``, or with another token."""

    connection_id: str
    identity: Identity
    topics: frozenset[str]
    """Those that are new. ``Connection.topics`` has all."""


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """A client has stopped following topics: with ``unfollow``, with another token, or because it has disconnected."""

    connection_id: str
    identity: Identity
    topics: frozenset[str]


@dataclass(slots=True)
class TopicsChanged:
    """What one connection has begun and stopped to follow since its last change that hooks were called for."""

    connection_id: str
    identity: Identity
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    def merge(self, identity: Identity, change: TopicChange) -> None:
        """Add a later change. What it takes back is no change."""
        self.identity = identity
        self.added, self.removed = (
            (self.added - change.removed) | (change.added - self.removed),
            (self.removed - change.added) | (change.removed - self.added),
        )


HookEvent = Connected | TopicsChanged | Disconnected
ConnectHook = Callable[[Connected], object]
DisconnectHook = Callable[[Disconnected], object]
FollowHook = Callable[[Followed], object]
UnfollowHook = Callable[[Unfollowed], object]


class Hooks:
    """The hooks of one application. They run in background tasks, in order for each connection."""

    def __init__(self, *, max_running: int = MAX_RUNNING, max_waiting: int = MAX_WAITING) -> None:
        self.on_connect: list[ConnectHook] = []
        self.on_disconnect: list[DisconnectHook] = []
        self.on_follow: list[FollowHook] = []
        self.on_unfollow: list[UnfollowHook] = []
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting = deque[HookEvent]()
        self._calling: dict[str, deque[HookEvent]] = {}
        """By id of each connection whose hooks run: its further events, in their order."""
        self._changes: dict[str, TopicsChanged] = {}
        """By id of its connection: each change of topics that waits, so that further ones are merged into it."""
        self.watch_topics: Callable[[], None] = lambda: None
        """Is called when a hook for topics is added."""
        self._workers = set[asyncio.Task[None]]()
        self._threads: FairThreads | None = None

    def check_room(self) -> None:
        """Raise TooManyConnections if no more events may wait: another connection would add some."""
        if len(self._waiting) >= self._max_waiting:
            raise TooManyConnections("the hooks of the application are too slow: reconnect later")

    def connected(self, event: Connected) -> None:
        """Call the hooks for a new connection."""
        self._add(event)

    def disconnected(self, event: Disconnected) -> None:
        """Call the hooks for the end of a connection."""
        self._add(event)

    def topics_changed(self, connection_id: str, identity: Identity, change: TopicChange) -> None:
        """Call the hooks for a change of the topics that a connection follows, or for several that wait as for one.

        So a client that follows and unfollows topics all the time takes no more memory, however slow the hooks are.
        """
        waiting = self._changes.get(connection_id)
        if waiting is None:
            waiting = self._changes[connection_id] = TopicsChanged(connection_id, identity)
            self._add(waiting)
        waiting.merge(identity, change)

    async def finish(self, *, seconds: float) -> None:
        """Give the hooks ``seconds`` to run. Then cancel those that are running, and log how many did not run."""
        workers = tuple(self._workers)
        late = (await asyncio.wait(workers, timeout=seconds))[1] if workers else ()
        missed = len(self._waiting) + sum(map(len, self._calling.values()))
        self._waiting.clear()
        self._changes.clear()
        for worker in late:
            worker.cancel()
        if late:
            logger.error(
                "hooks are too slow: at the stop, those of %d events were cancelled, and those of %d did not run",
                len(late),
                missed,
            )
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    def _add(self, event: HookEvent) -> None:
        self._waiting.append(event)
        if len(self._workers) < self._max_running:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        """Handle waiting events, as one of several tasks that do."""
        while self._waiting:
            event = self._waiting.popleft()
            later = self._calling.get(event.connection_id)
            if later is not None:
                # Its connection has another one that is being handled: this one comes after that.
                later.append(event)
                continue
            events = self._calling[event.connection_id] = deque((event,))
            try:
                while events:
                    await self._handle(events.popleft())
            finally:
                del self._calling[event.connection_id]
            # Hooks that never wait must not keep the event loop.
            await asyncio.sleep(0)
        # Now, and not only when the task is done: an event that is added in between needs another worker.
        if (worker := asyncio.current_task()) is not None:
            self._workers.discard(worker)

    async def _handle(self, event: HookEvent) -> None:
        """Call the hooks for an event."""
        match event:
            case Connected():
                await self._call_each(self.on_connect, event)
            case Disconnected():
                await self._call_each(self.on_disconnect, event)
            case TopicsChanged(connection_id=connection_id):
                # From now on, further changes are another event. This one holds no more than ``topics_changed`` merged.
                self._changes.pop(connection_id, None)
                if event.removed:
                    await self._call_each(self.on_unfollow, Unfollowed(connection_id, event.identity, event.removed))
                if event.added:
                    await self._call_each(self.on_follow, Followed(connection_id, event.identity, event.added))

    async def _call_each(self, hooks: list[Any], event: Connected | Followed | Unfollowed | Disconnected) -> None:
        """Call each hook. If one raises, log it and call the next."""
        for hook in [*hooks]:
            try:
                await self._call(hook, event)
            except (Exception, asyncio.CancelledError):
                if is_being_cancelled():
                    raise
                logger.exception("the hook %s failed", getattr(hook, "__qualname__", hook))

    async def _call(self, hook: Callable[..., Any], event: Connected | Followed | Unfollowed | Disconnected) -> None:
        """Run a hook: on the event loop if it is async, else in a thread, where it may block."""
        if inspect.iscoroutinefunction(hook):
            await hook(event)
            return
        if self._threads is None:
            self._threads = FairThreads(HOOK_THREADS, name="unmissed-hook")
        result = await self._threads.run(event.identity.user_id, partial(hook, event))
        if inspect.isawaitable(result):
            await result


class ConnectionLifecycle:
    """Calls the hooks for what happens to connections, and logs each end. ``clock`` returns monotonic seconds."""

    def __init__(self, hooks: Hooks, *, clock: Callable[[], float]) -> None:
        self._hooks = hooks
        self._clock = clock

    def opened(self, connection: Connection) -> None:
        """Call the hooks for a new connection."""
        if self._hooks.on_connect:
            self._hooks.connected(Connected(connection.id, connection.identity, connection.topics))

    def topics_changed(self, connection: Connection, change: TopicChange) -> None:
        """Call the hooks for the topics that a connection has begun and stopped to follow."""
        if change.added or change.removed:
            self._hooks.topics_changed(connection.id, connection.identity, change)

    def ended(self, connection: Connection, code: int, reason: str) -> None:
        """Log the end of a connection as one line, and call the hooks."""
        seconds, behind = self._clock() - connection.opened_at, connection.lag
        if logger.isEnabledFor(logging.INFO):
            fields = {
                "connection_id": connection.id,
                "user_id": connection.identity.user_id,
                "client": connection.client,
                "code": int(code),
                "reason": redact(reason),
                "seconds": round(seconds, 3),
                "position": connection.position,
                "behind": behind,
            }
            # Users control some of the values: repr() keeps them in one line.
            text = " ".join(f"{name}={value!r}" for name, value in fields.items())
            logger.info("connection ended: %s", text, extra=fields)
        if self._hooks.on_disconnect:
            event = Disconnected(connection.id, connection.identity, int(code), reason, seconds, behind)
            self._hooks.disconnected(event)
