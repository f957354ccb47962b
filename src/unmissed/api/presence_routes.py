"""``/websocket/presence``: who follows a topic now."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import described, limit_parameter, parameter
from unmissed.core.audience import TOPIC_PATTERN, Identity
from unmissed.manager import ConnectionManager
from unmissed.security.access import Access

PATH = "/websocket/presence"
MAX_LISTED = 1_000
"""The most users in one answer."""


def add_presence_route(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], access: Access
) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity."""

    @router.get(PATH, tags=["people"], summary="Who follows a topic?", response_class=Response, **_DOCS)
    async def presence(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the users that follow a topic now. The client itself must be allowed to follow it."""
        checked(identity, manager)
        # Before the topic is checked, so that a refused question counts, too.
        manager.running.count_request(identity)
        topic = parameter(request, "topic")
        if topic is None:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "topic is required, such as ?topic=rooms.1")
        await access.granted(identity, [topic])
        limit = limit_parameter(request, most=MAX_LISTED) or MAX_LISTED
        followers = await manager.followers(topic, limit=limit)
        body = models.PresenceBody(
            topic=topic,
            users=[models.PresentUser(user_id=user_id, connections=n) for user_id, n in followers.users.items()],
            total_users=followers.total_users,
            total_connections=followers.total_connections,
        )
        return models.answer(body)

    add_options_route(router, PATH, methods="GET, OPTIONS")


_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": MAX_LISTED}
_DOCS: dict[str, Any] = {
    "responses": {
        200: {"model": models.PresenceBody},
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
            described("topic", "The topic.", {"type": "string", "pattern": TOPIC_PATTERN}, required=True),
            described("limit", "Maximum number of users.", _LIMIT),
        ]
    },
}
