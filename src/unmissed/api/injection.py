"""What FastAPI injects into a handshake: the authentication, and what the application and its routers depend on."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeGuard

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIWebSocketRoute
from starlette.routing import BaseRoute, Host, Match, Mount
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketState

from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import Dependant, effective_routes

_FOUND_KEY = "unmissed.injected"


class Injection:
    """Resolves ``authenticate``, and the dependencies of the application and its routers, for one WebSocket route.

    What they hold, such as a database session, is released before delivery begins: a connection may last for days.
    ``close_on_error`` is the first dependency, so that it handles the errors of all others.
    """

    def __init__(
        self, path: str, *, authenticate: Callable[..., Any], close_on_error: Callable[..., Any], router: APIRouter
    ) -> None:
        """Add a route that only collects dependencies: call this after the route that answers at this path was added.

        FastAPI gives the dependencies of an application and its routers only to routes of its own kind.
        """
        self._authenticate = authenticate
        self._first = Depends(close_on_error)
        self._resolving: list[tuple[APIWebSocketRoute, APIWebSocketRoute]] = []
        router.add_api_websocket_route(path, self._collect)

    def check(self, app: FastAPI) -> None:
        """Raise ConfigurationError for a dependency that FastAPI cannot resolve for a WebSocket."""
        for declared in self._all_declared(app.routes):
            self._build(declared, app)

    def declared(self, scope: Scope) -> APIWebSocketRoute:
        """Return the route whose ``dependencies`` the application and its routers declare for this handshake.

        Raises ConfigurationError if the routes of the router are hidden, as inside another application: its
        dependencies would not be resolved.
        """
        found = self.find(scope)
        if found is None:
            raise ConfigurationError(
                "the dependencies of this WebSocket cannot be found: pass the router of create_router to "
                "include_router of a FastAPI application, also where a route of your own calls that application"
            )
        return found

    def find(self, scope: Scope) -> APIWebSocketRoute | None:
        """Return that route, or None. A router can be included several times with different dependencies."""
        own_root = scope.get("root_path", "")
        # A mount lengthens the root path, and the outermost one keeps the original.
        root_path = scope.get("app_root_path", own_root)
        found = self._matching(scope["router"].routes, {**scope, "root_path": root_path})
        return found or self._matching(scope["app"].routes, scope)

    async def resolve(
        self, declared: APIWebSocketRoute, scope: Scope, receive: Receive, send: Send
    ) -> tuple[WebSocket, object] | None:
        """Return the WebSocket and what ``authenticate`` returned, or None if the WebSocket was refused and closed."""
        await self._route(declared, scope["app"]).app(scope, receive, send)
        found: tuple[WebSocket, object] | None = scope.pop(_FOUND_KEY, None)
        # A dependency may also have failed when it was released.
        return None if found is None or found[0].application_state is WebSocketState.DISCONNECTED else found

    async def _collect(self, websocket: WebSocket) -> None:
        """Mark the route that collects dependencies. It is never called, as the route before it has the same path."""

    def _route(self, declared: APIWebSocketRoute, app: FastAPI) -> APIWebSocketRoute:
        """Return the route that resolves everything and then ends. Building it takes longer than a handshake."""
        # Kept by identity: an included router has another route for each inclusion, with other dependencies.
        for known, route in self._resolving:
            if known is declared:
                return route
        route = self._build(declared, app)
        self._resolving.append((declared, route))
        return route

    def _build(self, declared: APIWebSocketRoute, app: FastAPI) -> APIWebSocketRoute:
        async def endpoint(websocket: WebSocket, identity: Annotated[Any, Depends(self._authenticate)]) -> None:
            websocket.scope[_FOUND_KEY] = websocket, identity

        route = APIWebSocketRoute(
            declared.path,  # With the path parameters of its routers, which dependencies may use.
            endpoint,
            dependencies=[self._first, *declared.dependencies],
            dependency_overrides_provider=app,
        )
        _check(route.dependant)
        return route

    def _matching(self, routes: Iterable[BaseRoute], scope: Scope) -> APIWebSocketRoute | None:
        """Return the first own route that matches, as Starlette would find it."""
        for route in effective_routes(routes):
            if isinstance(route, Mount | Host):
                match, child_scope = route.matches(scope)
                found = self._matching(route.routes, {**scope, **child_scope}) if match is Match.FULL else None
                if found is not None:
                    return found
            elif self._is_own(route) and route.matches(scope)[0] is Match.FULL:
                return route
        return None

    def _all_declared(self, routes: Iterable[BaseRoute]) -> Iterator[APIWebSocketRoute]:
        for route in effective_routes(routes):
            if isinstance(route, Mount | Host):
                yield from self._all_declared(route.routes)
            elif self._is_own(route):
                yield route

    def _is_own(self, route: BaseRoute) -> TypeGuard[APIWebSocketRoute]:
        return isinstance(route, APIWebSocketRoute) and route.endpoint == self._collect


def _check(dependant: Dependant) -> None:
    """Raise ConfigurationError for a dependency that needs a request."""
    for each in dependant.dependencies:
        call: Any = each.call
        name = each.request_param_name
        if name and inspect.signature(call).parameters[name].default is inspect.Parameter.empty:
            function = getattr(call, "__qualname__", call)
            raise ConfigurationError(
                f"the dependency {function} is declared for /ws, too, and needs a Request, which a WebSocket is not: "
                f"declare its parameter as '{name}: HTTPConnection', from starlette.requests"
            )
        _check(each)
