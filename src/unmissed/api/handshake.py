"""Accepting a WebSocket, and refusing one in a way that a browser can see."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect
from starlette.types import Message
from starlette.websockets import WebSocketState

from unmissed.api.error_table import refuse
from unmissed.api.request_parts import accepted_subprotocol
from unmissed.core.close_codes import CloseCode, close_reason
from unmissed.delivery.socket import SOCKET_EXTENSION, UNDECIDED_EVENT
from unmissed.manager import ConnectionManager
from unmissed.security.origins import Origins


async def accept(websocket: WebSocket) -> None:
    """Accept a handshake that is still open. Only the bearer subprotocol's name is echoed, never the token."""
    if websocket.application_state is WebSocketState.CONNECTING:
        try:
            # ASGI: the event ``websocket.connect`` comes before the answer. A dependency may have received it.
            if websocket.client_state is WebSocketState.CONNECTING:
                await websocket.receive()
            await websocket.send(_acceptance(websocket))
        except OSError:
            # The client has disconnected while the application was deciding.
            raise WebSocketDisconnect(CloseCode.LOST) from None


def _acceptance(websocket: WebSocket) -> Message:
    """Return the event that accepts. The native socket does not log it, because a refusal may follow."""
    event: Message = {"type": "websocket.accept", "subprotocol": accepted_subprotocol(websocket), "headers": []}
    return {**event, UNDECIDED_EVENT: True} if SOCKET_EXTENSION in websocket.scope.get("extensions", ()) else event


def close_on_error(origins: Origins, *, manager: ConnectionManager) -> Callable[[WebSocket], AsyncIterator[None]]:
    """Return a dependency that turns errors of a WebSocket route, and of its later dependencies, into close codes.

    A browser cannot read the status of a refused handshake, so the WebSocket is accepted first and then closed with a
    code and a reason. A page from an origin that is not allowed gets no other reason than its origin.
    """

    async def close_with_code(websocket: WebSocket) -> AsyncIterator[None]:
        try:
            yield
        except WebSocketDisconnect:
            return
        except Exception as error:  # noqa: BLE001  # refuse() logs it
            refusal = refuse(origins.refusal(websocket) or error, websocket, manager=manager)
            await _close(websocket, refusal.close_code, refusal.detail)

    return close_with_code


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(WebSocketDisconnect):
        await accept(websocket)
        if websocket.application_state is WebSocketState.CONNECTED:
            await websocket.close(code, close_reason(reason))
