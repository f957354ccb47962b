"""``/websocket/asyncapi.json``: the WebSocket described as an AsyncAPI 3.0 document."""

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from inspect import cleandoc
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from unmissed.api.models import MessageBody, PublishBody
from unmissed.core.audience import TOPICS_PATTERN
from unmissed.core.client_frames import CLIENT_FRAMES, ClientFrame, Command, Publish
from unmissed.core.close_codes import CloseCode
from unmissed.core.fields import NUMBER, REQUEST_ID, TEXT, Schema, fields_of
from unmissed.core.rest import BEARER_SUBPROTOCOL
from unmissed.core.server_frames import SERVER_FRAMES, ServerFrame
from unmissed.manager import ConnectionManager

PATH = "/websocket/asyncapi.json"
CHANNEL = "websocket"

_SCHEMAS = "#/components/schemas/"

_Adapter = tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]

_DESCRIPTION = """\
Messages that survive reconnects. A client's position is the `sequence_number` of `connected`, and from then on the \
highest one in any frame. It reconnects with `?since=` its position, and receives exactly what it missed. What the \
server sends is also available as Server-Sent Events, at `/websocket/events`."""


def add_asyncapi_route(router: APIRouter, manager: ConnectionManager) -> None:
    """Add the route."""
    encoded = EncodedDocument(manager)

    @router.get(PATH, tags=["messages"], summary="The WebSocket /ws, as AsyncAPI 3.0", response_class=JSONResponse)
    async def asyncapi(request: Request) -> Response:
        """Describe the WebSocket `/ws`: its messages and frames, its close codes, and how clients authenticate.

        Show it with any AsyncAPI tool, such as [AsyncAPI Studio](https://studio.asyncapi.com).
        """
        body = encoded.on(_server(request), title=request.app.title)
        return Response(body, media_type=JSONResponse.media_type)


class EncodedDocument:
    """The encoded document, which is built again only when the application has registered something else.

    Building it takes milliseconds for each event and command, and anyone may ask for it.
    """

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager
        self._registered: object = None
        self._body = b""

    def on(self, server: Schema, *, title: str) -> bytes:
        """Return the document of an application with this title, as seen on this server."""
        registered = title, [*self._manager.events], [*self._manager.commands]
        if registered != self._registered:
            self._body = bytes(JSONResponse(document(self._manager, title=title)).body)
            self._registered = registered
        # The client chooses the host, which is therefore not part of the cached document.
        return self._body[:-1] + b',"servers":' + JSONResponse({"this": server}).body + b"}"


def document(manager: ConnectionManager, *, title: str) -> dict[str, Any]:
    """Return the document without its servers, with the events and commands that the application has registered."""
    sent, received, schemas = _messages(manager)
    codes = {f"{code:d}": f"{code.meaning}: {code.reaction.advice}." for code in CloseCode}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": metadata.version("unmissed"), "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {
            CHANNEL: {
                "address": "/ws",
                "description": "\n".join(["Close codes:", "", *(f"- {code}: {text}" for code, text in codes.items())]),
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*sent, *received)},
                "bindings": {"ws": {"method": "GET", "query": _query(manager), "bindingVersion": "0.1.0"}},
                "x-close-codes": codes,
            }
        },
        "operations": {
            "deliver": _operation("send", "The server sends these.", sent),
            "request": _operation("receive", "A client may send these.", received),
        },
        "components": {
            "messages": {**sent, **received},
            "schemas": schemas,
            "securitySchemes": _security_schemes(manager),
        },
    }


def _server(request: Request) -> Schema:
    protocol = "wss" if request.url.scheme == "https" else "ws"
    server: dict[str, Any] = {"host": request.url.netloc, "protocol": protocol}
    if root := request.scope.get("root_path", ""):
        server["pathname"] = root
    server["security"] = [{"$ref": "#/components/securitySchemes/bearer"}]
    return server


def _operation(action: str, summary: str, messages: Iterable[str]) -> Schema:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{CHANNEL}"},
        "messages": [{"$ref": f"#/channels/{CHANNEL}/messages/{name}"} for name in messages],
    }


def _query(manager: ConnectionManager) -> Schema:
    properties: dict[str, Any] = {
        "since": {**NUMBER.schema, "description": "The client's position; everything after it is delivered."},
        "epoch": {**TEXT.schema, "description": "The epoch of that position; optional."},
        "topics": {
            "type": "string",
            "pattern": TOPICS_PATTERN,
            "description": "Comma-separated topics to follow; the default is all that are granted by name.",
        },
        "state": {
            "enum": ["true", "false"],
            "description": "Whether the values by key come first, unless everything after the position follows.",
        },
    }
    if manager.settings.allow_query_token:
        properties["token"] = {**TEXT.schema, "description": "A JSON Web Token."}
    return {"type": "object", "properties": properties}


