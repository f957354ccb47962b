"""What a client wants when it connects: who it is, from which position, and which topics."""

from http import HTTPStatus
from typing import TypedDict

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from unmissed.api.identity import checked
from unmissed.api.query import parameter, since_parameter, topics_parameter
from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidPosition
from unmissed.core.fields import parse_sequence_number
from unmissed.manager import ConnectionManager
from unmissed.security.origins import Origins


class Subscription(TypedDict):
    """Arguments of ``ConnectionManager.connect``."""

    identity: Identity
    since: int | None
    epoch: str | None
    topics: list[str] | None
    authorized: frozenset[str] | None
    client: str | None


def subscription(
    connection: HTTPConnection, identity: object, *, manager: ConnectionManager, origins: Origins
) -> Subscription:
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
