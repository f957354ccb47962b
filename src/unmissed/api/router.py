"""All routes of one manager: as a router for any FastAPI application, or as routes of the built-in one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import APIRouter, FastAPI

from unmissed.api.admission import admissions
from unmissed.api.asyncapi import add_asyncapi_route
from unmissed.api.browser_routes import add_browser_routes
from unmissed.api.command_routes import add_command_route
from unmissed.api.connection_routes import add_connection_routes
from unmissed.api.event_stream_routes import add_event_stream_route
from unmissed.api.identity import Bearer, get_identity, share_bearer, shared_bearer
from unmissed.api.log_routes import add_log_route
from unmissed.api.message_routes import add_message_routes
from unmissed.api.metrics_routes import add_metrics_route
from unmissed.api.overview_routes import add_overview_routes
from unmissed.api.presence_routes import add_presence_route
from unmissed.api.problems import problem_route
from unmissed.api.state_routes import add_state_route
from unmissed.api.status_routes import add_health_routes, add_status_route
from unmissed.api.websocket_endpoint import WebSocketEndpoint, add_upgrade_route
from unmissed.core.errors import ConfigurationError
from unmissed.delivery.socket import ADMISSIONS_STATE, STALL_STATE
from unmissed.manager import ConnectionManager
from unmissed.security.access import Access, Authorize
from unmissed.security.origins import Origins
from unmissed.security.redaction import keep_tokens_out_of_logs


def create_router(
    manager: ConnectionManager,
    *,
    authenticate: Callable[..., Any] | None = None,
    authorize: Authorize | None = None,
) -> APIRouter:
    """Return ``/ws``, ``/websocket/messages`` and the other routes of this manager.

    ``authenticate`` is a FastAPI dependency that returns an ``Identity`` for requests and WebSockets alike (declare its
    parameter as ``starlette.requests.HTTPConnection``) and raises HTTPException with status 401. The default is
    ``get_identity``, which verifies JWTs with the manager's settings. ``authorize(identity, topic)``, async or not,
    returns whether that user may follow that topic; by default, the topics of the identity decide.

    Dependencies of the application, and of routers around this one, guard all routes. Those of ``/ws`` are resolved for
    a WebSocket, too: the start is refused if one of them needs a ``Request``. Raises ConfigurationError if the settings
    have no usable key.
    """
    bearer = _bearer(manager, authenticate)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if router.dependencies:
            raise ConfigurationError(
                "dependencies that are added to the router of create_router come too late for its routes: write "
                "app.include_router(router, dependencies=[...])"
            )
        # Not before the start: until then, routers and their dependencies may still be added.
        websocket.injection.check(app)
        share_bearer(app, bearer, manager)
        async with bearer.running() if bearer else nullcontext():
            # Every router of an application announces the same: of equal keys in the state, the last one is kept.
            yield {STALL_STATE: manager.settings.stall_seconds, ADMISSIONS_STATE: admissions(app)}

    router = APIRouter(lifespan=lifespan)
    websocket = _fill(router, manager, authenticate=authenticate or get_identity, bearer=bearer, authorize=authorize)
    return router


def add_routes(app: FastAPI, manager: ConnectionManager) -> None:
    """Add the same routes to an application itself. Raises ConfigurationError.

    FastAPI takes longer to find a route in an included router than this server takes to authenticate a request.
    """
    bearer = Bearer.of(manager.settings)
    share_bearer(app, bearer, manager)
    router = APIRouter(dependency_overrides_provider=app)
    _fill(router, manager, authenticate=get_identity, bearer=bearer, authorize=None)
    # In front of the routes for /docs, since Starlette tries one route after another.
    app.router.routes[:0] = router.routes


@asynccontextmanager
async def serving(app: FastAPI, manager: ConnectionManager) -> AsyncIterator[dict[str, Any]]:
    """Run a manager as the lifespan of an application with ``add_routes``."""
    bearer = shared_bearer(app)
    async with bearer.running() if bearer else nullcontext(), manager.lifespan(app) as state:
        yield {**state, ADMISSIONS_STATE: admissions(app)}


def _fill(
    router: APIRouter,
    manager: ConnectionManager,
    *,
    authenticate: Callable[..., Any],
    bearer: Bearer | None,
    authorize: Authorize | None,
) -> WebSocketEndpoint:
    keep_tokens_out_of_logs()
    origins = Origins(manager.settings.allowed_origins)
    # Before any route is added, since routes are created with the class that the router has then.
    router.route_class = problem_route(origins, manager=manager, bearer=bearer)
    websocket = WebSocketEndpoint(
        router, manager, authenticate=authenticate, bearer=bearer, authorize=authorize, origins=origins
    )
    add_upgrade_route(router)
    access = Access(authorize=authorize)
    add_message_routes(router, manager, authenticate=authenticate, access=access)
    add_event_stream_route(
        router,
        manager,
        authenticate=authenticate,
        access=access,
        origins=origins,
        route_class=problem_route(origins, manager=manager, bearer=bearer, query_token=True),
    )
    add_state_route(router, manager, authenticate=authenticate, access=access)
    add_command_route(router, manager, authenticate=authenticate)
    add_presence_route(router, manager, authenticate=authenticate, access=access)
    add_connection_routes(router, manager, authenticate=authenticate)
    add_overview_routes(router, manager, authenticate=authenticate)
    add_log_route(router, manager, authenticate=authenticate)
    add_status_route(router, manager, authenticate=authenticate)
    add_metrics_route(router, manager, authenticate=authenticate)
    if manager.settings.docs:
        add_asyncapi_route(router, manager)
    add_health_routes(router, manager, bearer=bearer)
    add_browser_routes(router, console=manager.settings.console)
    return websocket


def _bearer(manager: ConnectionManager, authenticate: Callable[..., Any] | None) -> Bearer | None:
    """Return the bearer that verifies tokens, or None if the application uses another authentication."""
    if authenticate is None:
        return Bearer.of(manager.settings)
    if not callable(authenticate):
        raise ConfigurationError(
            "authenticate is the function itself: write authenticate=current_user, and not Depends(current_user)"
        )
    return authenticate if isinstance(authenticate, Bearer) else None
