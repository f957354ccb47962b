"""The JSON bodies of requests."""

import re
from http import HTTPStatus

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from unmissed.core.errors import MessageTooLarge

_JSON_TYPES = re.compile(r"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)


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
            if len(body) > limit:
                raise MessageTooLarge("the body", limit=limit)
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is incomplete: the client disconnected") from None
    return bytes(body)


def _not_json() -> HTTPException:
    return HTTPException(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, with the header 'Content-Type: application/json'"
    )
