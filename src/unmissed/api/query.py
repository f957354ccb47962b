"""Strict query parameters. FastAPI itself accepts ``since=+5``, and uses the last value of a repeated parameter."""

from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from unmissed.core.errors import InvalidPosition
from unmissed.core.fields import parse_sequence_number


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


def described(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    """Return the description of a query parameter for OpenAPI."""
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}
