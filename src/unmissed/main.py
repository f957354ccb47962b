"""The built-in application: ``uvicorn unmissed.main:app``, configured by environment variables."""

import logging
import time
from collections.abc import Callable
from functools import cached_property, partial

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from unmissed.api.router import add_routes
from unmissed.core.errors import ConfigurationError
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
        lifespan=manager.lifespan,
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

    def __init__(self, create: Callable[[], FastAPI]) -> None:
        self._create = create

    @cached_property
    def unmissed_application(self) -> FastAPI:
        """The application that serves every request. Raises ConfigurationError."""
        return self._create()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the application, or report at startup why that is impossible."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.unmissed_application(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            application = self.unmissed_application
        except ConfigurationError as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"unmissed: {error}"})
            return
        await application(scope, receive, partial(_send_in_one_line, send))


async def _send_in_one_line(send: Send, message: Message) -> None:
    """Send a message, with the text of a ConfigurationError in place of the traceback that Starlette reports."""
    reported = message.get("message", "").strip().rpartition("\n")[2]
    kind, _, text = reported.partition(": ")
    if message["type"] == "lifespan.startup.failed" and kind.endswith(ConfigurationError.__name__):
        message = {**message, "message": f"unmissed: {text}"}
    await send(message)


app = ServedApplication(create_app)
