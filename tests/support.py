"""What several test files share."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from inspect import isawaitable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from unmissed import Access, Connection, ConnectionManager, Draft, Identity, Publication, Settings
from unmissed.core.audience import granted_topics
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt
from unmissed.core.retention import Retention
from unmissed.core.window import Window
from unmissed.delivery.throttle import MAX_PAUSE
from unmissed.logs.base import Channel, Log, WindowListener
from unmissed.logs.feed import Feed, stamped
from unmissed.security.access import Subscription
from unmissed.testing import FakeSocket, LiveServer, ManualClock

FIRST = 1_796_000_000_000_001
"""The first sequence number in tests, of the size of production: 0 and what is before the first message differ."""


def nth(n: int) -> int:
    """Return the number of the n-th message of an epoch. ``nth(0)`` is the position before the first message."""
    return FIRST + n - 1


def nths(*ns: int) -> list[int]:
    """Return the numbers of these messages of an epoch."""
    return [nth(n) for n in ns]


async def publish_while_away(server: LiveServer, messages: Iterable[dict[str, Any]]) -> None:
    """Disconnect every client, and publish before any of them can connect again."""

    async def publishing() -> None:
        for connection in server.manager.connections:
            connection.abort("as after a failure of the network")
        for message in messages:
            await server.manager.publish(message)

    await asyncio.to_thread(server.run, publishing())


CONNECTED = json.dumps(
    {
        "type": "connected",
        "connection_id": "c",
        "epoch": "e",
        "first": FIRST,
        "oldest": nth(1),
        "latest": nth(0),
        "sequence_number": nth(0),
    }
)
"""The greeting of a server, for ``scripted``."""

SOCKETS: dict[str, dict[str, Any]] = {
    "native": {"http": "unmissed.server:HttpProtocol", "ws": "unmissed.server:WebSocketProtocol"},
    "portable": {"ws": "websockets-sansio"},
}
"""The two sockets, as options of uvicorn: what is tested on a live server is tested on both."""

LOGGED: dict[str, Any] = {"log_config": None, "log_level": "info"}
"""Options of uvicorn that leave its loggers alone: with its own configuration they do not propagate to pytest."""

ALICE, BOB = Identity("alice"), Identity("bob")

Serve = Callable[..., LiveServer]
"""The fixture ``serve``: starts a live server with these settings."""

native_only = pytest.mark.parametrize("serve", ["native"], indirect=True)
"""Run a test of ``serve`` or ``server`` on the native socket alone: on the portable one, uvicorn handles the fault."""


portable_is_long = pytest.mark.parametrize(
    "serve", ["native", pytest.param("portable", marks=pytest.mark.long)], indirect=True
)
"""Run a test of ``serve`` or ``server`` on the native socket, and on the portable one among the long tests."""


class ManualLog:
    """A log in memory that is unavailable, and begins epochs, when a test says so. It knows no idempotency keys."""

    def __init__(self, clock: ManualClock) -> None:
        self.unavailable: str | None = None
        self.channel: Channel | None = None
        self._clock = clock
        self._available = asyncio.Event()
        self._available.set()

    async def open(self) -> Window:
        self._window = Window(Retention(), epoch="first", first_number=FIRST)
        self._feed = Feed(self._window, clock=self._clock)
        return self._window

    def subscribe(self, listener: WindowListener) -> None:
        self._feed.subscribe(listener)

    async def close(self) -> None: ...

    def expire(self) -> None:
        self._window.expire(self._clock())

    async def catch_up(self, number: int) -> None:  # noqa: ARG002  # the contract
        await self._available.wait()

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:  # noqa: ARG002  # the contract
        await self._available.wait()
        receipt = Receipt(self._window.latest + 1, len(drafts), self._window.epoch, rfc3339(self._clock()))
        messages = stamped(drafts, receipt, appended_at=self._clock())
        self._feed.extend(messages)
        return Publication(receipt, messages)

    def lose(self, reason: str | None) -> None:
        """Store nothing until ``restore``, for this reason."""
        self.unavailable = reason
        self._available.clear()

    def restore(self) -> None:
        """Store what is published, again."""
        self.unavailable = None
        self._available.set()

    def restart(self, *, epoch: str, first_number: int) -> None:
        """Begin another epoch, as a log does whose store has lost messages."""
        self._feed.restart(epoch=epoch, first_number=first_number)


def managed(clock: ManualClock, *, log: Log | None = None, **settings: Any) -> ConnectionManager:
    """Return a manager on a clock that moves by hand."""
    return ConnectionManager(Settings.load(**settings), log=log, clock=clock, wall_clock=clock)


def connect(
    manager: ConnectionManager,
    identity: Identity = ALICE,
    *,
    topics: Iterable[str] | None = None,
    since: int | None = None,
    epoch: str | None = None,
    state: bool = False,
    client: str | None = None,
    **options: Any,
) -> tuple[FakeSocket, Connection]:
    """Connect a socket in memory. ``options`` are those of ``Running.connect``."""
    subscription = Subscription(
        identity,
        granted_topics(topics, identity.topics),
        chose_topics=topics is not None,
        since=since,
        epoch=epoch,
        state=state,
        client=client,
    )
    socket = FakeSocket()
    return socket, manager.running.connect(socket, subscription, **{"access": Access(), **options})


def shape(socket: FakeSocket) -> list[tuple[str, int | None]]:
    """Return type and number of every frame."""
    return [(frame["type"], frame.get("sequence_number")) for frame in socket.frames]


async def flushed(manager: ConnectionManager) -> None:
    """Run the event loop until every connection is up to date."""
    async with asyncio.timeout(10):
        while any(each.position < manager.window.latest for each in manager.connections):
            await asyncio.sleep(0)


async def pause_over() -> None:
    """Wait until the pause after the last flush is over, so that the next message is flushed at once.

    It ends by a timer that is set in the turn after the flush. The one here is set later and is longer, so it comes
    later, however busy the machine is.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(2 * MAX_PAUSE)


_UNTIL_SECONDS = 60.0
"""Against hanging only: no test depends on how busy the machine is."""


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until this holds. What is awaitable is awaited."""
    async with asyncio.timeout(_UNTIL_SECONDS):
        while True:
            held = condition()
            if await held if isawaitable(held) else held:
                return
            await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], object]) -> None:
    """Block this thread until this holds."""
    give_up = time.monotonic() + _UNTIL_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError
        time.sleep(0.005)


@asynccontextmanager
async def scripted(
    *frames: str, close: tuple[int, str] | None = None, status: int | None = None, reads: bool = True
) -> AsyncIterator[str]:
    """Run another server, which sends these frames and then waits or closes, and return its URL."""

    async def answer(websocket: ServerConnection) -> None:
        for frame in frames:
            await websocket.send(frame)
        if not reads:
            websocket.transport.pause_reading()
        if close:
            await websocket.close(*close)
        await websocket.wait_closed()

    def refuse(websocket: ServerConnection, request: Request) -> Response | None:  # noqa: ARG001  # websockets passes it
        return websocket.respond(HTTPStatus(status), "") if status else None

    async with serve_websockets(answer, "127.0.0.1", 0, process_request=refuse, close_timeout=0.1) as other:
        [socket] = other.sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"


async def next_frame(websocket: ClientConnection) -> dict[str, Any]:
    """Return the next frame that is not a heartbeat: the first heartbeat comes at a random moment."""
    frame: dict[str, Any] = {"type": "heartbeat"}
    while frame["type"] == "heartbeat":
        frame = json.loads(await asyncio.wait_for(websocket.recv(), 30))
    return frame
