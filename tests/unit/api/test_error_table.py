"""The error table: what a client is told, and what is logged."""

import logging
from http import HTTPStatus

import pytest
from fastapi import HTTPException, WebSocketException
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from starlette.requests import Request

from unmissed import ConnectionManager, Settings
from unmissed.api.error_table import TABLE, known, refuse
from unmissed.core import errors
from unmissed.core.close_codes import CloseCode
from unmissed.testing import SECRET

REQUEST = Request(
    {"type": "http", "method": "GET", "path": "/x", "headers": [(b"host", b"test")], "client": ("203.0.113.7", 1)}
)
MANAGER = ConnectionManager(Settings(jwt_secret=SecretStr(SECRET)))


@pytest.mark.parametrize(
    ("error", "status", "close_code", "level"),
    [
        (errors.InvalidToken("t"), 401, CloseCode.UNAUTHORIZED, "WARNING"),
        (errors.OriginRefused("https://evil.example", host="app.example.com"), 403, CloseCode.FORBIDDEN, "WARNING"),
        (errors.InvalidPosition(), 422, CloseCode.BAD_MESSAGE, "DEBUG"),
        (errors.OutdatedState(), 409, CloseCode.BAD_MESSAGE, "DEBUG"),
        (errors.InvalidMessage("m"), 422, CloseCode.BAD_MESSAGE, "DEBUG"),
        (errors.MessageTooLarge("m", limit=1), 413, CloseCode.BAD_MESSAGE, "DEBUG"),
        (errors.TooManyConnections("c"), 429, CloseCode.TOO_MANY, "WARNING"),
        (errors.Draining(), 503, CloseCode.SERVICE_RESTART, "INFO"),
        (errors.NotRunning(), 503, CloseCode.SERVICE_RESTART, "ERROR"),
        (WebSocketException(CloseCode.FORBIDDEN, "d"), 403, CloseCode.FORBIDDEN, "WARNING"),
        (HTTPException(401, "d"), 401, CloseCode.UNAUTHORIZED, "WARNING"),
        (HTTPException(403, "d"), 403, CloseCode.FORBIDDEN, "WARNING"),
        (HTTPException(404, "d"), 404, CloseCode.BAD_MESSAGE, "DEBUG"),
        (HTTPException(408, "d"), 408, CloseCode.AUTHENTICATION_TIMEOUT, "DEBUG"),
        (HTTPException(429, "d"), 429, CloseCode.TOO_MANY, "WARNING"),
        (HTTPException(499, "d"), 499, CloseCode.BAD_MESSAGE, "DEBUG"),
        (HTTPException(500, "d"), 500, CloseCode.INTERNAL_ERROR, "ERROR"),
        (HTTPException(502, "d"), 502, CloseCode.INTERNAL_ERROR, "ERROR"),
        (HTTPException(503, "d"), 503, CloseCode.SERVICE_RESTART, "INFO"),
    ],
)
def test_an_error_has_one_status_one_close_code_and_one_log_level(
    error: Exception, status: int, close_code: CloseCode, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="unmissed")

    refusal = refuse(error, REQUEST, manager=MANAGER)

    assert known(error)
    assert (status, close_code) == (refusal.status, refusal.close_code)
    [record] = caplog.records
    assert level == record.levelname
    told = f"refused with status {status} or close code {close_code}: {refusal.detail}"
    assert f"GET /x from 203.0.113.7 {told}" == record.getMessage()


def test_a_refusal_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    refuse(HTTPException(401, "no\nWARNING forged"), REQUEST, manager=MANAGER)

    [message] = caplog.messages
    assert message.endswith(": no WARNING forged")


def test_a_refusal_contains_nothing_that_a_terminal_obeys(caplog: pytest.LogCaptureFixture) -> None:
    scope = {**REQUEST.scope, "path": "/\x1b[31m\x9b"}

    refuse(HTTPException(401, "no\x1b]52;c;"), Request(scope), manager=MANAGER)

    [message] = caplog.messages
    assert message.startswith("GET /%1B%5B31m%C2%9B from 203.0.113.7 refused")
    assert message.isprintable()


async def test_refusals_are_counted_by_close_code() -> None:
    async with ConnectionManager(Settings(jwt_secret=SecretStr(SECRET))) as manager:
        for error in (errors.InvalidToken("t"), HTTPException(401, "d"), errors.InvalidPosition(), ValueError()):
            refuse(error, REQUEST, manager=manager)

        assert {4401: 2, 4400: 1, 1011: 1} == manager.running.measures.refusals


@pytest.mark.parametrize("error", [ValueError("secret"), errors.ConfigurationError("secret"), KeyError("secret")])
def test_an_unexpected_error_is_logged_with_its_traceback_and_not_told(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = refuse(error, REQUEST, manager=MANAGER)

    assert not known(error)
    assert (500, CloseCode.INTERNAL_ERROR) == (refusal.status, refusal.close_code)
    assert "secret" not in refusal.detail
    assert "secret" in caplog.text
    assert "ERROR" == caplog.records[0].levelname


def test_a_validation_error_names_the_parameter() -> None:
    error = RequestValidationError([{"loc": ("query", "room"), "msg": "Field required"}])

    assert "query.room: Field required" == refuse(error, REQUEST, manager=MANAGER).detail


def test_every_row_has_an_error_status() -> None:
    assert all(HTTPStatus.BAD_REQUEST <= row.status for row in TABLE)
