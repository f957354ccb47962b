"""``/ws``: from a handshake to a connection of the manager."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketState

from unmissed.api.origins import Origins
from unmissed.api.problems import close_with_code
from unmissed.api.query import parameter, since_parameter
from unmissed.core.audience import Identity
from unmissed.core.wire import BEARER_SUBPROTOCOL
from unmissed.delivery.manager import ConnectionManager
from unmissed.delivery.socket import SOCKET_EXTENSION, AsgiSocket, Socket

PATH = "/ws"


def websocket_router(manager: ConnectionManager, *, authenticate: Callable[..., Any], origins: Origins) -> APIRouter:
    """Return the route of the WebSocket. ``authenticate`` is a dependency on an Identity."""
    router = APIRouter()

    @router.websocket(PATH, dependencies=[Depends(close_with_code), Depends(origins.require)])
    async def serve(websocket: WebSocket, identity: Annotated[Identity, Depends(authenticate)]) -> None:
        """Deliver messages, from the position that the client asks for or from now on."""
        since, epoch = since_parameter(websocket), parameter(websocket, "epoch")
        if websocket.application_state is WebSocketState.CONNECTING:
            offered = websocket.scope.get("subprotocols", ())
            await websocket.accept(BEARER_SUBPROTOCOL if BEARER_SUBPROTOCOL in offered else None)
        native: Socket | None = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
        if native is not None:
            manager.connect(native, identity=identity, since=since, epoch=epoch)
            return
        socket = AsgiSocket(websocket.receive, websocket.send)
        manager.connect(socket, identity=identity, since=since, epoch=epoch)
        await socket.run()

    return router
