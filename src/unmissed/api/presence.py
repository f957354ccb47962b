"""``/websocket/presence``: who follows a topic now."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.problems import add_options_route, documented
from unmissed.api.query import described, limit_parameter, parameter
from unmissed.core.audience import Identity
from unmissed.core.topics import TOPIC_PATTERN
from unmissed.delivery.access import Access
from unmissed.manager import ConnectionManager

PATH = "/websocket/presence"
MAX_USERS = 1_000
"""The most users in one answer."""


def add_presence_route(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], access: Access
) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity."""

    @router.get(
        "/websocket/presence", tags=["people"], summary="Who follows a topic?", response_class=Response, **_DOCS
    )
    async def presence(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the users that follow a topic now, which the client itself must be allowed to follow."""
        checked(identity, manager)
        topic = parameter(request, "topic")
        if topic is None:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "topic is required, such as ?topic=rooms.1")
        await access.granted(identity, [topic])
        users = await manager.users(topic)
        listed = sorted(users.items())[: limit_parameter(request, default=MAX_USERS, most=MAX_USERS)]
        body = models.PresenceBody(
            topic=topic,
            users=[models.PresentUser(user_id=user_id, connections=count) for user_id, count in listed],
            total_users=len(users),
            total_connections=sum(users.values()),
        )
        return models.answer(body)

    add_options_route(router, PATH, methods="GET, OPTIONS")


_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_USERS, "default": MAX_USERS}
_DOCS: dict[str, Any] = {
    "responses": {
        200: {"model": models.PresenceBody},
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "parameters": [
            described("topic", "The topic.", {"type": "string", "pattern": TOPIC_PATTERN}, required=True),
            described("limit", "Maximum number of users.", _LIMIT),
        ]
    },
}
