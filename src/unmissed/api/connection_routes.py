"""``/websocket/connections``: what operators see of the connections, and logging users out."""

from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import described, flag_parameter, limit_parameter, parameter
from unmissed.cluster.presence import ConnectionInfo
from unmissed.core.audience import ADMIN_SCOPE, Identity
from unmissed.core.errors import UnknownConnection
from unmissed.core.messages import rfc3339
from unmissed.manager import ConnectionManager

PATH = "/websocket/connections"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000


def add_connection_routes(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the routes. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get(PATH, tags=["operators"], summary="List connections", response_class=Response, **_GET_DOCS)
    async def connections(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the open connections, or those of one user, a page at a time."""
        checked(identity, manager).require(ADMIN_SCOPE, what="listing connections")
        limit = limit_parameter(request, most=MAX_LIMIT) or DEFAULT_LIMIT
        after, user_id = parameter(request, "after") or "", parameter(request, "user")
        # One more than the page has shows whether another page follows.
        found = await manager.running.cluster.presence.listed(after=after, limit=limit + 1, user_id=user_id)
        body = models.ConnectionsBody(
            connections=[_body(info) for info in found[:limit]],
            next=found[limit - 1].connection_id if len(found) > limit else None,
        )
        return models.answer(body)

    @router.delete(PATH, tags=["operators"], summary="Log out", response_class=Response, **_DELETE_DOCS)
    async def log_out(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Close the connections of a user, or one connection, with code 4401.

        Tokens of that user issued up to now, or the tokens of that connection, are refused from now on. With
        `reconnect=true`, one connection is closed with code 1012 and nothing is refused: its client reconnects. The
        status 503 says that the other nodes could not be reached, and may accept the tokens.
        """
        checked(identity, manager).require(ADMIN_SCOPE, what="closing connections")
        match parameter(request, "user"), parameter(request, "connection_id"), parameter(request, "reconnect"):
            case str(user_id), None, None if user_id:
                return models.answer(models.ClosedBody(closed=await manager.log_out(user_id)))
            case None, str(connection_id), _ if connection_id:
                reconnects = flag_parameter(request, "reconnect")
                try:
                    await (manager.reconnect if reconnects else manager.log_out_connection)(connection_id)
                except UnknownConnection:
                    raise HTTPException(HTTPStatus.NOT_FOUND, "no open connection has this id") from None
                return models.answer(models.ClosedBody(closed=1))
            case _:
                raise HTTPException(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "give either user or connection_id, and reconnect only with the latter",
                )

    add_options_route(router, PATH, methods="GET, DELETE, OPTIONS")


def _body(info: ConnectionInfo) -> models.ConnectionBody:
    return models.ConnectionBody(**{**asdict(info), "connected_at": rfc3339(info.connected_at)})


_REFUSALS = documented(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_GET_DOCS: dict[str, Any] = {
    "responses": {200: {"model": models.ConnectionsBody}, **_REFUSALS},
    "openapi_extra": {
        "parameters": [
            described("user", "Only the connections of this user.", {"type": "string"}),
            described("after", "The value of next in the answer before.", {"type": "string"}),
            described(
                "limit",
                "Maximum number of connections.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
        ]
    },
}
_NAME = {"type": "string", "minLength": 1}
_WHOM = {
    "type": "object",
    "properties": {
        "user": _NAME,
        "connection_id": _NAME,
        "reconnect": {
            "type": "boolean",
            "description": "With connection_id: let the client reconnect, instead of refusing its token.",
        },
    },
    "oneOf": [
        {"required": ["user"], "properties": {"connection_id": False, "reconnect": False}},
        {"required": ["connection_id"], "properties": {"user": False}},
    ],
}
_DELETE_DOCS: dict[str, Any] = {
    "responses": {200: {"model": models.ClosedBody}, **_REFUSALS, **documented(HTTPStatus.NOT_FOUND)},
    "openapi_extra": {
        "parameters": [
            # OpenAPI expresses the choice between two parameters as one object, whose properties are the parameters.
            {
                **described("whom", "Either user, to log out, or connection_id, to close.", _WHOM, required=True),
                "style": "form",
                "explode": True,
            }
        ]
    },
}
