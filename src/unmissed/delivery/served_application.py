"""An application whose settings are checked at its startup, and which reports in one line why it cannot start."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from unmissed.core.errors import ConfigurationError
from unmissed.delivery.portable import AsgiEvent, Receive, Send
from unmissed.delivery.socket import ADMISSIONS_STATE, Admissions

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ServedApplication:
    """An application that reports in one line why it cannot start.

    ``create`` is called at startup, so that importing needs no settings. It raises ConfigurationError.
    """

    def __init__(self, create: Callable[[], Application]) -> None:
        self._create = create

    @cached_property
    def application(self) -> Application:
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

    async def _send(self, state: Scope, send: Send, message: AsgiEvent) -> None:
        """Send a message of the lifespan, with one line in place of a traceback that reports a ConfigurationError."""
        announced = state.get(ADMISSIONS_STATE)
        if isinstance(announced, Admissions) and announced.application is self.application:
            # Every WebSocket is passed on unchanged, so what the application has announced is true of this one, too.
            state[ADMISSIONS_STATE] = replace(announced, application=self)
        await send(_in_one_line(message))


def _in_one_line(message: AsgiEvent) -> AsgiEvent:
    """Return the message, with the text of a ConfigurationError in place of the traceback that Starlette reports."""
    reported = message.get("message", "").strip().rpartition("\n")[2]
    kind, _, text = reported.partition(": ")
    if message["type"] == "lifespan.startup.failed" and kind.endswith(ConfigurationError.__name__):
        return {**message, "message": f"unmissed: {text}"}
    return message
