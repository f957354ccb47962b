"""The ready application: ``uvicorn unmissed.main:app``, configured by the environment."""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI

from unmissed.api.router import add_routes
from unmissed.delivery.manager import ConnectionManager
from unmissed.settings import Settings, unknown_variables

logger = logging.getLogger("uvicorn.error")


def create_app(settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """Return an application that hosts one manager; it is at ``app.state.manager``. Raises ConfigurationError."""
    manager = ConnectionManager(settings, clock=clock)
    for name in unknown_variables():
        logger.warning("%s means nothing and is ignored: see 'unmissed check' for the names that do", name)
    app = FastAPI(
        title="Unmissed",
        summary="WebSocket messages that survive reconnects.",
        description="Clients come back with the last `sequence_number` they saw, and get exactly what they missed.",
        lifespan=manager.lifespan,
    )
    app.state.manager = manager
    add_routes(app, manager)
    return app


def __getattr__(name: str) -> Any:
    """Build ``app`` when a server asks for it, so that importing this module needs no settings."""
    if name == "app":
        return _app()
    raise AttributeError(name)


@cache
def _app() -> FastAPI:
    return create_app()
