"""A uvicorn server whose stop is bounded: clients are told when to come back, and nobody can hold it up."""

import asyncio
import socket

import uvicorn

from unmissed.delivery.manager import ConnectionManager

_POLL_SECONDS = 0.02


class Server(uvicorn.Server):
    """Serves an application with a manager, and drains that before uvicorn closes its sockets.

    uvicorn closes WebSockets before the application's lifespan ends, so a lifespan is too late to say goodbye.
    """

    def __init__(self, config: uvicorn.Config, *, manager: ConnectionManager) -> None:
        super().__init__(config)
        self._manager = manager

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say goodbye to every client, then stop. Half of the drain time is for WebSockets, the rest for requests."""
        drain_seconds = self._manager.settings.drain_seconds
        for server in self.servers:
            server.close()
        self._manager.drain(seconds=drain_seconds)
        await self._until_gone(drain_seconds / 2)
        for connection in self._manager.connections:
            connection.abort()
        self.config.timeout_graceful_shutdown = max(1, int(drain_seconds / 2))
        await super().shutdown(sockets)
        for client in tuple(self.server_state.connections):
            # uvloop cannot close while a transport waits for a peer that does not read.
            client.transport.abort()
        await asyncio.sleep(0)

    async def _until_gone(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._manager.connections and loop.time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
