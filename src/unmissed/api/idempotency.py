"""The header ``Idempotency-Key``, which makes it safe to repeat a request."""

import re
from http import HTTPStatus

from fastapi import HTTPException, Request

_KEY = re.compile(r"[!-~]{1,255}")


def idempotency_key(request: Request) -> str | None:
    """Return the key, or None without the header. Raises HTTPException with status 422."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID"
        )
    return key


def required_idempotency_key(request: Request) -> str:
    """Return the key. Raises HTTPException with status 422."""
    key = idempotency_key(request)
    if key is None:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "the header Idempotency-Key is required, such as a UUID")
    return key