def _security_schemes(manager: ConnectionManager) -> Schema:
    description = (
        f"In the Authorization header, as the second subprotocol after `{BEARER_SUBPROTOCOL}`, or in an `authenticate` "
        "frame, which is then the first one."
    )
    if manager.settings.allow_query_token:
        description += " Also as `?token=`."
    return {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": description}}


# Messages


def _messages(manager: ConnectionManager) -> tuple[dict[str, Any], dict[str, Any], Schema]:
    """Return the messages to clients, the messages from clients, and the schemas of both."""
    events, commands = list(manager.events), list(manager.commands)
    by_name, schemas = _schemas(
        ("message", "serialization", TypeAdapter(MessageBody)),
        ("publish", "validation", TypeAdapter(PublishBody)),
        *(("event " + name, "serialization", TypeAdapter(model)) for name, model in events),
        *(("command " + each.name, "validation", each.data_type) for each in commands if each.data_type is not None),
    )
    sent = {
        "message": {"name": "message", "summary": "A message of any type.", "payload": by_name["message"]},
        **{frame.type: _message(frame) for frame in SERVER_FRAMES},
    }
    received = {frame.type: _message(frame) for frame in CLIENT_FRAMES}
    for name, _ in events:
        key = _key("event", name, taken=sent)
        sent[key] = {"name": name, "summary": f"A message of the type {name}.", "payload": _event(name, by_name)}
    received[Publish.type] = _message(Publish, message=by_name["publish"])
    for command in commands:
        key = _key("command", command.name, taken=received)
        schema = by_name.get("command " + command.name)
        received[key] = _command(command.name, schema, required=command.data_required)
    return sent, received, schemas


def _schemas(*adapters: _Adapter) -> tuple[dict[str, Any], Schema]:
    """Return the schemas of these types by name, and the schemas that they refer to."""
    found, others = TypeAdapter.json_schemas(list(map(_describable, adapters)), ref_template=_SCHEMAS + "{model}")
    by_name = {name: _without_discriminators(schema) for (name, _), schema in found.items()}
    return by_name, _without_discriminators(others.get("$defs", {}))


def _describable(adapter: _Adapter) -> _Adapter:
    """Return the adapter, or one for any JSON if a type cannot be described, such as one with its own validator."""
    name, mode, kind = adapter
    try:
        kind.json_schema(mode=mode)
    except PydanticInvalidForJsonSchema:
        return name, mode, TypeAdapter(Any)
    return adapter


def _without_discriminators(schema: Any) -> Any:
    """Return a schema without ``discriminator``, which is an object in OpenAPI and a string in AsyncAPI."""
    if isinstance(schema, list):
        return [_without_discriminators(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_discriminators(value)
        for name, value in schema.items()
        if name != "discriminator" or "propertyName" not in value
    }


def _message(frame: type[ServerFrame | ClientFrame], **refined: Schema) -> Schema:
    """Return the message for a frame, with the first line of its docstring as the summary."""
    required = {each.name: each.content.schema for each in fields_of(frame) if each.required} | refined
    optional = {each.name: each.content.schema for each in fields_of(frame) if not each.required}
    payload = _object({"type": {"const": frame.type}, **required}, optional)
    return {"name": frame.type, "summary": cleandoc(frame.__doc__ or "").partition("\n")[0], "payload": payload}


def _event(name: str, by_name: Schema) -> Schema:
    refined = _object({"type": {"const": name}, "data": by_name["event " + name]}, {})
    return {"allOf": [by_name["message"], refined]}


def _command(name: str, data: Schema | None, *, required: bool) -> Schema:
    fields = {} if data is None else {"data": data}
    fixed = {"type": {"const": Command.type}, "id": REQUEST_ID.schema, "name": {"const": name}}
    payload = _object({**fixed, **fields}, {}) if required else _object(fixed, fields)
    return {"name": name, "summary": f"Call the command {name}.", "payload": payload}


def _object(required: Schema, optional: Schema) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **optional}}


def _key(kind: str, name: str, *, taken: Mapping[str, object]) -> str:
    """Return a key for a message: AsyncAPI allows only letters, digits and ``. - _``."""
    key = f"{kind}.{re.sub(r'[^A-Za-z0-9._-]', '_', name)}"
    while key in taken:
        key += "_"
    return key
