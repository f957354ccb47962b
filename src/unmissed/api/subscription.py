"""What a client wants when it connects: who it is, from which position, and which topics."""

from http import HTTPStatus
from typing import TypedDict

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from unmissed.api.identity import checked
from unmissed.api.query import parameter, since_parameter, topics_parameter
from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidPosition
from unmissed.core.topics import granted_topics
from unmissed.core.wire import parse_sequence_number
from unmissed.manager import ConnectionManager
from unmissed.security.access import Subscription
from unmissed.security.origins import Origins


class Wanted(TypedDict):
    """What a client asked for. ``authorized`` are the topics that the application has authorized, if it does that."""

    identity: Identity
    since: int | None
    epoch: str | None
    topics: list[str] | None
    authorized: frozenset[str] | None
    client: str | None


def subscription(
    connection: HTTPConnection, identity: object, *, manager: ConnectionManager, origins: Origins
) -> Wanted:
    """Return what an authenticated client wants.

    Raises HTTPException, InvalidPosition, or what ``checked`` raises.
    """
    if refusal := origins.refusal(connection):
        raise refusal
    since, epoch = _position(connection)
    client = connection.scope.get("client")
    return {
        "identity": checked(identity, manager),
        "since": since,
        "epoch": epoch,
        "topics": topics_parameter(connection),
        "authorized": None,
        "client": client and client[0],
    }


def granted(wanted: Wanted) -> Subscription:
    """Return what the client gets. Raises InvalidTopic, or TopicRefused."""
    identity, topics, authorized = wanted["identity"], wanted["topics"], wanted["authorized"]
    return Subscription(
        identity,
        granted_topics(topics, identity.topics) if authorized is None else authorized,
        chose_topics=topics is not None,
        since=wanted["since"],
        epoch=wanted["epoch"],
        client=wanted["client"],
    )


def _position(connection: HTTPConnection) -> tuple[int | None, str | None]:
    """Return number and epoch. An EventSource repeats the URL of its first request, with its position in a header."""
    last_event_id = connection.headers.get("last-event-id")
    if not last_event_id:
        return since_parameter(connection), parameter(connection, "epoch")
    try:
        return parse_sequence_number(last_event_id), None
    except InvalidPosition:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Last-Event-ID must be the id of an event, which is a sequence number"
        ) from None
