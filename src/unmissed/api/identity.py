"""Bearer authentication as FastAPI dependencies, for REST and WebSocket alike."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import Scope

from unmissed.api.handshake import accept
from unmissed.core.audience import Identity
from unmissed.core.client_frames import Authenticate, parse_client_frame
from unmissed.core.errors import ConfigurationError, InvalidFrame, InvalidToken, ProviderUnavailable
from unmissed.core.rest import BEARER_SUBPROTOCOL
from unmissed.manager import ConnectionManager
from unmissed.security.claims import Claims
from unmissed.security.origins import Origins
from unmissed.security.provider_tokens import JwksVerifier, verifier_of
from unmissed.security.tokens import JwtVerifier, TokenVerifier
from unmissed.settings import Settings

AUTHENTICATION_SECONDS = 5.0

WAITING_KEY = "unmissed.first_frame"
"""Key in the scope of a WebSocket for a function. It returns the context in which the first frame is awaited."""

_RECEIVED_KEY = "unmissed.received"
_SCOPE_KEY = "unmissed.bearer"
_QUERY_KEY = "unmissed.query_token"
_STATE_NAME = "unmissed_bearer"
_MANAGER_NAME = "unmissed_manager"


class _BearerScheme(SecurityBase):
    """How OpenAPI describes bearer tokens."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT", description="A JSON Web Token with sub and exp.")
        self.scheme_name = "Bearer"


class Bearer(_BearerScheme):
    """A dependency that returns the Identity of a request's bearer token, or answers 401.

    A WebSocket may send the token as a subprotocol, and, only where allowed, a WebSocket or an event stream as
    ``?token=``. Otherwise it is in the ``Authorization`` header (RFC 6750), or in the first frame of a WebSocket. What
    a page sends on purpose comes before the header, which a proxy may add for a purpose of its own.
    """

    def __init__(self, verifier: TokenVerifier, *, allow_query_token: bool = False) -> None:
        super().__init__()
        self.verifier = verifier
        self._allow_query_token = allow_query_token

    @classmethod
    def of(cls, settings: Settings, *, identity: Callable[[Claims], Identity] | None = None) -> "Bearer":
        """Return a dependency that verifies JWTs according to these settings. Raises ConfigurationError.

        ``identity`` returns the Identity that the claims of a verified token describe.
        """
        return cls(verifier_of(settings, identity=identity), allow_query_token=settings.allow_query_token)

    @property
    def is_original(self) -> bool:
        """Whether no subclass changes how a token becomes an identity."""
        return type(self).__call__ is Bearer.__call__ and type(self).identity is Bearer.identity

    @property
    def may_wait(self) -> bool:
        """Whether verifying a token may wait for something, such as the keys of an identity provider."""
        return not isinstance(self.verifier, JwtVerifier)

    @property
    def problem(self) -> str | None:
        """Why no token can be verified at the moment, as a public text, or None."""
        return self.verifier.problem if isinstance(self.verifier, JwksVerifier) else None

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return a context for the time in which an application uses this bearer: it keeps a provider's keys fresh."""
        return self.verifier.running() if isinstance(self.verifier, JwksVerifier) else nullcontext()

    async def __call__(self, connection: HTTPConnection) -> Identity:
        """Return the identity. Raises HTTPException with status 401, or 408 for a WebSocket that sends no token.

        With status 503, it is not known now whether the token is valid.
        """
        identity = self.identity(connection)
        if identity is None and isinstance(connection, WebSocket):
            identity = self._verified(await _first_frame_token(connection))
        if identity is None:
            raise _unauthorized("a bearer token is required: send the header 'Authorization: Bearer <token>'")
        return identity if isinstance(identity, Identity) else await _awaited(identity)

    def identity(self, connection: HTTPConnection) -> Identity | Awaitable[Identity] | None:
        """Return the identity of the token in the headers or the URL, or None without a token. Raises HTTPException.

        If verifying it has to wait, return what to await.
        """
        token = _subprotocol_token(connection) or self._query_token(connection) or _header_token(connection)
        if token is None and _may_have_query_token(connection) and "token" in connection.query_params:
            # At once: a WebSocket would wait for a first frame, which this client does not send.
            raise _unauthorized(
                "?token= is not accepted: set UNMISSED_ALLOW_QUERY_TOKEN, or send it in a header or the first frame"
            )
        return None if token is None else self._verified(token)

    def _verified(self, token: str) -> Identity | Awaitable[Identity]:
        try:
            return self.verifier.verify(token)
        except InvalidToken as error:
            raise _unauthorized(str(error)) from None
        except ProviderUnavailable as error:
            raise _unavailable(error) from error

    def _query_token(self, connection: HTTPConnection) -> str | None:
        if not self._allow_query_token or not _may_have_query_token(connection):
            return None
        return connection.query_params.get("token")


