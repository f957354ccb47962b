"""``/ws``: from a handshake to a connection of the manager."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, WebSocket
from starlette.types import Receive, Scope, Send

from unmissed.api.auth import Bearer, accept
from unmissed.api.origins import Origins
from unmissed.api.problems import closing
from unmissed.api.query import parameter, since_parameter
from unmissed.core.audience import Identity
from unmissed.core.errors import OriginRefused
from unmissed.delivery.manager import ConnectionManager
from unmissed.delivery.socket import SOCKET_EXTENSION, AsgiSocket, Socket

PATH = "/ws"


class WebSocketEndpoint:
    """Takes WebSockets for a manager, as an ASGI application of its own or as an endpoint of FastAPI.

    A storm of clients that come back passes here, and most of what FastAPI spends on a handshake goes into injecting
    dependencies; where nothing is to be injected, the application does without.
    """

    def __init__(self, manager: ConnectionManager, *, bearer: Bearer, origins: Origins) -> None:
        self._manager = manager
        self._bearer = bearer
        self._origins = origins
        self._closing = asynccontextmanager(closing(origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate a client by its token, and serve it."""
        websocket = WebSocket(scope, receive, send)
        async with self._closing(websocket):
            await serve(self._manager, websocket, await self._bearer(websocket), origins=self._origins)


def add_websocket_route(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], origins: Origins
) -> None:
    """Add the route as FastAPI's own. ``authenticate`` is a dependency on an Identity."""

    @router.websocket(PATH, dependencies=[Depends(closing(origins))])
    async def endpoint(websocket: WebSocket, identity: Annotated[Identity, Depends(authenticate)]) -> None:
        await serve(manager, websocket, identity, origins=origins)


async def serve(manager: ConnectionManager, websocket: WebSocket, identity: Identity, *, origins: Origins) -> None:
    """Deliver messages, from the position that the client asks for or from now on.

    Returns when the client is gone, or at once when the server's own socket needs no task.
    """
    if not origins.allow_websocket(websocket):
        raise OriginRefused
    since, epoch = since_parameter(websocket), parameter(websocket, "epoch")
    await accept(websocket)
    native: Socket | None = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
    if native is not None:
        manager.connect(native, identity=identity, since=since, epoch=epoch)
        return
    socket = AsgiSocket(websocket.receive, websocket.send)
    manager.connect(socket, identity=identity, since=since, epoch=epoch)
    await socket.run()
