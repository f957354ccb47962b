"""A uvicorn server that bounds TLS handshakes, asks its clients to reconnect, and shuts down in bounded time."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unmissed.framework_names import Config
from unmissed.framework_names import Server as UvicornServer
from unmissed.manager import ConnectionManager

TLS_SECONDS = 10.0
"""Time for a TLS handshake, and for the answer to the end of TLS."""

_POLL_SECONDS = 0.02
_CANCEL_AFTER = 0.5
"""Seconds after the end of the connections at which uvicorn cancels the requests that still run."""


class Server(UvicornServer):
    """Serves an application with a manager, and drains the manager before uvicorn closes its sockets.

    uvicorn closes WebSockets before the application's lifespan ends, so the lifespan is too late to notify clients.
    """

    def __init__(self, config: Config, *, manager: ConnectionManager, tls_seconds: float = TLS_SECONDS) -> None:
        super().__init__(config)
        self._manager = manager
        self._tls_seconds = tls_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and listen."""
        with _limited_tls(asyncio.get_running_loop(), self._tls_seconds):
            await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop. Half of the drain time is for WebSockets, the rest for requests.

        The application's lifespan ends after that. Its manager takes at most LEAVE_SECONDS for it.
        """
        loop = asyncio.get_running_loop()
        seconds = self._manager.settings.drain_seconds / 2
        # First: clients that are asked to reconnect must not reach this process again.
        for server in self.servers:
            server.close()
        if self._manager.ready:
            self._manager.running.drain(seconds=self._manager.settings.drain_seconds)
        await self._wait_for_clients(loop.time() + seconds)
        for connection in self._manager.connections:
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

    def _abort_connections(self) -> None:
        """Abort what is left: uvloop cannot close while a transport waits for a peer that is not reading."""
        for client in tuple(self.server_state.connections):
            client.transport.abort()

    async def _wait_for_clients(self, deadline: float) -> None:
        while self._manager.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)


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
