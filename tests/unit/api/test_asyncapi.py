"""The WebSocket as an AsyncAPI document."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from support import connect, until
from unmissed import Access, ConnectionManager, Identity, JwtVerifier, Settings, create_app, issue_token
from unmissed.core.client_frames import parse_client_frame
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import InvalidFrame
from unmissed.core.server_frames import PRESENCE_TYPE, RESERVED_TYPES
from unmissed.testing import SECRET

PATH = "/websocket/asyncapi.json"
SCHEMA = Path(__file__).parents[2] / "conformance/node_modules/@asyncapi/specs/schemas/3.0.0.json"
PUBLISHER = Identity("alice", scopes=frozenset({"messages:publish"}), topics=frozenset({"a"}))


class Line(BaseModel):
    """One line of an order."""

    item: str


class PublishBody(BaseModel):
    """A model with the name of one of ours."""

    lines: list[Line]


class Tree(BaseModel):
    """A model of itself."""

    branches: list["Tree"] = []


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"]


class Dog(BaseModel):
    """The other one."""

    kind: Literal["dog"]


class Owner(BaseModel):
    """A model with a choice, which Pydantic describes in a way of OpenAPI."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Thing:
    """A class that has no JSON schema."""


class Opaque(BaseModel):
    """A model that has no JSON schema."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: Annotated[Thing, BeforeValidator(lambda _: Thing())]


async def document_of(manager: ConnectionManager, client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the document of an application with events and commands of all kinds."""

    @manager.event("order.placed")
    class Order(BaseModel):
        lines: list[Line]

    manager.event(Line)
    manager.event("of an application")(PublishBody)
    manager.event("tree")(Tree)
    manager.event("pet")(Owner)

    @manager.command("opaque")
    def opaque(thing: Opaque) -> None: ...

    @manager.command("order, please! é")
    async def order(order: Order, identity: Identity) -> None: ...

    @manager.command("order, please? é")
    def again(lines: int = 1) -> None: ...

    @manager.command("ping")
    def ping() -> None: ...

    @manager.command("echo")
    def echo(data: Any) -> Any:
        return data

    document: dict[str, Any] = (await client.get(PATH)).json()
    return document


def references(value: object) -> list[str]:
    match value:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for each in value.values() for found in references(each)]
        case list():
            return [found for each in value for found in references(each)]
        case _:
            return []


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


async def test_the_document_is_valid(manager: ConnectionManager, client: httpx.AsyncClient) -> None:
    if not SCHEMA.exists():
        pytest.skip("the schema of AsyncAPI is not installed: run npm ci in tests/conformance")
    schema = json.loads(SCHEMA.read_text())

    errors = validator_for(schema)(schema).iter_errors(await document_of(manager, client))

    assert [] == [f"{error.json_path}: {error.message}" for error in errors]


async def test_every_reference_leads_somewhere(manager: ConnectionManager, client: httpx.AsyncClient) -> None:
    document = await document_of(manager, client)

    found = references(document)

    assert "#/components/schemas/Line" in found
    for reference in found:
        assert resolve(document, reference)


