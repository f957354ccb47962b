"""``/websocket/events``: the frames of a WebSocket as Server-Sent Events, for clients whose WebSockets are blocked."""

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from unmissed.api.error_table import refuse
from unmissed.api.identity import allowed
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import Asked, described
from unmissed.core.audience import TOPICS_PATTERN, Identity
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.rest import EVENTS_PATH, EVENTS_TRANSPORT
from unmissed.delivery.portable import AsgiEventStream
from unmissed.delivery.socket import BODY_EXTENSION, Socket
from unmissed.manager import ConnectionManager
from unmissed.security.access import NO_RENEWAL, Access
from unmissed.security.origins import Origins

_STREAMS_KEY = "unmissed.streams"
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would collect events until a buffer is full.
    "X-Accel-Buffering": "no",
}


def add_event_stream_route(
    router: APIRouter,
    manager: ConnectionManager,
    *,
    authenticate: Callable[..., Any],
    access: Access,
    origins: Origins,
    route_class: type[APIRoute],
) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity."""

    async def events(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Stream the messages after a position, and then every new one, as on the WebSocket `/ws`.

        Each event has a frame as its `data`, and the frame's sequence number, if there is one, as its `id`. The header
        `Last-Event-ID` replaces `since` and `epoch`. An `error` frame before the end has the close code.
        """
        allowed(request, identity, manager=manager, origins=origins)
        asked = Asked.by(request)
        subscription = asked.granted(identity, await access.granted(identity, asked.topics))
        await manager.running.catch_up(subscription.since)
        # Before the head: after it, an error can only be the last event.
        manager.running.check_capacity(identity.user_id)
        connect = partial(
            manager.running.connect,
            subscription=subscription,
            access=NO_RENEWAL,
            transport=EVENTS_TRANSPORT,
            max_seconds=manager.settings.events_seconds,
        )
        return EventStreamResponse(connect, manager=manager)

    router.add_api_route(EVENTS_PATH, events, route_class_override=_releasing(route_class), **_DOCS)
    add_options_route(router, EVENTS_PATH, methods="GET, OPTIONS")


def _releasing(route_class: type[APIRoute]) -> type[APIRoute]:
    """Return a route class that streams after FastAPI has released the dependencies, such as a database session.

    FastAPI itself keeps them until the response ends.
    """

    class ReleasingRoute(route_class):  # type: ignore[misc, valid-type]  # mypy wants a class that it knows
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            streams: list[Callable[[], Awaitable[None]]] = []
            scope[_STREAMS_KEY] = streams
            await super().handle(scope, receive, send)
            for stream in streams:
                await stream()

    return ReleasingRoute


class EventStreamResponse(Response):
    """A response that connects its body: ``connect(socket)``, whose errors are reported in the last event.

    Its route sends it, once the dependencies are released. The server's native socket needs no task. Without one, or if
    a middleware has not passed the head on yet, events are sent in the ASGI way.
    """

    def __init__(self, connect: Callable[[Socket], object], *, manager: ConnectionManager) -> None:
        # Response.__init__ would render a body and set its length.
        self.status_code = HTTPStatus.OK
        self.background = None
        self._connect = connect
        self._manager = manager
        self.init_headers(_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the route send this response."""
        scope[_STREAMS_KEY].append(partial(self._stream, scope, receive, send))

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, and deliver to the body."""
        hand_over = scope.get("extensions", {}).get(BODY_EXTENSION)
        # The native socket takes the connection over for good: no request can follow the stream.
        if hand_over is not None:
            self.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        socket = hand_over and hand_over()
        if socket is not None:
            self._deliver(socket, scope)
        else:
            portable = AsgiEventStream(receive, send)
            self._deliver(portable, scope)
            await portable.run()

    def _deliver(self, socket: Socket, scope: Scope) -> None:
        """Connect a socket, or report why not: since the head was sent, a limit may have been reached."""
        try:
            self._connect(socket)
        except Exception as error:  # noqa: BLE001  # refuse() logs it
            refusal = refuse(error, Request(scope), manager=self._manager)
            socket.close(refusal.close_code, refusal.detail)


_DOCS: dict[str, Any] = {
    "tags": ["messages"],
    "summary": "Stream what was missed and what is new",
    "response_class": Response,
    "responses": {
        200: {
            "description": "The events. Each `data` is a frame of the WebSocket.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "parameters": [
            described(
                "since",
                "Your position: everything after it follows. Without it, delivery starts with the next message.",
                {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_NUMBER},
            ),
            described(
                "epoch",
                "The epoch of that number. Optional: no number is used in two epochs.",
                {"type": "string"},
            ),
            described(
                "topics",
                "Comma-separated topics to follow; the default is every topic that the token grants by name.",
                {"type": "string", "pattern": TOPICS_PATTERN},
            ),
            described(
                "state",
                "Whether the values by key come first, unless nothing after the position is lost.",
                {"type": "boolean", "default": False},
            ),
            {
                **described(
                    "Last-Event-ID", "The position of a browser's EventSource, in place of since.", {"type": "integer"}
                ),
                "in": "header",
            },
        ]
    },
}
