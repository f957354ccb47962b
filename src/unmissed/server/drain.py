"""A uvicorn server that asks its clients to reconnect and shuts down in bounded time."""

import asyncio
import socket

from unmissed.manager import ConnectionManager
from unmissed.server.uvicorn_names import Config
from unmissed.server.uvicorn_names import Server as UvicornServer

_POLL_SECONDS = 0.02


class Server(UvicornServer):
    """Serves an application with a manager, and drains the manager before uvicorn closes its sockets.

    uvicorn closes WebSockets before the application's lifespan ends, so the lifespan is too late to notify clients.
    """

    def __init__(self, config: Config, *, manager: ConnectionManager) -> None:
        super().__init__(config)
        self._manager = manager

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop. Half of the drain time is for WebSockets, the rest for requests."""
        drain_seconds = self._manager.settings.drain_seconds
        for server in self.servers:
            server.close()
        if self._manager.ready:
            self._manager.drain(seconds=drain_seconds)
        await self._wait_for_clients(drain_seconds / 2)
        for connection in self._manager.connections:
            connection.abort()
        self.config.timeout_graceful_shutdown = max(1, int(drain_seconds / 2))
        await super().shutdown(sockets)
        for client in tuple(self.server_state.connections):
            # uvloop cannot close while a transport waits for a peer that is not reading.
            client.transport.abort()
        await asyncio.sleep(0)

    async def _wait_for_clients(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._manager.connections and loop.time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