async def test_it_describes_every_frame_event_command_and_close_code(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    document = await document_of(manager, client)

    messages = document["components"]["messages"]
    assert (RESERVED_TYPES - {PRESENCE_TYPE}) | {"message", "event.order.placed", "event.Line"} <= set(messages)
    assert {"ping", "authenticate", "follow", "unfollow", "publish", "command"} <= set(messages)
    assert ["command.ping"] == [name for name in messages if messages[name]["name"] == "ping" and "." in name]
    assert 2 == sum(name.startswith("command.order__please") for name in messages)
    own = {f"{code:d}" for code in CloseCode if code >= CloseCode.BAD_MESSAGE}
    assert {"4400", "4401", "4403", "4408", "4429"} == own
    assert own <= set(document["channels"]["websocket"]["x-close-codes"])


async def test_it_describes_every_frame_that_the_parser_accepts(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    with pytest.raises(InvalidFrame) as refused:
        parse_client_frame('{"type":"unknown"}')
    accepted = str(refused.value).partition("type must be one of ")[2].split(", ")

    document = await document_of(manager, client)

    received = [each["$ref"].rpartition("/")[2] for each in document["operations"]["request"]["messages"]]
    assert sorted(accepted) == sorted(name for name in received if not name.startswith("command."))


@pytest.mark.parametrize(
    ("name", "required", "data"),
    [
        ("order, please! é", True, {"$ref": "#/components/schemas/Order"}),
        ("order, please? é", False, {"type": "integer"}),
        ("echo", True, {}),
        ("ping", False, None),
    ],
)
async def test_a_command_is_described_with_the_data_that_it_takes(
    manager: ConnectionManager, client: httpx.AsyncClient, *, name: str, required: bool, data: object
) -> None:
    document = await document_of(manager, client)

    [payload] = [
        message["payload"]
        for message in document["components"]["messages"].values()
        if {"const": name} == message["payload"].get("properties", {}).get("name")
    ]
    assert (required, data) == ("data" in payload["required"], payload["properties"].get("data"))


async def test_real_frames_are_what_it_says(manager: ConnectionManager, client: httpx.AsyncClient) -> None:
    document = await document_of(manager, client)
    socket, _ = connect(manager, PUBLISHER, since=0)
    asked: list[dict[str, Any]] = [
        {"type": "ping"},
        {"type": "follow", "topics": ["a"], "since": 0},
        {"type": "unfollow", "topics": ["a"]},
        {"type": "publish", "id": "1", "message": {"type": "b"}},
        {"type": "command", "id": "2", "name": "ping"},
        {"type": "authenticate", "token": "x"},
    ]
    for frame in asked:
        assert parse_client_frame(json.dumps(frame))
        validate(document, frame["type"], frame)
        socket.receive(json.dumps(frame))
    await until(lambda: any(frame["type"] == "result" for frame in socket.frames))
    await manager.emit(Line(item="tea"))
    await until(lambda: socket.frames[-1]["type"] == "Line")

    frames = socket.frames
    assert {"connected", "heartbeat", "pong", "following", "published", "b", "result", "error", "Line"} == {
        frame["type"] for frame in frames
    }
    for frame in frames:
        validate(document, frame["type"] if frame["type"] in RESERVED_TYPES else "message", frame)
    validate(document, "event.Line", frames[-1])


async def test_frames_of_a_gap_a_renewal_and_a_restart_are_what_it_says(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    document = await document_of(manager, client)
    verify, token = JwtVerifier(SECRET).verify, issue_token(SECRET, user_id="alice", expires_in=60, topics=["a"])
    socket, _ = connect(manager, verify(token), access=Access(verify))
    socket.pause()
    for _ in range(501):
        await manager.emit("a")
    socket.resume()
    socket.receive('{"type":"follow","topics":["a"],"since":0}')
    socket.receive(json.dumps({"type": "authenticate", "token": token}))
    manager.running.drain(seconds=1)

    frames = [frame for frame in socket.frames if frame["type"] != "a"]
    assert ["connected", "gap", "following", "authenticated", "reconnect"] == [frame["type"] for frame in frames]
    for frame in frames:
        validate(document, frame["type"], frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "authenticate"},
        {"type": "follow"},
        {"type": "follow", "topics": ["a b"]},
        {"type": "follow", "topics": ["a"], "since": -1},
        {"type": "follow", "topics": ["a"], "epoch": 1},
        {"type": "unfollow", "topics": "a"},
        {"type": "publish", "id": "", "message": {"type": "a"}},
        {"type": "publish", "id": "1"},
        {"type": "command", "id": "a b", "name": "ping"},
        {"type": "command", "id": "1"},
    ],
)
async def test_it_excludes_the_frames_that_the_parser_refuses(
    manager: ConnectionManager, client: httpx.AsyncClient, frame: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFrame):
        parse_client_frame(json.dumps(frame))

    assert problems(await document_of(manager, client), frame["type"], frame)


@pytest.mark.parametrize("change", [{"type": "other"}, {"data": {"item": 1}}, {"data": {}}, {"sequence_number": 0}])
async def test_it_excludes_events_with_other_fields(
    manager: ConnectionManager, client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    event = {"type": "Line", "data": {"item": "tea"}, "sequence_number": 1, "timestamp": "2026-01-31T12:00:00.000Z"}

    document = await document_of(manager, client)

    assert [] == problems(document, "event.Line", event)
    assert problems(document, "event.Line", {**event, **change})


def validate(document: dict[str, Any], name: str, frame: object) -> None:
    assert [] == problems(document, name, frame)


def problems(document: dict[str, Any], name: str, frame: object) -> list[str]:
    schema = {**document["components"]["messages"][name]["payload"], "components": document["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(frame)]


async def test_it_is_built_once_until_something_is_registered(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    built = 0

    def count(schema: dict[str, Any]) -> None:  # noqa: ARG001  # Pydantic passes it
        nonlocal built
        built += 1

    class Counted(BaseModel):
        model_config = ConfigDict(json_schema_extra=count)

    manager.event("counted")(Counted)
    first = await client.get(PATH)
    at_first = built
    again = [await client.get(PATH, headers={"Host": f"host-{number}.example"}) for number in range(3)]
    assert at_first == built > 0

    manager.event("another")(type("Another", (BaseModel,), {}))
    later = (await client.get(PATH)).json()

    assert built > at_first
    assert "event.another" in later["components"]["messages"]
    assert ["host-0.example", "host-1.example", "host-2.example"] == [
        response.json()["servers"]["this"]["host"] for response in again
    ]
    assert first.json() == {**again[0].json(), "servers": first.json()["servers"]}


async def test_the_query_token_is_not_described_where_it_is_refused(client: httpx.AsyncClient) -> None:
    channel = (await client.get(PATH)).json()["channels"]["websocket"]

    assert {"since", "epoch", "topics", "state"} == set(channel["bindings"]["ws"]["query"]["properties"])


async def test_it_names_the_server_and_the_query_token_if_that_is_allowed() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, allow_query_token=True))
    transport = httpx.ASGITransport(app, root_path="/live")
    async with httpx.AsyncClient(transport=transport, base_url="https://chat.example") as client:
        document = (await client.get(f"/live{PATH}")).json()

    assert ("chat.example", "wss", "/live") == tuple(
        document["servers"]["this"][name] for name in ("host", "protocol", "pathname")
    )
    assert "token" in document["channels"]["websocket"]["bindings"]["ws"]["query"]["properties"]


async def test_the_documentation_of_the_rest_routes_links_to_it(client: httpx.AsyncClient) -> None:
    openapi = (await client.get("/openapi.json")).json()

    assert "/ws" in openapi["paths"][PATH]["get"]["summary"]
    assert "websocket/asyncapi.json" in openapi["info"]["description"]


async def test_it_is_off_with_the_other_documentation() -> None:
    transport = httpx.ASGITransport(create_app(Settings.load(jwt_secret=SECRET, docs=False)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert 404 == (await client.get(PATH)).status_code
