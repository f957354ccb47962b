"""Where an application admits handshakes without a request: announced at startup, and found once."""

from collections.abc import Iterator
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute

from unmissed.api.websocket_endpoint import WebSocketEndpoint
from unmissed.delivery.socket import Admission, Admissions
from unmissed.framework_names import effective_routes, is_as_written, is_own_layer, middlewares, traces_websockets

_FOR_REQUESTS_ONLY = (BaseHTTPMiddleware, CORSMiddleware, GZipMiddleware)
"""Starlette's middlewares that pass WebSockets on unchanged. Subclasses do, unless they override ``__call__``."""

_FIND_REQUESTS = (Route, APIRoute)
_FIND_BY_PATH = (WebSocketRoute, APIWebSocketRoute, Mount)


def admissions(app: FastAPI) -> Admissions:
    """Return what an application announces when it starts: how to find the handshakes that need no request to it."""
    return Admissions(app, partial(_admitted_by, app))


def _admitted_by(app: FastAPI) -> dict[str, Admission]:
    """Return what admits handshakes, by path. All other handshakes are left to the application.

    So a path is left out in case of doubt: if a middleware is unknown or sees WebSockets, if a route of an unknown kind
    or for a host might take the handshake, and if the path has parameters.
    """
    found = dict[str, Admission]()
    if _passes_websockets_on(app):
        routes = list(_decided_by_path(app))
        # A path may have several routes, of which the first one gets the handshake.
        for path in dict.fromkeys(path for route in routes for path in _paths(route, app)):
            endpoint = _endpoint(path, routes, app)
            admission = endpoint.admission(app, path) if isinstance(endpoint, WebSocketEndpoint) else None
            if admission is not None:
                found[path] = admission
    return found


def _passes_websockets_on(app: FastAPI) -> bool:
    """Return whether nothing around the routes of an application acts on WebSockets."""
    layers = middlewares(app)
    # Only FastAPI's own classes are known: what overrides these methods may do anything with a WebSocket.
    if layers is None or _definer(app, "__call__") is not FastAPI or type(app.router) is not APIRouter:
        return False
    return not traces_websockets(app) and all(
        is_own_layer(layer) or _definer(layer, "__call__") in _FOR_REQUESTS_ONLY for layer in layers
    )


def _decided_by_path(app: FastAPI) -> Iterator[BaseRoute]:
    """Yield the routes that may take a WebSocket, up to the first one that may decide by more than the path."""
    for route in effective_routes(app.routes):
        definer = _definer(route, "matches")
        if definer in _FIND_BY_PATH:
            yield route
        elif definer not in _FIND_REQUESTS:
            return


def _paths(route: BaseRoute, app: FastAPI) -> Iterator[str]:
    """Yield the paths of handshakes for a route: also with the root path, which a proxy may leave in place."""
    if isinstance(route, WebSocketRoute) and not route.param_convertors:
        yield route.path
        yield app.root_path + route.path


def _endpoint(path: str, routes: list[BaseRoute], app: FastAPI) -> object:
    """Return the endpoint that gets the handshake: as in Starlette, that of the first matching route."""
    scope = {"type": "websocket", "path": path, "root_path": app.root_path, "path_params": {}}
    for route in routes:
        match, child_scope = route.matches(scope)
        if match is Match.FULL:
            return child_scope["endpoint"]
    return None


def _definer(thing: object, method: str) -> type | None:
    """Return the class that an object has this method from, or None if another package has replaced the method."""
    kind = next(each for each in type(thing).__mro__ if method in vars(each))
    return kind if is_as_written(vars(kind)[method], module=kind.__module__) else None
