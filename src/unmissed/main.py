"""The built-in application: ``uvicorn unmissed.main:app``, configured by environment variables."""

import logging
import time
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI

from unmissed.api.router import add_routes, serving
from unmissed.delivery.served_application import ServedApplication
from unmissed.manager import ConnectionManager
from unmissed.settings import Settings, unknown_variables

logger = logging.getLogger("unmissed")


def create_app(settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """Return an application that serves one manager, ``app.state.manager``. Raises ConfigurationError."""
    manager = ConnectionManager(settings, clock=clock)
    docs = manager.settings.docs
    for name in unknown_variables():
        logger.warning("%s is not a setting and is ignored: 'unmissed check' lists the settings", name)
    app = FastAPI(
        title="Unmissed",
        summary="WebSocket messages that survive reconnects.",
        description=(
            "A client reconnects with the last `sequence_number` it saw, and receives exactly what it missed. "
            "Its WebSocket `/ws` is described in [asyncapi.json](websocket/asyncapi.json)."
        ),
        lifespan=partial(serving, manager=manager),
        openapi_url="/openapi.json" if docs else None,
        # FastAPI redirects to an absolute URL, which would repeat ?token= in a header that proxies log.
        redirect_slashes=False,
    )
    app.state.manager = manager
    add_routes(app, manager)
    return app


app = ServedApplication(create_app)
