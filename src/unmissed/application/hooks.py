"""Hooks: functions of the application that are called when clients connect and disconnect."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unmissed.core.audience import Identity
from unmissed.delivery.lane import is_being_cancelled

logger = logging.getLogger("unmissed")

MAX_PENDING = 10_000
"""Calls that may wait for slow hooks. Beyond that, events are logged and dropped."""


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


ConnectHook = Callable[[Connected], object]
DisconnectHook = Callable[[Disconnected], object]


class Hooks:
    """The hooks of one application. They run beside the delivery, those of one connection one after another."""

    def __init__(self) -> None:
        self.on_connect: list[ConnectHook] = []
        self.on_disconnect: list[DisconnectHook] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        """The last task of each connection, until it is done."""

    def connected(self, event: Connected) -> None:
        """Call the hooks for a new connection."""
        self._start(self.on_connect, event)

    def disconnected(self, event: Disconnected) -> None:
        """Call the hooks for the end of a connection."""
        self._start(self.on_disconnect, event)

    async def finish(self, *, seconds: float) -> None:
        """Wait for the running hooks, and cancel those that take longer."""
        running = tuple(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()

    def _start(self, hooks: list[Any], event: Connected | Disconnected) -> None:
        if len(self._running) >= MAX_PENDING:
            logger.error("hooks are too slow: dropped %s", type(event).__name__)
            return
        name = event.connection_id
        task = asyncio.create_task(_call(tuple(hooks), event, after=self._running.get(name)))
        self._running[name] = task
        task.add_done_callback(lambda _: self._done(name, task))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._running.get(name) is task:
            del self._running[name]


async def _call(hooks: tuple[Any, ...], event: object, *, after: asyncio.Task[None] | None) -> None:
    """Call each hook. One that raises is logged, and the others are called."""
    if after is not None:
        await asyncio.wait([after])
    for hook in hooks:
        try:
            await _result_of(hook, event)
        except (Exception, asyncio.CancelledError):
            if is_being_cancelled():
                raise
            logger.exception("the hook %s failed", getattr(hook, "__qualname__", hook))


async def _result_of(hook: Callable[..., Any], event: object) -> None:
    """Run a hook: on the event loop if it is async, else in a thread, where it may block."""
    if inspect.iscoroutinefunction(hook):
        await hook(event)
        return
    result = await asyncio.to_thread(hook, event)
    if inspect.isawaitable(result):
        await result
