"""All routes of one manager: as a router for any FastAPI application, or as an application's own."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import WebSocketRoute

from unmissed.api import websocket
from unmissed.api.auth import Bearer
from unmissed.api.health import add_health_routes
from unmissed.api.messages import add_message_routes
from unmissed.api.origins import Origins
from unmissed.api.problems import problem_route
from unmissed.api.redaction import keep_tokens_out_of_logs
from unmissed.delivery.manager import ConnectionManager


def create_router(manager: ConnectionManager, *, authenticate: Callable[..., Any] | None = None) -> APIRouter:
    """Return ``/ws``, ``/websocket/messages``, ``/livez`` and ``/readyz`` for this manager.

    ``authenticate`` is a FastAPI dependency that returns an ``Identity`` for requests and WebSockets alike (let it
    take a ``starlette.requests.HTTPConnection``) and raises HTTPException with status 401. Left out, it is a JWT
    under the manager's settings; raises ConfigurationError when those hold no usable key.
    """
    router = APIRouter()
    origins = Origins(manager.settings.allowed_origins)
    identify = authenticate or Bearer.of(manager.settings)
    websocket.add_websocket_route(router, manager, authenticate=identify, origins=origins)
    _add_rest_routes(router, manager, authenticate=identify, origins=origins)
    return router


def add_routes(app: FastAPI, manager: ConnectionManager) -> None:
    """Add the same routes to an application as its own, on the shortest way that a request can take.

    Raises ConfigurationError when the manager's settings hold no usable key.
    """
    origins = Origins(manager.settings.allowed_origins)
    bearer = Bearer.of(manager.settings)
    endpoint = websocket.WebSocketEndpoint(manager, bearer=bearer, origins=origins)
    app.router.routes.append(WebSocketRoute(websocket.PATH, endpoint))
    _add_rest_routes(app.router, manager, authenticate=bearer, origins=origins)


def _add_rest_routes(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], origins: Origins
) -> None:
    keep_tokens_out_of_logs()
    router.route_class = problem_route(origins)
    add_message_routes(router, manager, authenticate=authenticate)
    add_health_routes(router, manager)
