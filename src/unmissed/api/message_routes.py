"""``/websocket/messages``: recovery and publishing over REST."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import (
    TOPICS_PARAMETER,
    described,
    idempotency_key,
    json_body,
    limit_parameter,
    parameter,
    since_parameter,
    topics_parameter,
)
from unmissed.core.audience import PUBLISH_SCOPE, Identity
from unmissed.core.encoding import decode_items
from unmissed.core.errors import InvalidMessage, MessageTooLarge
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.rest import RecoveryAnswer, live_body, stamp_body
from unmissed.logs.base import Publication
from unmissed.manager import ConnectionManager
from unmissed.running import LivePublication, RestQuery
from unmissed.security.access import Access

PATH = "/websocket/messages"
BATCH_FACTOR = 16
"""Maximum size of the body of a publish request, as a multiple of the maximum size of one message."""


def add_message_routes(
    router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any], access: Access
) -> None:
    """Add the routes. ``authenticate`` is a dependency that returns an Identity."""

    @router.get(PATH, summary="Get what was missed", response_class=Response, **_GET_DOCS)
    async def get_messages(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the retained messages after `since` that this user may see, and whether any are missing."""
        user_id = checked(identity, manager).user_id
        topics = await access.granted(identity, topics_parameter(request))
        since, limit = since_parameter(request), limit_parameter(request)
        query = RestQuery(user_id, topics, since, epoch=parameter(request, "epoch"), limit=limit)
        # After it, nothing is awaited: the page and the facts of the window beside it belong to one moment.
        page = await manager.running.recover(query)
        answer = RecoveryAnswer(
            payloads=[message.payload for message in page.messages],
            epoch=manager.window.epoch,
            first=manager.window.first_number,
            oldest=page.oldest,
            latest=page.latest,
            outcome=page.outcome,
            has_more=page.has_more,
            sequence_number=page.sequence_number,
            lost=page.lost,
            topics=topics,
            heartbeat_seconds=manager.settings.heartbeat_seconds,
            max_age=manager.window.retention.max_age,
            rate=manager.settings.client_rate,
            burst=manager.settings.client_burst,
            expires_in=manager.running.expires_in(identity),
        )
        return _json(answer.encode(), HTTPStatus.OK)

    @router.post(PATH, summary="Publish", response_class=Response, status_code=HTTPStatus.CREATED, **_POST_DOCS)
    async def publish(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Publish one message, or atomically an array of messages as one block of contiguous numbers.

        With `"ephemeral": true`, which an array has for all or for none, messages are delivered live and not stored.
        The header `Idempotency-Key`, 1 to 255 visible ASCII characters such as a UUID, makes repeating a request safe:
        the same key with the same messages returns the first answer and publishes nothing; with others it answers 422.
        """
        checked(identity, manager).require(PUBLISH_SCOPE, what="publishing")
        key = idempotency_key(request)
        body = await json_body(request, limit=manager.settings.max_message_bytes * BATCH_FACTOR)
        checked(identity, manager)  # The user may have been logged out while the body arrived.
        publication = await manager.running.publish_batch(
            _items(body, max_item_bytes=manager.settings.max_message_bytes),
            idempotency_key=key,
            publisher=identity.user_id,
        )
        if isinstance(publication, LivePublication):
            stamps, status = [live_body(publication.timestamp)] * publication.count, HTTPStatus.ACCEPTED
        else:
            stamps = _stamps(publication)
            status = HTTPStatus.OK if publication.repeated else HTTPStatus.CREATED
        is_array = body.lstrip().startswith(b"[")
        return _json(b"[%b]" % b",".join(stamps) if is_array else stamps[0], status)

    add_options_route(router, PATH, methods="GET, POST, OPTIONS")


def _json(body: bytes, status: HTTPStatus) -> Response:
    return Response(body, status, headers={"Cache-Control": "no-store"}, media_type="application/json")


def _stamps(publication: Publication) -> list[bytes]:
    receipt = publication.receipt
    return [
        stamp_body(number, epoch=receipt.epoch, timestamp=receipt.timestamp)
        for number in range(receipt.first, receipt.first + receipt.count)
    ]


def _items(body: bytes, *, max_item_bytes: int) -> Iterator[Any]:
    try:
        yield from decode_items(body, max_item_bytes=max_item_bytes)
    except MessageTooLarge:
        raise
    except ValueError as error:
        raise InvalidMessage(f"the body is not JSON: {error}") from None


_GET_DOCS: dict[str, Any] = {
    "tags": ["messages"],
    "responses": {
        200: {"model": models.RecoveryBody},
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
                "since",
                "The last sequence number you have; everything after it is returned. 0 returns everything retained.",
                {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_NUMBER, "default": 0},
            ),
            described(
                "epoch",
                "The epoch of that number. Optional: no number is used in two epochs.",
                {"type": "string"},
            ),
            TOPICS_PARAMETER,
            described(
                "limit",
                "Maximum number of messages; the default is all that fit into 1 MiB.",
                {"type": "integer", "minimum": 1, "maximum": MAX_SEQUENCE_NUMBER},
            ),
        ]
    },
}


def _batch(each: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an array of messages that also have the schema ``each``: all are ephemeral, or none is."""
    return {
        "type": "array",
        "items": {"allOf": [models.PublishBody.model_json_schema(), each]},
        "minItems": 1,
        "description": "At most as many messages as the log retains.",
    }


_POST_DOCS: dict[str, Any] = {
    "tags": ["messages"],
    "responses": {
        200: {
            "model": models.StampBody | list[models.StampBody],
            "description": "The Idempotency-Key was used before: the first response is repeated",
        },
        201: {"model": models.StampBody | list[models.StampBody], "description": "Published; an array if one was sent"},
        202: {
            "model": models.LiveBody | list[models.LiveBody],
            "description": "Ephemeral messages were delivered to clients that are up to date",
        },
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            models.PublishBody.model_json_schema(),
                            _batch({"properties": {"ephemeral": {"enum": [False]}}}),
                            _batch({"properties": {"ephemeral": {"enum": [True]}}, "required": ["ephemeral"]}),
                        ]
                    }
                }
            },
        },
    },
}
