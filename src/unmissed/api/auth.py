"""Bearer authentication as FastAPI dependencies, for REST and WebSocket alike."""

import asyncio
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketState

from unmissed.api.tokens import JwtVerifier, TokenVerifier
from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidFrame, InvalidToken
from unmissed.core.wire import BEARER_SUBPROTOCOL, Authenticate, parse_client_frame
from unmissed.settings import Settings

AUTHENTICATION_SECONDS = 5.0


class Bearer(SecurityBase):
    """A dependency that returns the Identity of a request's bearer token, or answers 401.

    The token is in the ``Authorization`` header (RFC 6750); a WebSocket may bring it as a subprotocol, in its first
    frame, or, only if that is allowed, as ``?token=``.
    """

    def __init__(self, verifier: TokenVerifier, *, allow_query_token: bool = False) -> None:
        self.verifier = verifier
        self.model = HTTPBearerModel(bearerFormat="JWT", description="A JSON Web Token with sub and exp.")
        self.scheme_name = "Bearer"
        self._allow_query_token = allow_query_token

    @classmethod
    def of(cls, settings: Settings) -> "Bearer":
        """Return the dependency that verifies JWTs as the settings say. Raises ConfigurationError."""
        verifier = JwtVerifier(
            settings.key(),
            algorithm=settings.jwt_algorithm,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
        )
        return cls(verifier, allow_query_token=settings.allow_query_token)

    async def __call__(self, connection: HTTPConnection) -> Identity:
        """Return who this is. Raises HTTPException with status 401, or 408 for a WebSocket that stays silent."""
        token = _header_token(connection)
        if isinstance(connection, WebSocket):
            token = token or _subprotocol_token(connection) or self._query_token(connection)
            if token is None:
                token = await _first_frame_token(connection)
        if token is None:
            raise _unauthorized("a bearer token is required: send the header 'Authorization: Bearer <token>'")
        try:
            return self.verifier.verify(token)
        except InvalidToken as error:
            raise _unauthorized(str(error)) from None

    def _query_token(self, websocket: WebSocket) -> str | None:
        return websocket.query_params.get("token") if self._allow_query_token else None


async def get_identity(connection: HTTPConnection) -> Identity:
    """Return the full identity of a request or WebSocket, under the settings of the environment."""
    return await _bearer_of_environment()(connection)


async def get_current_user_id(identity: Annotated[Identity, Depends(get_identity)]) -> str:
    """Return the user id of a request or WebSocket, under the settings of the environment."""
    return identity.user_id


@lru_cache(maxsize=1)
def _bearer_of_environment() -> Bearer:
    return Bearer.of(Settings.load())


async def accept(websocket: WebSocket) -> None:
    """Accept a handshake that is still open. Of subprotocols only the bearer's name is echoed, never the token."""
    if websocket.application_state is WebSocketState.CONNECTING:
        offered = websocket.scope.get("subprotocols", ())
        await websocket.accept(BEARER_SUBPROTOCOL if BEARER_SUBPROTOCOL in offered else None)


def _header_token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _subprotocol_token(websocket: WebSocket) -> str | None:
    match websocket.scope.get("subprotocols"):
        case [protocol, str(token), *_] if protocol == BEARER_SUBPROTOCOL:
            return token
        case _:
            return None


async def _first_frame_token(websocket: WebSocket) -> str:
    await websocket.accept()
    try:
        async with asyncio.timeout(AUTHENTICATION_SECONDS):
            event = await websocket.receive()
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "no authentication within 5 seconds") from None
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event["code"])
    try:
        frame = parse_client_frame(event.get("text") or event.get("bytes") or "")
    except InvalidFrame:
        frame = None
    if not isinstance(frame, Authenticate):
        raise _unauthorized('the first frame must be {"type":"authenticate","token":"<token>"}')
    return frame.token


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
