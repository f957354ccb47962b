"""``/ws``: authenticates a handshake, and passes the WebSocket to the manager.

A handshake takes one of two ways to the same facts. ``__call__`` is the way of every ASGI server: it may wait for a
token in the first frame, resolves what the application depends on, and explains a refusal. ``_admit`` is the short way
of this package's own server, for the time after a restart: it takes a third of the CPU time, decides at once, and
leaves to ``__call__`` what it cannot decide. ``api/admission.py`` announces once, at startup, where it may be taken.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send

from unmissed.api.handshake import accept, close_on_error
from unmissed.api.identity import WAITING_KEY, Bearer, allowed, get_identity, remember_bearer, with_token_as_header
from unmissed.api.injection import Injection
from unmissed.api.request_parts import Asked, accepted_subprotocol
from unmissed.core.audience import Identity, granted_topics
from unmissed.core.errors import TooManyConnections, UnmissedError
from unmissed.delivery.portable import AsgiWebSocket
from unmissed.delivery.socket import SOCKET_EXTENSION, Admission, Socket
from unmissed.manager import ConnectionManager
from unmissed.security.access import Access, Authorize
from unmissed.security.origins import Origins

PATH = "/ws"
MAX_AUTHENTICATING = 1_000
"""WebSockets that may wait for their first frame at the same time, if connections are not limited."""


class WebSocketEndpoint:
    """The ASGI application behind ``/ws``.

    FastAPI would spend most of a handshake on injecting dependencies. So a bearer is called directly, unless the
    application overrides it, or has dependencies of its own.
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
        self._access = Access(
            bearer.verifier.verify if bearer and bearer.is_original else None,
            authorize,
            verify_waits=bearer is not None and bearer.may_wait,
        )
        self._access_without_renewal = Access(None, authorize)
        self._origins = origins
        closing = close_on_error(origins, manager=manager)
        self._closing_on_error = asynccontextmanager(closing)
        self._authenticating = 0
        self._max_authenticating = manager.settings.max_connections or MAX_AUTHENTICATING
        # Before the injection, which adds a route for the same path: Starlette calls the first one that matches.
        router.routes.append(WebSocketRoute(PATH, self))
        self.injection = Injection(PATH, authenticate=authenticate, close_on_error=closing, router=router)

    @property
    def manager(self) -> ConnectionManager:
        """The manager that its connections belong to."""
        return self._manager

    @property
    def accepts_jwts(self) -> bool:
        """Whether clients authenticate with JWTs of the manager's settings, unless the application overrides it."""
        return self._authenticate is get_identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate a client and serve it."""
        websocket = WebSocket(scope, receive, send)
        async with self._closing_on_error(websocket):
            scope[WAITING_KEY] = self._first_frame
            declared = self.injection.declared(scope)
            bearer = None if self._is_overridden(scope["app"]) else self._bearer
            access = self._access_without_renewal if bearer is None else self._access
            if bearer is not None and not declared.dependencies:
                await self._serve(websocket, await bearer(websocket), access=access)
                return
            remember_bearer(websocket, bearer)
            found = await self.injection.resolve(declared, with_token_as_header(scope), receive, send)
            if found is not None:
                # Again, for the WebSocket that the dependencies got: its state shows whether one of them accepted it.
                websocket, identity = found
                async with self._closing_on_error(websocket):
                    await self._serve(websocket, identity, access=access)

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

    async def _serve(self, websocket: WebSocket, authenticated: object, *, access: Access) -> None:
        """Deliver the messages after the position that the client sent, or only new messages.

        Returns when the client has disconnected, or immediately if the server has a native socket, which needs no task.
        """
        identity = allowed(websocket, authenticated, manager=self._manager, origins=self._origins)
        asked = Asked.by(websocket)
        # Before the topics: a client that is refused one stops, and must come back after a restart.
        self._manager.running.check_accepting()
        subscription = asked.granted(identity, await access.granted(identity, asked.topics))
        # Before the position is located: one that is ahead of this node would be a reset.
        await self._manager.running.catch_up(subscription.since)
        await accept(websocket)
        native = websocket.scope.get("extensions", {}).get(SOCKET_EXTENSION)
        if native is not None:
            self._manager.running.connect(native, subscription, access=access)
            return
        socket = AsgiWebSocket(websocket.receive, websocket.send)
        self._manager.running.connect(socket, subscription, access=access)
        await socket.run()

    def _is_overridden(self, app: FastAPI) -> bool:
        return self._authenticate in app.dependency_overrides

    # The short way

    def admission(self, app: FastAPI, path: str) -> Admission | None:
        """Return what admits handshakes for this path of an application, or None if each needs ``__call__``."""
        bearer = self._bearer
        if bearer is None or not bearer.is_original or self._access.authorize is not None:
            return None
        if iscoroutinefunction(bearer.verifier.verify):
            return None
        scope = {"type": "websocket", "app": app, "router": app.router, "path": path, "root_path": app.root_path}
        declared = self.injection.find(scope)
        return None if declared is None or declared.dependencies else partial(self._admit, app, bearer)

    def _admit(self, app: FastAPI, bearer: Bearer, scope: Scope, open_socket: Callable[[str | None], Socket]) -> bool:
        """Connect the WebSocket of this handshake, or return False: ``__call__`` can wait, and explain a refusal."""
        # Tests override dependencies while the application runs. Of two root paths, FastAPI uses its own.
        if self._is_overridden(app) or (app.root_path and scope["root_path"]):
            return False
        connection = HTTPConnection(scope)
        try:
            found = bearer.identity(connection)
            if not isinstance(found, Identity):
                _discard(found)
                return False
            identity = allowed(connection, found, manager=self._manager, origins=self._origins)
            asked = Asked.by(connection)
            subscription = asked.granted(identity, granted_topics(asked.topics, identity.topics))
        except Exception:  # noqa: BLE001  # __call__ raises it again, and logs it
            return False
        # Waiting for the position takes a task, which ``__call__`` has.
        if self._manager.running.is_behind(subscription.since):
            return False
        try:
            # Nothing is written before a connection is attached: until then, the application can still answer.
            socket = open_socket(accepted_subprotocol(connection))
            self._manager.running.connect(socket, subscription, access=self._access)
        except UnmissedError:
            return False
        return True


def _discard(found: object) -> None:
    """Discard a verification that waits: ``__call__`` begins another. A coroutine that never ran would warn."""
    if isinstance(found, Coroutine):
        found.close()


def add_upgrade_route(router: APIRouter) -> None:
    """Add a route for plain requests to the path of the WebSocket, as they come from a proxy that drops ``Upgrade``."""

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
