"""The built-in application: ``uvicorn unmissed.main:app``, configured by environment variables."""

import logging
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unmissed.api.router import add_routes, serving
from unmissed.core.errors import ConfigurationError
from unmissed.delivery.socket import ADMISSIONS_STATE, Admissions
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


class ServedApplication:
    """An application that reports in one line why it cannot start.

    ``create`` is called at startup, so that importing needs no settings. It raises ConfigurationError.
    """

    def __init__(self, create: Callable[[], ASGIApp]) -> None:
        self._create = create

    @cached_property
    def application(self) -> ASGIApp:
        """The application that serves every request. Raises ConfigurationError."""
        return self._create()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the application, or report at startup why that is impossible."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            application = self.application
        except ConfigurationError as error:
            # ASGI: the event ``lifespan.startup`` comes before its answer.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"unmissed: {error}"})
            return
        await application(scope, receive, partial(self._send, scope.get("state", {}), send))

    async def _send(self, state: MutableMapping[str, Any], send: Send, message: Message) -> None:
        """Send a message of the lifespan, with one line in place of a traceback that reports a ConfigurationError."""
        announced = state.get(ADMISSIONS_STATE)
        if isinstance(announced, Admissions) and announced.application is self.application:
            # Every WebSocket is passed on unchanged, so what the application has announced is true of this one, too.
            state[ADMISSIONS_STATE] = replace(announced, application=self)
        await send(_in_one_line(message))


def _in_one_line(message: Message) -> Message:
    """Return the message, with the text of a ConfigurationError in place of the traceback that Starlette reports."""
    reported = message.get("message", "").strip().rpartition("\n")[2]
    kind, _, text = reported.partition(": ")
    if message["type"] == "lifespan.startup.failed" and kind.endswith(ConfigurationError.__name__):
        return {**message, "message": f"unmissed: {text}"}
    return message


app = ServedApplication(create_app)
