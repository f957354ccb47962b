"""``/ws``: authenticates a handshake, and passes the WebSocket to the manager."""

from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, TypeGuard

from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from unmissed.api.handshake import accept, close_on_error, subprotocol
from unmissed.api.identity import FIRST_FRAME_KEY, Bearer, remember_bearer, with_token_as_header
from unmissed.api.injection import Injection, effective_routes
from unmissed.api.subscription import Wanted, granted, subscription
from unmissed.core.errors import TooManyConnections, UnmissedError
from unmissed.delivery.portable import AsgiWebSocket
from unmissed.delivery.socket import LEARN_EXTENSION, SOCKET_EXTENSION, Socket
from unmissed.manager import ConnectionManager
from unmissed.security.access import Access, Authorize
from unmissed.security.origins import Origins

PATH = "/ws"
MAX_AUTHENTICATING = 1_000
"""WebSockets that may wait for their first frame at the same time, unless the limit of connections says otherwise."""

_MATCH_BY_PATH = (
    Route.matches,
    WebSocketRoute.matches,
    Mount.matches,
    APIRoute.matches,
    APIWebSocketRoute.matches,
)
_FOR_REQUESTS_ONLY = (BaseHTTPMiddleware.__call__, CORSMiddleware.__call__, GZipMiddleware.__call__)