class ManagerBearer(_BearerScheme):
    """A dependency that returns the Identity of a request or WebSocket, using the ``Bearer`` of the served manager."""

    async def __call__(self, connection: HTTPConnection) -> Identity:
        """Return the identity. Raises what ``Bearer`` raises, and ConfigurationError where no manager is served."""
        bearer = connection.scope.get(_SCOPE_KEY) or shared_bearer(connection.app)
        manager: ConnectionManager | None = getattr(connection.app.state, _MANAGER_NAME, None)
        if not isinstance(bearer, Bearer):
            raise ConfigurationError(
                "get_identity works in an application that includes create_router(manager) and whose lifespan has run: "
                "elsewhere, use Bearer.of(manager.settings) as the dependency"
            )
        identity = await bearer(connection)
        return identity if manager is None else checked(identity, manager)


get_identity = ManagerBearer()


async def get_current_user_id(identity: Annotated[Identity, Depends(get_identity)]) -> str:
    """Return the user id of a request or WebSocket. A FastAPI dependency; it raises what ``get_identity`` raises."""
    return identity.user_id


def checked(identity: object, manager: ConnectionManager) -> Identity:
    """Return what a dependency returned, if it is an Identity that was not logged out.

    Raises ConfigurationError, which names the fix, and HTTPException with status 401.
    """
    if not isinstance(identity, Identity):
        raise ConfigurationError(
            f"the authenticate dependency must return unmissed.Identity(user_id), not {type(identity).__name__}"
        )
    try:
        manager.check_identity(identity)
    except InvalidToken as error:
        raise _unauthorized(str(error)) from None
    return identity


def allowed(connection: HTTPConnection, identity: object, *, manager: ConnectionManager, origins: Origins) -> Identity:
    """Return the identity of a connecting client. Raises OriginRefused, and what ``checked`` raises.

    The origin comes first: a page of a foreign origin, which may have the cookies of its user, learns nothing else.
    """
    if refusal := origins.refusal(connection):
        raise refusal
    return checked(identity, manager)


def remember_bearer(connection: HTTPConnection, bearer: Bearer | None) -> None:
    """Let ``get_identity`` use this bearer for one request or WebSocket."""
    connection.scope[_SCOPE_KEY] = bearer


def may_have_query_token(request: HTTPConnection) -> None:
    """Let a ``Bearer`` that allows it accept ``?token=`` of this request: an EventSource cannot send a header."""
    request.scope[_QUERY_KEY] = True


def share_bearer(app: Starlette, bearer: Bearer | None, manager: ConnectionManager) -> None:
    """Let ``get_identity`` use this bearer in the other routes of an application, and refuse users who logged out."""
    setattr(app.state, _STATE_NAME, bearer)
    setattr(app.state, _MANAGER_NAME, manager)


def shared_bearer(app: Starlette) -> Bearer | None:
    """Return what ``share_bearer`` has shared."""
    bearer: Bearer | None = getattr(app.state, _STATE_NAME, None)
    return bearer


def with_token_as_header(scope: Scope) -> Scope:
    """Return the scope of a handshake with the token of the subprotocol as its ``Authorization`` header.

    Dependencies such as FastAPI's OAuth2PasswordBearer look for it there, and do not know subprotocols.
    """
    token = _subprotocol_token(HTTPConnection(scope))
    if token is None:
        return scope
    # In place of any other: the page has sent this token on purpose, and a proxy may have added a header of its own.
    others = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    return {**scope, "headers": [*others, (b"authorization", f"Bearer {token}".encode("latin-1"))]}


def _may_have_query_token(connection: HTTPConnection) -> bool:
    return connection.scope["type"] == "websocket" or _QUERY_KEY in connection.scope


def _header_token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _subprotocol_token(websocket: HTTPConnection) -> str | None:
    match websocket.scope.get("subprotocols"):
        case [protocol, str(token), *_] if protocol == BEARER_SUBPROTOCOL:
            return token
        case _:
            return None


async def _first_frame_token(websocket: WebSocket) -> str:
    """Return the token of the first frame, which several dependencies of one handshake may ask for."""
    if _RECEIVED_KEY not in websocket.scope:
        websocket.scope[_RECEIVED_KEY] = await _receive_token(websocket)
    token: str = websocket.scope[_RECEIVED_KEY]
    return token


async def _receive_token(websocket: WebSocket) -> str:
    waiting = websocket.scope.get(WAITING_KEY, nullcontext)
    with waiting():
        # Before the client is known: it can send a frame only after the handshake is answered.
        await accept(websocket)
        try:
            async with asyncio.timeout(AUTHENTICATION_SECONDS):
                event = await websocket.receive()
        except TimeoutError:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT, f"no authentication within {AUTHENTICATION_SECONDS:g} seconds"
            ) from None
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event["code"])
    try:
        frame = parse_client_frame(event.get("text") or event.get("bytes") or "")
    except InvalidFrame:
        frame = None
    if not isinstance(frame, Authenticate):
        raise _unauthorized('the first frame must be {"type":"authenticate","token":"<token>"}')
    return frame.token


async def _awaited(verifying: Awaitable[Identity]) -> Identity:
    """Return the identity of a token whose verification waits for something. Raises HTTPException."""
    try:
        return await verifying
    except InvalidToken as error:
        raise _unauthorized(str(error)) from None
    except ProviderUnavailable as error:
        raise _unavailable(error) from error


def _unavailable(error: ProviderUnavailable) -> HTTPException:
    return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "1"})


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
