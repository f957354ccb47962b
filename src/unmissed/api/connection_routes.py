"""``/websocket/connections``: what operators see of the connections, and logging users out."""

import re
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.operator_models import ClosedBody, ConnectionBody, ConnectionsBody
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import (
    choice_parameter,
    described,
    flag_parameter,
    limit_parameter,
    parameter,
    topic_parameter,
)
from unmissed.cluster.listing import ConnectionInfo, ConnectionQuery, Place, Sort
from unmissed.core.audience import ADMIN_SCOPE, TOPIC_PATTERN, Identity
from unmissed.core.errors import UnknownConnection
from unmissed.core.messages import rfc3339
from unmissed.manager import ConnectionManager

PATH = "/websocket/connections"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
SORTS: tuple[Sort, ...] = get_args(Sort)
ORDERS = ("asc", "desc")


def add_connection_routes(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the routes. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get(PATH, tags=["operators"], summary="List connections", response_class=Response, **_GET_DOCS)
    async def connections(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the open connections to all nodes that match all filters, a page at a time.

        Each connection is on one page, also if others come and go meanwhile. Only with `sort=lag`, whose values change,
        a connection may move to another page between two requests.
        """
        checked(identity, manager).require(ADMIN_SCOPE, what="listing connections")
        query = _query(request)
        page = await manager.running.cluster.listing.page(query)
        shown = page.connections[: query.limit - 1]
        body = ConnectionsBody(
            connections=[_body(info) for info in shown],
            total=page.total,
            matching=page.matching,
            next=_next(shown[-1], query.sort) if len(page.connections) == query.limit else None,
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
                return models.answer(ClosedBody(closed=await manager.log_out(user_id)))
            case None, str(connection_id), _ if connection_id:
                reconnects = flag_parameter(request, "reconnect")
                try:
                    await (manager.reconnect if reconnects else manager.log_out_connection)(connection_id)
                except UnknownConnection:
                    raise HTTPException(HTTPStatus.NOT_FOUND, "no open connection has this id") from None
                return models.answer(ClosedBody(closed=1))
            case _:
                raise HTTPException(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "give either user or connection_id, and reconnect only with the latter",
                )

    add_options_route(router, PATH, methods="GET, DELETE, OPTIONS")


def _query(request: Request) -> ConnectionQuery:
    """Return what is asked for. Raises InvalidTopic, or HTTPException with status 422."""
    sort: Sort = choice_parameter(request, "sort", SORTS) or "id"  # type: ignore[assignment]  # it is one of them
    return ConnectionQuery(
        # One more than the page has shows whether another page follows.
        limit=(limit_parameter(request, most=MAX_LIMIT) or DEFAULT_LIMIT) + 1,
        sort=sort,
        descending=choice_parameter(request, "order", ORDERS) == "desc",
        after=_place(parameter(request, "after"), sort),
        user_id=parameter(request, "user"),
        topic=topic_parameter(request),
        search=(parameter(request, "search") or "").casefold(),
    )


def _next(info: ConnectionInfo, sort: Sort) -> str:
    """Return the place of the last connection of a page as text. Ids of connections have no ``~``."""
    value, connection_id = info.place(sort)
    return connection_id if sort == "id" else f"{sort}~{connection_id}~{value}"


def _place(text: str | None, sort: Sort) -> Place | None:
    """Return the place that ``_next`` has written. Raises HTTPException with status 422."""
    if not text:
        return None
    if sort == "id":
        return "", text
    found = re.fullmatch(_PLACES[sort], text, re.ASCII)
    if found is None:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "after must be the value of next in an answer with the same sort"
        )
    return _VALUES[sort](found[2]), found[1]


_VALUES: dict[Sort, Callable[[str], Any]] = {"user": str, "lag": int, "connected_at": float}
_PLACES: dict[Sort, str] = {
    "user": r"user~([^~]+)~([\s\S]*)",
    "lag": "lag~([^~]+)~(0|[1-9][0-9]{0,15})",
    "connected_at": r"connected_at~([^~]+)~([0-9]{1,12}\.[0-9]{1,12})",
}


def _body(info: ConnectionInfo) -> ConnectionBody:
    facts = {**asdict(info), "connected_at": rfc3339(info.connected_at)}
    return ConnectionBody(node_id=info.connection_id.partition(".")[0], **facts)


_REFUSALS = documented(
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_PLACE = {
    "type": "object",
    "properties": {
        "sort": {"type": "string", "enum": [*SORTS], "default": "id"},
        "after": {"type": "string", "description": "The value of next in the answer before, with the same sort."},
    },
    "oneOf": [
        {"properties": {"sort": {"enum": ["id"]}}},
        *(
            {
                "required": ["sort"],
                "properties": {"sort": {"enum": [sort]}, "after": {"pattern": f"^({pattern})?$"}},
            }
            for sort, pattern in _PLACES.items()
        ),
    ],
}
_GET_DOCS: dict[str, Any] = {
    "responses": {200: {"model": ConnectionsBody}, **_REFUSALS},
    "openapi_extra": {
        "parameters": [
            described("user", "Only the connections of this user.", {"type": "string"}),
            described(
                "topic", "Only the connections that follow this topic.", {"type": "string", "pattern": TOPIC_PATTERN}
            ),
            described(
                "search",
                "Only those with this text in the id of the user or the connection, in the address of the client, or "
                "in a topic. Upper and lower case make no difference.",
                {"type": "string"},
            ),
            # As below: which values of after are valid depends on sort.
            {
                **described("place", "By what they are sorted, and after which one the page begins.", _PLACE),
                "style": "form",
                "explode": True,
            },
            described("order", "In which order.", {"type": "string", "enum": [*ORDERS], "default": "asc"}),
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
    "responses": {200: {"model": ClosedBody}, **_REFUSALS, **documented(HTTPStatus.NOT_FOUND)},
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
