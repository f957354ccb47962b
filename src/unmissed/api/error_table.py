"""The error table: the answer to each exception, over HTTP and over a WebSocket, and what is logged."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError, WebSocketException, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from unmissed.core import errors
from unmissed.core.close_codes import CODES_OF_ERRORS, CloseCode
from unmissed.core.errors import NotRunning
from unmissed.core.server_frames import INTERNAL_ERROR, error_detail
from unmissed.manager import ConnectionManager
from unmissed.security.redaction import printable

logger = logging.getLogger("unmissed")


_RETRY_AFTER_SECONDS = "1"
_MOST_NAMED = 5
_TEMPORARY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the error table."""

    error: type[Exception] | None
    """None for a status that only an HTTPException can have."""
    status: HTTPStatus
    close_code: CloseCode
    log_level: int

    @classmethod
    def of(cls, error: type[errors.UnmissedError], status: HTTPStatus, log_level: int) -> "Row":
        """Return the row for an exception of this package, which has a close code already."""
        return cls(error, status, CODES_OF_ERRORS[error], log_level)


# The first row that fits counts, so a subclass comes before its base class. Of several rows with one status, or one
# close code, the first is the answer for it.
TABLE = (
    Row.of(errors.InvalidToken, HTTPStatus.UNAUTHORIZED, logging.WARNING),
    Row.of(errors.OriginRefused, HTTPStatus.FORBIDDEN, logging.WARNING),
    Row.of(errors.TopicRefused, HTTPStatus.FORBIDDEN, logging.WARNING),
    Row.of(errors.ScopeRequired, HTTPStatus.FORBIDDEN, logging.WARNING),
    Row.of(errors.InvalidTopic, HTTPStatus.UNPROCESSABLE_ENTITY, logging.DEBUG),
    Row(None, HTTPStatus.REQUEST_TIMEOUT, CloseCode.AUTHENTICATION_TIMEOUT, logging.DEBUG),
    Row(errors.MessageTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, CloseCode.BAD_MESSAGE, logging.DEBUG),
    Row.of(errors.InvalidMessage, HTTPStatus.UNPROCESSABLE_ENTITY, logging.DEBUG),
    Row.of(errors.CommandError, HTTPStatus.UNPROCESSABLE_ENTITY, logging.DEBUG),
    Row.of(errors.InvalidPosition, HTTPStatus.UNPROCESSABLE_ENTITY, logging.DEBUG),
    Row.of(errors.OutdatedState, HTTPStatus.CONFLICT, logging.DEBUG),
    Row(RequestValidationError, HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.BAD_MESSAGE, logging.DEBUG),
    Row(WebSocketRequestValidationError, HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.BAD_MESSAGE, logging.DEBUG),
    Row(WebSocketException, HTTPStatus.FORBIDDEN, CloseCode.FORBIDDEN, logging.WARNING),
    Row.of(errors.TooManyConnections, HTTPStatus.TOO_MANY_REQUESTS, logging.WARNING),
    Row.of(errors.TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS, logging.WARNING),
    Row.of(errors.Draining, HTTPStatus.SERVICE_UNAVAILABLE, logging.INFO),
    Row.of(errors.LogUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, logging.WARNING),
    Row.of(errors.ProviderUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, logging.WARNING),
    Row.of(errors.NotRunning, HTTPStatus.SERVICE_UNAVAILABLE, logging.ERROR),
)
_UNKNOWN = Row(Exception, HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR, logging.ERROR)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to one exception."""

    status: int
    close_code: int
    detail: str
    headers: Mapping[str, str] | None = None


def known(error: Exception) -> bool:
    """Return whether the error table or the exception itself determines the status."""
    return isinstance(error, HTTPException) or _row(error) is not _UNKNOWN


def refuse(error: Exception, connection: HTTPConnection, *, manager: ConnectionManager) -> Refusal:
    """Log and count an exception that ends a request or WebSocket, and return the answer."""
    row, where = _row(error), _where(connection)
    refusal = _refusal(error, row)
    with suppress(NotRunning):
        manager.running.measures.refusals[refusal.close_code] += 1
        manager.running.history.refused(
            refusal.close_code,
            printable(refusal.detail),
            status=refusal.status,
            request=_request(connection),
            client=_address(connection),
        )
    if row is _UNKNOWN:
        # The log gets the traceback, and the client nothing of it: it may contain secrets.
        logger.error("%s failed with an unexpected error", where, exc_info=error)
        return refusal
    logger.log(
        row.log_level,
        "%s refused with status %d or close code %d: %s",
        where,
        refusal.status,
        refusal.close_code,
        printable(" ".join(refusal.detail.split())),
    )
    return refusal


def _refusal(error: Exception, row: Row) -> Refusal:
    if row is _UNKNOWN:
        return Refusal(row.status, row.close_code, INTERNAL_ERROR)
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, row.close_code, error_detail(str(error.detail)), error.headers)
    if isinstance(error, WebSocketException):
        return Refusal(row.status, error.code, error_detail(error.reason))
    return Refusal(row.status, row.close_code, error_detail(_text(error)), _headers(row, error))


def refusal_of(code: int, detail: str) -> Refusal:
    """Return the answer over HTTP where a WebSocket would get an ``error`` frame with this code."""
    row = next((row for row in TABLE if row.close_code == code), _UNKNOWN)
    return Refusal(row.status, row.close_code, detail, _headers(row, None))


def _where(connection: HTTPConnection) -> str:
    """Return method and path, and the address of the client."""
    return f"{_request(connection)} from {_address(connection) or 'an unknown address'}"


def _request(connection: HTTPConnection) -> str:
    """Return method and path."""
    # Percent-encoded: a terminal obeys control characters.
    return f"{connection.scope.get('method', 'WebSocket')} {quote(connection.scope['path'])}"


def _address(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client else None


def _row(error: Exception) -> Row:
    if isinstance(error, HTTPException):
        # ``Bearer`` raises one, for routes of applications, and its cause says more than its status.
        by_cause = _row(error.__cause__) if isinstance(error.__cause__, errors.ProviderUnavailable) else None
        return by_cause or _row_of_status(error.status_code)
    return next((row for row in TABLE if row.error is not None and isinstance(error, row.error)), _UNKNOWN)


def _row_of_status(status: int) -> Row:
    """Return the row for a status chosen by the application. Clients stop after 4400 and reconnect after 1011."""
    for row in TABLE:
        if row.status == status:
            return row
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Row(None, HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR, logging.ERROR)
    return Row(None, HTTPStatus.BAD_REQUEST, CloseCode.BAD_MESSAGE, logging.DEBUG)


def _headers(row: Row, error: Exception | None) -> Mapping[str, str] | None:
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(error.retry_after)}
    return {"Retry-After": _RETRY_AFTER_SECONDS} if row.status in _TEMPORARY else None


def _text(error: Exception) -> str:
    if isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        first = error.errors()[:_MOST_NAMED]
        return "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in first)
    return errors.public_text(error)