class WebSocketEndpoint:
    """The ASGI application behind ``/ws``.

    FastAPI spends most of a handshake on injecting dependencies, and after a restart every client connects at once. So
    a bearer is called directly, unless the application overrides it, or has dependencies of its own.
    """

    def __init__(
        self,
        router: APIRouter,
        manager: ConnectionManager,
        *,
        authenticate: Callable[..., Any],
        bearer: Bearer | None,
        authorize: Authorize | None,
        origins: Origins,
    ) -> None:
        """Add the routes to a router."""
        self._manager = manager
        self._authenticate = authenticate
        self._bearer = bearer
        self._access = Access(bearer.verifier.verify if _is_original(bearer) else None, authorize)
        self._access_without_renewal = Access(None, authorize)
        self._origins = origins
        closing = close_on_error(origins, manager=manager)
        self._closing_on_error = asynccontextmanager(closing)
        self._authenticating = 0
        self._max_authenticating = manager.settings.max_connections or MAX_AUTHENTICATING
        router.routes.append(WebSocketRoute(PATH, self))
        self._injection = Injection(PATH, authenticate=authenticate, close_on_error=closing, router=router)

    def check(self, app: FastAPI) -> None:
        """Raise ConfigurationError for a dependency of the application that FastAPI cannot resolve for a WebSocket."""
        self._injection.check(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate a client and serve it."""
        websocket = WebSocket(scope, receive, send)
        async with self._closing_on_error(websocket):
            scope[FIRST_FRAME_KEY] = self._first_frame
            declared = self._injection.declared(scope)
            bearer = None if self._is_overridden(scope["app"]) else self._bearer
            access = self._access_without_renewal if bearer is None else self._access
            if bearer is not None and not declared.dependencies:
                await self._serve(websocket, await bearer(websocket), access=access)
                self._offer_admission(scope)
                return
            remember_bearer(websocket, bearer)
            found = await self._injection.resolve(declared, with_token_as_header(scope), receive, send)
            if found is not None:
                websocket, identity = found
                async with self._closing_on_error(websocket):
                    await self._serve(websocket, identity, access=access)

    def _is_overridden(self, app: FastAPI) -> bool:
        return self._authenticate in app.dependency_overrides

    @contextmanager
    def _first_frame(self) -> Iterator[None]:
        """Count a WebSocket that waits for the token in its first frame. Raises TooManyConnections over the limit.

        A client that sends its token with the handshake never waits for clients that have none.
        """
        if self._authenticating >= self._max_authenticating:
            raise TooManyConnections("too many WebSockets are authenticating: reconnect later")
        self._authenticating += 1
        try:
            yield
        finally:
            self._authenticating -= 1

    async def _serve(self, websocket: WebSocket, identity: object, *, access: Access) -> None:
        """Deliver the messages after the position that the client sent, or only new messages.

        Returns when the client has disconnected, or immediately if the server has a native socket, which needs no task.
        """
        wanted = self._wanted(websocket, identity)
        if access.authorize is not None:
            wanted["authorized"] = await access.granted(wanted["identity"], wanted["topics"])
        await self._manager.running.catch_up(wanted["since"])
        await accept(websocket)
        native = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
        if native is not None:
            self._manager.running.connect(native, granted(wanted), access=access)
            return
        socket = AsgiWebSocket(websocket.receive, websocket.send)
        self._manager.running.connect(socket, granted(wanted), access=access)
        await socket.run()

    def _wanted(self, connection: HTTPConnection, identity: object) -> Wanted:
        return subscription(connection, identity, manager=self._manager, origins=self._origins)

    # Admission

    def _offer_admission(self, scope: Scope) -> None:
        """Let the server pass handshakes directly to ``_admit``, unless the application has a say in them."""
        app, bearer = scope["app"], self._bearer
        learn = scope.get("extensions", {}).get(LEARN_EXTENSION)
        if learn is None or not _is_original(bearer) or self._access.authorize is not None:
            return
        if scope.get("path_params") or not _ignores_websockets(app) or not self._is_found_by_path(app):
            return

        def admission(scope: Scope, open_socket: Callable[[str | None], Socket]) -> bool:
            return not self._is_overridden(app) and self._admit(bearer, scope, open_socket)

        learn(app, admission)

    def _is_found_by_path(self, app: FastAPI) -> bool:
        """Return whether nothing but the path decides that this application calls this endpoint.

        It does not if the endpoint is inside a mounted application or a Host, or beside routes of unknown kinds.
        """
        routes = list(effective_routes(app.routes))
        return self in [getattr(route, "endpoint", None) for route in routes] and all(
            type(route).matches in _MATCH_BY_PATH for route in routes
        )

    def _admit(self, bearer: Bearer, scope: Scope, open_socket: Callable[[str | None], Socket]) -> bool:
        """Connect the WebSocket of this handshake, or return False: ``__call__`` can wait, and explain a refusal."""
        connection = HTTPConnection(scope)
        try:
            identity = bearer.identity(connection)
            wanted = None if identity is None else self._wanted(connection, identity)
        except Exception:  # noqa: BLE001  # __call__ raises it again, and logs it
            return False
        if wanted is None or self._manager.running.is_behind(wanted["since"]):
            return False
        try:
            self._manager.running.connect(open_socket(subprotocol(scope)), granted(wanted), access=self._access)
        except UnmissedError:
            return False
        return True


def add_upgrade_route(router: APIRouter) -> None:
    """Add a route that answers requests for the path of the WebSocket, as a proxy makes them that drops ``Upgrade``."""

    @router.api_route(PATH, methods=["GET", "HEAD"], include_in_schema=False)
    async def upgrade_required(request: Request) -> None:
        # HTTP/2 forbids both headers (RFC 9113 section 8.2.2), and HTTP/1.1 requires them (RFC 9110 section 15.5.22).
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"} if request.scope["http_version"] < "2" else None
        raise HTTPException(
            HTTPStatus.UPGRADE_REQUIRED,
            "this is a WebSocket: connect to it with a WebSocket client, at ws:// or wss://. If you do, "
            "a proxy drops the headers Upgrade and Connection: let it pass them on",
            headers,
        )


def _is_original(bearer: Bearer | None) -> TypeGuard[Bearer]:
    """Return whether no subclass changes how a token becomes an identity."""
    if bearer is None:
        return False
    return type(bearer).__call__ is Bearer.__call__ and type(bearer).identity is Bearer.identity


def _ignores_websockets(app: FastAPI) -> bool:
    """Return whether the application and each of its middlewares pass WebSockets on unchanged."""
    kinds: list[Any] = [middleware.cls for middleware in app.user_middleware]
    calls = [getattr(kind, "__call__", None) for kind in kinds]  # noqa: B004  # the method, not whether there is one
    return type(app).__call__ is FastAPI.__call__ and all(call in _FOR_REQUESTS_ONLY for call in calls)
