"""Errors of the REST routes as problem details (RFC 9457). Other routes keep the application's error handling."""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from unmissed.api.error_table import known, refuse
from unmissed.api.identity import Bearer, get_identity, may_have_query_token, remember_bearer
from unmissed.core.rest import PROBLEM_MEDIA_TYPE, PROBLEM_PREFIX, problem
from unmissed.framework_names import injected_by, is_as_written
from unmissed.manager import ConnectionManager
from unmissed.security.origins import Origins

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(
        description=f"The name of the status after {PROBLEM_PREFIX}, by which a client tells a refusal of this server "
        "from that of a proxy.",
        examples=[f"{PROBLEM_PREFIX}unprocessable-content"],
        pattern=f"^{PROBLEM_PREFIX}[a-z0-9-]+$",
    )
    title: str = Field(description="The name of the status.", examples=["Unprocessable Content"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(
        description="What is wrong, and what to do about it.",
        examples=["since must be one whole number from 0 to 9007199254740991, in plain digits such as 42"],
    )


class ProblemResponse(JSONResponse):
    """A response with a problem as its body."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem(status, detail), status, headers={"Cache-Control": "no-store", **(headers or {})})


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return these statuses for the ``responses`` of a route, each with a problem as its body."""
    content = {ProblemResponse.media_type: {"schema": Problem.model_json_schema()}}
    return {status.value: {"description": status.phrase, "content": content} for status in statuses}


def add_options_route(router: APIRouter, path: str, *, methods: str) -> None:
    """Add a route for OPTIONS. Its route class answers CORS preflight requests."""

    @router.options(path, include_in_schema=False)
    async def options() -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": methods})


def problem_route(
    origins: Origins, *, manager: ConnectionManager, bearer: Bearer | None, query_token: bool = False
) -> type[APIRoute]:
    """Return a route class whose errors are problems, and whose allowed origins get CORS headers.

    ``query_token``: whether a token may be in the URL, where the settings allow that.
    """

    class ProblemRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = _direct(super().get_route_handler(), injected_by(self), bearer=bearer)

            async def handler(request: Request) -> Any:
                remember_bearer(request, bearer)
                if query_token:
                    may_have_query_token(request)
                try:
                    response = await handle(request)
                except Exception as error:
                    if not known(error) and _application_handles(request, error):
                        raise
                    refusal = refuse(error, request, manager=manager)
                    response = ProblemResponse(refusal.status, refusal.detail, headers=refusal.headers)
                # Errors, too: without CORS headers, a page of another origin cannot read why it was refused.
                origin = request.headers.get("origin")
                return response if origin is None else origins.cors(response, origin=origin)

            return handler

    return ProblemRoute


def _direct(inject: Handler, route: Any, *, bearer: Bearer | None) -> Handler:
    """Return a handler that calls ``endpoint(request, identity)`` directly if ``inject`` would do nothing else.

    FastAPI's injection takes longer than authenticating a request and reading ten messages. It is still used if the
    route has other dependencies or another authentication, if the application overrides the identity, or if another
    package has wrapped FastAPI's handler. ``route`` has the ``dependant`` of all that is injected, or is None.
    """
    match getattr(route, "dependant", None):
        case object(call=endpoint, dependencies=[object(name="identity", call=authenticate)]) if (
            bearer is not None
            and authenticate in (bearer, get_identity)
            and is_as_written(inject, module=APIRoute.__module__)
        ):

            async def handler(request: Request) -> Any:
                # For each request: tests override dependencies while the application runs.
                if authenticate in getattr(route.dependency_overrides_provider, "dependency_overrides", ()):
                    return await inject(request)
                return await endpoint(request, await bearer(request))

            return handler
    return inject


def _application_handles(request: Request, error: Exception) -> bool:
    handlers = request.app.exception_handlers
    return any(kind in handlers for kind in type(error).__mro__) or HTTPStatus.INTERNAL_SERVER_ERROR in handlers
