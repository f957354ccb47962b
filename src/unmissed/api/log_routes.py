"""``/websocket/log``: the retained messages, whoever they are for, the newest first."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unmissed.api.identity import checked
from unmissed.api.operator_models import LogPageBody
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import described, limit_parameter, number_parameter, parameter, topic_parameter
from unmissed.core.audience import ADMIN_SCOPE, TOPIC_PATTERN, Identity
from unmissed.core.browsing import MessageFilter, read_backwards
from unmissed.core.encoding import encode_json
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.messages import Message
from unmissed.core.window import Window
from unmissed.manager import ConnectionManager
from unmissed.tasks import Pace

PATH = "/websocket/log"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000


def add_log_route(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get(PATH, tags=["operators"], summary="Browse the log", response_class=Response, **_DOCS)
    async def log(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return retained messages that match all filters, whoever they are for, the newest first.

        A page examines at most 2,000 messages, and shows at most 1 MiB of them: it may be empty although there is a
        `next`.
        """
        checked(identity, manager).require(ADMIN_SCOPE, what="browsing the log")
        before, limit = number_parameter(request, "before"), limit_parameter(request, most=MAX_LIMIT)
        wanted = MessageFilter(
            type=parameter(request, "type"),
            topic=topic_parameter(request),
            user_id=parameter(request, "user"),
            search=parameter(request, "search") or "",
        )
        body = await _page(manager.running.window, before, wanted, limit=limit or DEFAULT_LIMIT)
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    add_options_route(router, PATH, methods="GET, OPTIONS")


async def _page(window: Window, before: int | None, wanted: MessageFilter, *, limit: int) -> bytes:
    """Return the body, with the messages as their clients get them. The work is done in slices of 5 ms."""
    pace, shown, examined, last = Pace(), list[bytes](), 0, 0
    for step in read_backwards(window, window.latest + 1 if before is None else before, wanted, limit=limit):
        examined, last = examined + 1, step.message.sequence_number
        if step.shown:
            shown.append(_shown(step.message))
        await pace.keep()
    rest = {
        "examined": examined,
        # What was evicted in the meantime is not worth another request.
        "next": last if last > window.oldest else None,
        "epoch": window.epoch,
        "oldest": window.oldest,
        "latest": window.latest,
    }
    return b'{"messages":[%b],%b' % (b",".join(shown), encode_json(rest)[1:])


def _shown(message: Message) -> bytes:
    audience = message.audience
    facts = {
        "everyone": audience.keys is None,
        "topics": audience.topics,
        "users": audience.users,
        "bytes": len(message.payload),
    }
    return b'{"message":%b,%b' % (message.payload, encode_json(facts)[1:])


_DOCS: dict[str, Any] = {
    "responses": {
        200: {"model": LogPageBody},
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "parameters": [
            described(
                "before",
                "Only messages below this number: the value of next in the answer before. Without it, from the newest.",
                {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_NUMBER},
            ),
            described("type", "Only messages of this type.", {"type": "string"}),
            described(
                "topic", "Only messages that are addressed to this topic.", {"type": "string", "pattern": TOPIC_PATTERN}
            ),
            described("user", "Only messages that are addressed to this user by id.", {"type": "string"}),
            described(
                "search",
                "Only messages with this in their JSON, or in a text of it. Upper and lower case make no difference.",
                {"type": "string"},
            ),
            described(
                "limit",
                "Maximum number of messages.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
        ]
    },
}
