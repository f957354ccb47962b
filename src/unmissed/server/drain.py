"""A uvicorn server that bounds TLS handshakes, asks its clients to reconnect, and shuts down in bounded time."""

import asyncio
import math
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import Config
from unmissed.framework_names import Server as UvicornServer
from unmissed.manager import LEAVE_SECONDS, ConnectionManager, started_managers

TLS_SECONDS = 10.0
"""Time for a TLS handshake, and for the answer to the end of TLS."""

_POLL_SECONDS = 0.02
_CANCEL_AFTER = 0.5
"""Seconds after the end of the connections at which uvicorn cancels the requests that still run."""

_NO_MANAGER = (
    "the application has started no ConnectionManager: write FastAPI(lifespan=manager.lifespan), or enter "
    "'async with manager:' in your own lifespan (that of a mounted application does not run)"
)


Started = Callable[["Server"], None]
"""Called when a server listens. If it raises ConfigurationError, the server shuts down, and ``run`` raises that."""


class Server(UvicornServer):
    """Serves an application, and drains the managers that it has started before uvicorn closes their sockets.

    uvicorn closes WebSockets before the application's lifespan ends, so the lifespan is too late to notify clients.
    """

    def __init__(
        self,
        config: Config,
        *,
        started: Started | None = None,
        max_seconds: float = math.inf,
        tls_seconds: float = TLS_SECONDS,
    ) -> None:
        """``max_seconds`` is the time for the whole shutdown, of which the last LEAVE_SECONDS are not for clients."""
        super().__init__(config)
        self.managers: Sequence[ConnectionManager] = ()
        """Those that the lifespan of the application has started."""
        self.failure: ConfigurationError | None = None
        """Why the server does not serve the application, although it has started."""
        self._on_start = started
        self._max_drain_seconds = max(max_seconds - LEAVE_SECONDS, 0.0)
        self._tls_seconds = tls_seconds

    @property
    def port(self) -> int:
        """The port that it listens on, also if any free one was asked for."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT, and then end the process with status 0. Raises ConfigurationError."""
        # uvicorn raises the signal once more when it has shut down. By default, it would be the status of the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        super().run(sockets)
        if self.failure is not None:
            raise self.failure

    def check_managers(self) -> None:
        """Raise ConfigurationError if the application has started no manager."""
        if not self.managers:
            raise ConfigurationError(_NO_MANAGER)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, listen, and call ``started``. Sets ``failure`` if that raises ConfigurationError."""
        with _limited_tls(asyncio.get_running_loop(), self._tls_seconds), started_managers() as self.managers:
            await super().startup(sockets)
        try:
            if self._on_start is not None:
                self._on_start(self)
        except ConfigurationError as error:
            # Not raised here: uvicorn would not end the lifespan of the application.
            self.failure = error
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop. Half of the drain time is for WebSockets, the rest for requests.

        The application's lifespan ends after that. Its managers take at most LEAVE_SECONDS for it.
        """
        loop = asyncio.get_running_loop()
        seconds = self._drain_seconds() / 2
        # First: clients that are asked to reconnect must not reach this process again.
        for server in self.servers:
            server.close()
        for manager in self.managers:
            if manager.ready:
                manager.running.drain(seconds=2 * seconds)
        await self._wait_for_clients(loop.time() + seconds)
        for manager in self.managers:
            for connection in manager.connections:
                connection.abort("the server is shutting down")
        # Applications see a disconnect before uvicorn would cancel their tasks and log a traceback for each.
        aborting = loop.call_later(seconds, self._abort_connections)
        # uvicorn declares an int, and waits for any number of seconds.
        self.config.timeout_graceful_shutdown = seconds + _CANCEL_AFTER  # type: ignore[assignment]
        await super().shutdown(sockets)
        aborting.cancel()
        self._abort_connections()
        # Transports report their end in the next turn of the event loop, before it is closed.
        await asyncio.sleep(0)

    def _drain_seconds(self) -> float:
        """Return the drain time: that of the manager that asks for the most, within the time for the shutdown."""
        asked = max((manager.settings.drain_seconds for manager in self.managers), default=0.0)
        return min(asked, self._max_drain_seconds)

    def _abort_connections(self) -> None:
        """Abort what is left: uvloop cannot close while a transport waits for a peer that is not reading."""
        for client in tuple(self.server_state.connections):
            client.transport.abort()

    async def _wait_for_clients(self, deadline: float) -> None:
        while any(manager.connections for manager in self.managers) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


@contextmanager
def _limited_tls(loop: asyncio.AbstractEventLoop, seconds: float) -> Iterator[None]:
    """Limit the TLS handshakes of servers that are created inside: uvicorn passes no limits to the event loop.

    asyncio allows 60 seconds, and a protocol class does not see a connection before its handshake is complete.
    """
    create_server = loop.create_server

    async def limited(*arguments: Any, **options: Any) -> asyncio.Server:
        if options.get("ssl") is not None:
            options = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds, **options}
        return await create_server(*arguments, **options)

    loop.create_server = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.create_server = create_server  # type: ignore[method-assign]
