"""``/websocket/state``: the retained values by key, cut at one number, for a page that loads."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import TOPICS_PARAMETER, described, number_parameter, topics_parameter
from unmissed.core.audience import Identity
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.rest import StateAnswer
from unmissed.manager import ConnectionManager
from unmissed.running import StateQuery
from unmissed.security.access import Access

PATH = "/websocket/state"


def add_state_route(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], access: Access
) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity."""

    @router.get(PATH, summary="Get the values by key", response_class=Response, **_DOCS)
    async def get_state(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the retained values by key that this user may see, in order, as they were at one number.

        Then continue after that number, with `since`. While `has_more` is true, ask for the next page. If the log has
        begun a new epoch since the first one, this is a conflict: begin again.
        """
        user_id = checked(identity, manager).user_id
        topics = await access.granted(identity, topics_parameter(request))
        after, through = number_parameter(request, "after"), number_parameter(request, "through")
        if through is None:
            # A cut at a later number might include what has replaced, or removed, a value of the page before.
            through = after
        page = await manager.running.state(StateQuery(user_id, topics, after, through))
        answer = StateAnswer(
            payloads=[message.payload for message in page.values],
            epoch=manager.window.epoch,
            first=manager.window.first_number,
            latest=manager.window.latest,
            sequence_number=page.sequence_number,
            has_more=page.has_more,
            topics=topics,
        )
        return Response(answer.encode(), headers={"Cache-Control": "no-store"}, media_type="application/json")

    add_options_route(router, PATH, methods="GET, OPTIONS")


_NUMBER = {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_NUMBER}
_DOCS: dict[str, Any] = {
    "tags": ["messages"],
    "responses": {
        200: {"model": models.StateBody},
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "parameters": [
            TOPICS_PARAMETER,
            described("after", "For the next page: the number of the last value of this one.", _NUMBER),
            described("through", "For the next page: the sequence_number of this one. By default after.", _NUMBER),
        ]
    },
}
