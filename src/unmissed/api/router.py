"""All routes of one manager, to be included in any FastAPI application."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from unmissed.api.auth import Bearer
from unmissed.api.health import health_router
from unmissed.api.messages import messages_router
from unmissed.api.origins import Origins
from unmissed.api.problems import problem_route
from unmissed.api.redaction import keep_tokens_out_of_logs
from unmissed.api.websocket import websocket_router
from unmissed.delivery.manager import ConnectionManager


def create_router(manager: ConnectionManager, *, authenticate: Callable[..., Any] | None = None) -> APIRouter:
    """Return ``/ws``, ``/websocket/messages``, ``/livez`` and ``/readyz`` for this manager.

    ``authenticate`` is a FastAPI dependency that returns an ``Identity`` for requests and WebSockets alike (let it
    take a ``starlette.requests.HTTPConnection``) and raises HTTPException with status 401. Left out, it is a JWT
    under the manager's settings; raises ConfigurationError when those hold no usable key.
    """
    keep_tokens_out_of_logs()
    origins = Origins(manager.settings.allowed_origins)
    identify = authenticate or Bearer.of(manager.settings)
    router = APIRouter()
    router.include_router(messages_router(manager, authenticate=identify, route_class=problem_route(origins)))
    router.include_router(websocket_router(manager, authenticate=identify, origins=origins))
    router.include_router(health_router(manager))
    return router
