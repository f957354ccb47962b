"""``/websocket/commands/{name}``: commands of the application over HTTP, for clients whose WebSockets are blocked."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from unmissed.api import models
from unmissed.api.error_table import refusal_of
from unmissed.api.identity import checked
from unmissed.api.problems import ProblemResponse, add_options_route, documented
from unmissed.api.request_parts import json_body, required_idempotency_key
from unmissed.core.audience import Identity
from unmissed.core.client_frames import MAX_CLIENT_FRAME_BYTES, Command
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.errors import InvalidMessage
from unmissed.core.fields import REQUEST_ID_PATTERN
from unmissed.manager import ConnectionManager

PATH = "/websocket/commands/{name:unmissed_command}"


class _CommandName(PathConvertor):
    """Any text, with slashes as in other paths, and with line breaks."""

    regex = "(?s:.*)"


register_url_convertor("unmissed_command", _CommandName())


def add_command_route(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity."""

    @router.post(PATH, tags=["messages"], summary="Call a command", response_class=Response, **_DOCS)
    async def command(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Call a command of the application, as the frame `command` of the WebSocket does. The body is its data.

        The `Idempotency-Key` is its id: repeating it does nothing again, and returns the first answer.
        """
        checked(identity, manager)
        name = request.path_params["name"]
        if name not in manager.commands:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no command has this name")
        key = required_idempotency_key(request)
        # Before the body is read and decoded, which costs more than refusing it.
        manager.running.count_request(identity)
        body = await json_body(request, limit=MAX_CLIENT_FRAME_BYTES, may_be_empty=True)
        checked(identity, manager)  # The user may have been logged out while the body arrived.
        return _response(await manager.running.run_command(identity, Command(key, name, _data(body))))

    add_options_route(router, PATH, methods="POST, OPTIONS")


def _data(body: bytes) -> bytes | None:
    """Return the same JSON as in a frame, so that a command may be repeated on a WebSocket."""
    try:
        return encode_json(decode_json(body)) if body else None
    except ValueError as error:
        raise InvalidMessage(f"the body is not JSON: {error}") from None


def _response(answer: bytes) -> Response:
    frame = decode_json(answer)
    if frame["type"] == "error":
        refusal = refusal_of(frame["code"], frame["detail"])
        return ProblemResponse(refusal.status, refusal.detail, headers=refusal.headers)
    return models.answer(models.ResultBody(data=frame["data"]))


_DOCS: dict[str, Any] = {
    "responses": {
        200: {"model": models.ResultBody},
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "The name of the command.",
                "schema": {"type": "string"},
            },
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "description": "The id of the call, unique for the user, such as a UUID.",
                "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
            },
        ],
        "requestBody": {"content": {"application/json": {"schema": {}}}},
    },
}
