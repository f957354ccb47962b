"""Errors of our routes as RFC 9457 problems, and as close codes; the application's own handlers stay untouched."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import responses
from typing import Any

from fastapi import HTTPException, Request, Response, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.websockets import WebSocketState

from unmissed.api.auth import accept
from unmissed.api.origins import Origins
from unmissed.core import errors
from unmissed.core.wire import CloseCode, close_reason

_STATUS = {
    errors.InvalidPosition: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MessageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidMessage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidToken: HTTPStatus.UNAUTHORIZED,
    errors.OriginRefused: HTTPStatus.FORBIDDEN,
    errors.TooManyConnections: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotRunning: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Draining: HTTPStatus.SERVICE_UNAVAILABLE,
}
_CLOSE_CODES: dict[int, CloseCode] = {
    HTTPStatus.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: CloseCode.FORBIDDEN,
    HTTPStatus.REQUEST_TIMEOUT: CloseCode.AUTHENTICATION_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS: CloseCode.TOO_MANY,
    HTTPStatus.SERVICE_UNAVAILABLE: CloseCode.SERVICE_RESTART,
}


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field("about:blank", description="Always about:blank: the status says it all.")
    title: str = Field(description="The name of the status.", examples=["Unprocessable Entity"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(
        description="What is wrong, and what to do about it.",
        examples=["since must be one whole number from 0 to 9007199254740991, in plain digits such as 42"],
    )


class ProblemResponse(JSONResponse):
    """A problem as a response."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        problem = Problem(type="about:blank", title=responses.get(status, "Error"), status=status, detail=detail)
        super().__init__(problem.model_dump(), status, headers={"Cache-Control": "no-store", **(headers or {})})


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return these statuses for a route's ``responses``, each with a problem as its body."""
    content = {ProblemResponse.media_type: {"schema": Problem.model_json_schema()}}
    return {status.value: {"description": status.phrase, "content": content} for status in statuses}


def problem_route(origins: Origins) -> type[APIRoute]:
    """Return the route class of our routes: its errors are problems, and allowed origins get CORS headers."""

    class ProblemRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handler(request: Request) -> Any:
                try:
                    response = await handle(request)
                except (errors.UnmissedError, HTTPException, RequestValidationError) as error:
                    response = _problem(error)
                return origins.cors(response) if "origin" in request.headers else response

            return handler

    return ProblemRoute


def closing(origins: Origins) -> Callable[[WebSocket], AsyncIterator[None]]:
    """Return the dependency that turns errors of a WebSocket route, and of its later dependencies, into close codes.

    A browser cannot see a refused handshake: it is accepted first, and then closed with a code and a reason. Whatever
    else is wrong, a page of a foreign origin is told that and nothing more.
    """

    async def close_with_code(websocket: WebSocket) -> AsyncIterator[None]:
        try:
            yield
        except (errors.UnmissedError, HTTPException) as error:
            refusal = error if origins.allow_websocket(websocket) else errors.OriginRefused()
            await _close(websocket, _CLOSE_CODES.get(_status(refusal), CloseCode.BAD_MESSAGE), _detail(refusal))
        except WebSocketException as error:
            await _close(websocket, error.code, error.reason)
        except WebSocketDisconnect:
            return

    return close_with_code


def _problem(error: Exception) -> ProblemResponse:
    headers = error.headers if isinstance(error, HTTPException) else None
    return ProblemResponse(_status(error), _detail(error), headers=headers)


def _status(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    return next(
        (status for kind, status in _STATUS.items() if isinstance(error, kind)), HTTPStatus.UNPROCESSABLE_ENTITY
    )


def _detail(error: Exception) -> str:
    if isinstance(error, HTTPException):
        return str(error.detail)
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
    return str(error)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(WebSocketDisconnect):
        await accept(websocket)
        if websocket.application_state is WebSocketState.CONNECTED:
            await websocket.close(code, close_reason(reason))
