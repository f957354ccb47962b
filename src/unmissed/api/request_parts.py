"""The parts of a request, read strictly: query, headers and JSON body, and what a connecting client asks for.

FastAPI itself accepts ``since=+5``, uses the last value of a repeated parameter, and reads a body of any size.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect, HTTPConnection

from unmissed.core.audience import TOPICS_PATTERN, Identity, checked_topic
from unmissed.core.errors import InvalidPosition, MessageTooLarge
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.rest import BEARER_SUBPROTOCOL
from unmissed.security.access import Subscription

_JSON_TYPES = re.compile(r"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)
_CANONICAL_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,255}")


def parameter(connection: HTTPConnection, name: str) -> str | None:
    """Return a parameter that may be given at most once, or None. Raises HTTPException with status 422."""
    values = connection.query_params.getlist(name)
    if len(values) > 1:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} is given {len(values)} times: give it once")
    return values[0] if values else None


def since_parameter(connection: HTTPConnection) -> int | None:
    """Return ``since``, or None when it is absent. Raises InvalidPosition, or HTTPException with status 422."""
    text = parameter(connection, "since")
    return None if text is None else parse_sequence_number(text)


def topics_parameter(connection: HTTPConnection) -> list[str] | None:
    """Return the comma-separated ``topics``, or None when they are absent. Raises HTTPException with status 422."""
    text = parameter(connection, "topics")
    if text is None:
        return None
    return text.split(",") if text else []


def flag_parameter(connection: HTTPConnection, name: str) -> bool:
    """Return whether a parameter is ``true``; it may be left out. Raises HTTPException with status 422."""
    text = parameter(connection, name)
    if text not in (None, "true", "false"):
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} must be true or false")
    return text == "true"


def limit_parameter(connection: HTTPConnection, *, most: int | None = None) -> int | None:
    """Return ``limit``, at least 1, or None when it is absent. Raises HTTPException with status 422."""
    text = parameter(connection, "limit")
    if text is None:
        return None
    try:
        limit = parse_sequence_number(text)
    except InvalidPosition:
        limit = 0
    if limit == 0:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "limit must be a whole number of at least 1, such as 100")
    if most is not None and limit > most:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"limit must be at most {most}")
    return limit


def number_parameter(connection: HTTPConnection, name: str) -> int | None:
    """Return a sequence number, or None when it is absent. Raises HTTPException with status 422."""
    text = parameter(connection, name)
    try:
        return None if text is None else parse_sequence_number(text)
    except InvalidPosition:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{name} must be one whole number from 0 to {MAX_SEQUENCE_NUMBER}, in plain digits such as 42",
        ) from None


def choice_parameter(connection: HTTPConnection, name: str, choices: Sequence[str]) -> str | None:
    """Return one of these texts, or None when the parameter is absent. Raises HTTPException with status 422."""
    text = parameter(connection, name)
    if text is not None and text not in choices:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} must be one of: {', '.join(choices)}")
    return text


def topic_parameter(connection: HTTPConnection) -> str | None:
    """Return the name of a topic, or None when it is absent. Raises InvalidTopic, or HTTPException with status 422."""
    text = parameter(connection, "topic")
    return None if text is None else checked_topic(text)


def described(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    """Return the description of a query parameter for OpenAPI."""
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


TOPICS_PARAMETER = described(
    "topics",
    "Comma-separated topics; the default is every topic that the token grants by name.",
    {"type": "string", "pattern": TOPICS_PATTERN},
)
"""What ``topics_parameter`` reads, for OpenAPI."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for when it connects."""

    since: int | None
    epoch: str | None
    topics: list[str] | None
    state: bool
    client: str | None

    @classmethod
    def by(cls, connection: HTTPConnection) -> "Asked":
        """Return what a handshake or a request for an event stream asks for.

        Raises InvalidPosition, or HTTPException with status 422.
        """
        since, epoch = _position(connection)
        client = connection.scope.get("client")
        state = flag_parameter(connection, "state")
        return cls(since, epoch, topics_parameter(connection), state, client and client[0])

    def granted(self, identity: Identity, topics: frozenset[str]) -> Subscription:
        """Return what the client gets: it may follow these topics."""
        return Subscription(
            identity,
            topics,
            chose_topics=self.topics is not None,
            since=self.since,
            epoch=self.epoch,
            state=self.state,
            client=self.client,
        )


def _position(connection: HTTPConnection) -> tuple[int | None, str | None]:
    """Return number and epoch. An EventSource repeats the URL of its first request, with its position in a header."""
    last_event_id = connection.headers.get("last-event-id")
    if not last_event_id:
        return since_parameter(connection), parameter(connection, "epoch")
    try:
        # Without the epoch in the URL, which is that of the first request: a later event may be of another one.
        return parse_sequence_number(last_event_id), None
    except InvalidPosition:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Last-Event-ID must be the id of an event, which is a sequence number"
        ) from None


def accepted_subprotocol(connection: HTTPConnection) -> str | None:
    """Return the subprotocol to accept, if any: only the name that announces a token, never the token."""
    return BEARER_SUBPROTOCOL if BEARER_SUBPROTOCOL in connection.scope.get("subprotocols", ()) else None


def idempotency_key(request: Request) -> str | None:
    """Return the ``Idempotency-Key``, which makes it safe to repeat a request, or None.

    Raises HTTPException with status 422.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID"
        )
    return key


def required_idempotency_key(request: Request) -> str:
    """Return the ``Idempotency-Key``. Raises HTTPException with status 422."""
    key = idempotency_key(request)
    if key is None:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "the header Idempotency-Key is required, such as a UUID")
    return key


async def json_body(request: Request, *, limit: int, may_be_empty: bool = False) -> bytes:
    """Return a body that is declared as JSON. Reading it here, after authentication, bounds what it costs.

    An empty body needs no declaration. Raises MessageTooLarge, and HTTPException.
    """
    declared = _JSON_TYPES.fullmatch(request.headers.get("content-type", ""))
    if not declared and not may_be_empty:
        raise _not_json()
    body = await _body(request, limit=limit)
    if body and not declared:
        raise _not_json()
    return body


async def _body(request: Request, *, limit: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            # While it arrives: a declared length could be wrong, or missing.
            if len(body) > limit:
                raise MessageTooLarge("the body", limit=limit)
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is incomplete: the client disconnected") from None
    return bytes(body)


def _not_json() -> HTTPException:
    return HTTPException(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with the header 'Content-Type: application/json'"
    )


def parse_sequence_number(text: str) -> int:
    """Return a sequence number written as canonical decimal digits. Raises InvalidPosition for anything else."""
    if not _CANONICAL_INTEGER.fullmatch(text) or int(text) > MAX_SEQUENCE_NUMBER:
        raise InvalidPosition
    return int(text)
