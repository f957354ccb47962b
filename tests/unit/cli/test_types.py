"""The events and commands of an application as TypeScript."""

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    RootModel,
    SecretStr,
    computed_field,
)
from typer.testing import CliRunner
from typing_extensions import TypedDict

from browser.node import FOLDER, TYPESCRIPT, need_packages, run
from unmissed import Identity
from unmissed.application.registration import Registration
from unmissed.cli.app import app, main
from unmissed.cli.types import declarations
from unmissed.core.errors import UnmissedError

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    puppies: list["Dog"] = []


class Opaque:
    """A class that has no JSON schema."""


class Page(BaseModel, Generic[T]):
    items: list[T]


class Address(TypedDict, total=False):
    street: str


@dataclass
class Size:
    width: int
    height: int = 1


class Labels(RootModel[dict[str, str]]):
    pass


class Everything(BaseModel):
    """What a model can have."""

    text: str
    described: Annotated[int, Field(description="Its unit.")]
    defaulted: int = 1
    made: list[str] = Field(default_factory=list)
    optional: str | None = None
    color: Color
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    labels: Labels
    pair: tuple[int, str]
    many: tuple[int, ...]
    by_color: dict[Color, int]
    price: Decimal
    at: datetime
    json_text: Json[list[int]]
    secret: SecretStr
    anything: Any
    opaque: Annotated[Opaque, BeforeValidator(lambda _: Opaque())]
    address: Address
    size: Size
    page: Page[Size]
    aliased: int = Field(alias="al-iased")
    received: int = Field(validation_alias=AliasChoices("first", "second"))
    sent: int = Field(serialization_alias="out")
    hidden: int = Field(exclude=True)
    shown: Annotated[int, PlainSerializer(str, return_type=str)]

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorators of properties
    @property
    def total(self) -> float:
        return 1.0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = ""


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""


def declared(*, events: dict[str, type[BaseModel]] | None = None, **commands: Callable[..., Any]) -> str:
    registered = Registration()
    for name, model in (events or {}).items():
        registered.event(name)(model)
    for name, function in commands.items():
        registered.command(name)(function)
    return declarations(registered)


def interface(text: str, name: str) -> list[str]:
    """Return the members of an interface, without comments."""
    body = text.partition(f"export interface {name} {{\n")[2].partition("}\n")[0]
    return [line.strip().removesuffix(";") for line in body.splitlines() if not line.strip().startswith("/*")]


def test_events_are_what_the_server_sends() -> None:
    text = declared(events={"everything.happened": Everything})

    assert ['"everything.happened": Everything'] == interface(text, "Events")
    assert [
        "text: string",
        "described: number",
        "defaulted: number",
        "made: string[]",
        "optional: string | null",
        "color: Color",
        "pet: Cat | Dog",
        "labels: Labels",
        "pair: [number, string]",
        "many: number[]",
        "by_color: { [name in Color]?: number }",
        "price: string",
        "at: string",
        "json_text: number[]",
        "secret: string",
        "anything: unknown",
        "opaque: unknown",
        "address: Address",
        "size: Size",
        "page: Page_Size",
        '"al-iased": number',
        "received: number",
        "out: number",
        "shown: string",
        "total: number",
    ] == interface(text, "Everything")
    assert ['kind: "dog"', "puppies: Dog[]"] == interface(text, "Dog")
    assert ["street?: string"] == interface(text, "Address")
    assert ["width: number", "height: number"] == interface(text, "Size")
    assert "/** What a model can have. */\nexport interface Everything" in text
    assert "  /** Its unit. */\n  described: number;\n" in text
    assert 'export type Color = "red" | "green";' in text
    assert "export type Labels = { [name: string]: string };" in text


def test_the_data_of_commands_is_what_clients_may_send() -> None:
    def act(everything: Everything) -> None: ...

    members = interface(declared(act=act), "Everything")

    assert {
        "defaulted?: number",
        "made?: string[]",
        "optional?: string | null",
        'pet: (Cat & { kind: "cat" }) | (Dog & { kind: "dog" })',
        "price: number | string",
        "json_text: string",
        "first: number",
        "sent: number",
        "hidden: number",
        "shown: number",
    } <= {*members}
    assert not [member for member in members if member.startswith("total")]


def test_a_model_that_is_sent_and_received_has_two_types_if_they_differ() -> None:
    def act(cat: Cat, identity: Identity) -> Cat:
        raise NotImplementedError

    def same(size: Page[int]) -> Page[int]:
        raise NotImplementedError

    text = declared(act=act, same=same)

    assert [
        "act: { data: CatInput; result: CatOutput }",
        "same: { data: Page_int; result: Page_int }",
    ] == interface(text, "Commands")
    assert ['kind?: "cat"'] == interface(text, "CatInput")
    assert ['kind: "cat"'] == interface(text, "CatOutput")


async def without_data() -> int:
    raise NotImplementedError


async def with_identity(who: Identity | None) -> str:
    raise NotImplementedError


def with_default(number: int = 5) -> None: ...


def nullable(number: int | None) -> None: ...


def untyped(data): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201


def awaitable(data: str) -> Awaitable[list[int]]:
    raise NotImplementedError


def without_schema() -> Opaque:
    raise NotImplementedError


def of_choices() -> Literal["a", 1] | None: ...


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (without_data, "{ result: number }"),
        (with_identity, "{ result: string }"),
        (with_default, "{ data?: number; result: null }"),
        (nullable, "{ data: number | null; result: null }"),
        (untyped, "{ data: unknown; result: unknown }"),
        (awaitable, "{ data: string; result: number[] }"),
        (without_schema, "{ result: unknown }"),
        (of_choices, '{ result: "a" | 1 | null }'),
    ],
)
def test_a_command_has_its_data_and_its_result(command: Callable[..., Any], expected: str) -> None:
    assert [f"command: {expected}"] == interface(declared(command=command), "Commands")


def test_the_docstring_of_a_command_is_its_comment() -> None:
    def act() -> None:
        """Do it.

        Now.
        """

    assert "  /**\n   * Do it.\n   *\n   * Now.\n   */\n  act: { result: null };\n" in declared(act=act)


@pytest.mark.parametrize(
    ("model", "members"), [(Open, ["name: string", "[name: string]: unknown"]), (Closed, ["name: string"])]
)
def test_a_model_that_allows_other_fields_says_so(model: type[BaseModel], members: list[str]) -> None:
    assert members == interface(declared(events={"a": model}), model.__name__)


def test_models_with_the_name_of_ours_or_of_each_other_get_other_names() -> None:
    def another() -> type[BaseModel]:
        class Cat(BaseModel):
            age: int

        return Cat

    class Events(BaseModel):
        name: str

    text = declared(events={"events": Events, "cat": Cat, "other": another()})

    members = dict(member.split(": ") for member in interface(text, "Events"))
    assert "Events_" == members["events"]
    assert members["cat"] != members["other"]
    assert ["name: string"] == interface(text, "Events_")
    assert ["age: number"] == interface(text, members["other"])


def test_the_order_of_registration_makes_no_difference() -> None:
    models: dict[str, type[BaseModel]] = {"order.placed": Page[int], "order.shipped": Closed}

    assert declared(events=models) == declared(events=dict(reversed(models.items())))


# The command line

APPLICATION = """
from fastapi import FastAPI
from pydantic import BaseModel
from unmissed import ConnectionManager, create_router

print("what an application prints")
manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))


@manager.event("order.shipped")
class OrderShipped(BaseModel):
    customer: str = "Zoë"
    number: int
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("UNMISSED_JWT_SECRET", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # A module that changes within a second, and keeps its length, would be read from the cache.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "shop.py").write_text(APPLICATION)
    return tmp_path


def types(*arguments: str) -> str:
    """Return what the command prints. Each time, the application is imported again."""
    sys.modules.pop("shop", None)
    result = CliRunner().invoke(app, ["types", "shop:app", *arguments], catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    """Return what the command raises."""
    sys.modules.pop("shop", None)
    with pytest.raises(UnmissedError) as refused:
        CliRunner().invoke(app, ["types", "shop:app", *arguments], catch_exceptions=False)
    return str(refused.value)


def run_main(arguments: list[str]) -> None:
    """Run the command line as the program does."""
    sys.modules.pop("shop", None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["unmissed", *arguments])
        main()


def test_the_types_are_printed_without_what_the_application_prints(folder: Path) -> None:
    printed = types()

    assert printed.startswith('// Generated by "unmissed types"')
    assert ['"order.shipped": OrderShipped'] == interface(printed, "Events")
    assert "what an application prints" not in printed
    assert [folder / "shop.py"] == [*folder.glob("*.*")]


def test_a_file_that_was_written_is_in_step(folder: Path) -> None:
    written = types("--output", "events.d.ts")

    assert ("", "") == (written, types("--check", "events.d.ts"))
    assert types().encode() == (folder / "events.d.ts").read_bytes()


def test_a_file_with_line_breaks_of_windows_is_in_step(folder: Path) -> None:
    (folder / "events.d.ts").write_bytes(types().encode().replace(b"\n", b"\r\n"))

    assert "" == types("--check", "events.d.ts")


def test_a_changed_model_is_out_of_step_and_named_with_the_command_that_repairs_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    types("--output", "events.d.ts")
    (folder / "shop.py").write_text(APPLICATION.replace("number: int", "number: str"))

    refused = refusal("--check", "events.d.ts")

    assert "events.d.ts is out of step with shop:app: run unmissed types shop:app --output events.d.ts" == refused
    with pytest.raises(SystemExit) as ended:
        run_main(["types", "shop:app", "--check", "events.d.ts"])
    assert f"unmissed: {refused}" == ended.value.code
    assert "-  number: number;\n+  number: string;\n" in capsys.readouterr().out


def test_a_long_difference_is_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "events.d.ts").write_text("// another file\n" * 500)

    with pytest.raises(SystemExit):
        run_main(["types", "shop:app", "--check", "events.d.ts"])

    lines = capsys.readouterr().out.splitlines()
    assert (21, "...") == (len(lines), lines[-1])


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_missing_is_out_of_step() -> None:
    assert "run unmissed types shop:app --output missing.d.ts" in refusal("--check", "missing.d.ts")


@pytest.mark.usefixtures("folder")
def test_a_file_that_cannot_be_written_is_reported() -> None:
    assert "nowhere/events.d.ts cannot be written: No such file or directory" == refusal(
        "--output", "nowhere/events.d.ts"
    )


@pytest.mark.usefixtures("folder")
def test_output_and_check_exclude_each_other() -> None:
    result = CliRunner().invoke(app, ["types", "shop:app", "--check", "a", "--output", "b"])

    assert 2 == result.exit_code


OTHER = "\nother = ConnectionManager()\n@other.event\nclass Other(BaseModel): ...\n"


def test_the_manager_with_the_routes_precedes_others_in_the_module(folder: Path) -> None:
    (folder / "shop.py").write_text(APPLICATION + OTHER)

    assert ['"order.shipped": OrderShipped'] == interface(types(), "Events")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("app = FastAPI()\napp.state.manager = other", ["Other: Other"]),
        ("app = FastAPI()\napp.include_router(create_router(other), prefix='/inner')", ["Other: Other"]),
        ("app.include_router(create_router(other), prefix='/inner')\napp.state.manager = other", ["Other: Other"]),
        ("app = FastAPI()\ndel other", ['"order.shipped": OrderShipped']),
    ],
)
def test_the_manager_is_the_one_that_the_application_names_or_serves_or_has(
    folder: Path, more: str, expected: list[str]
) -> None:
    (folder / "shop.py").write_text(f"{APPLICATION}{OTHER}{more}\n")

    assert expected == interface(types(), "Events")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"{APPLICATION}{OTHER}app = FastAPI()\n", "shop:app has several managers: choose one, as in app.state"),
        (
            "from fastapi import FastAPI\napp = FastAPI()\n",
            "shop:app has no ConnectionManager: create one, and app.",
        ),
        ("from fastapi import FastAPI\napi = FastAPI()\n", "the module shop has no 'app': write shop:api"),
    ],
)
def test_an_application_without_a_manager_to_choose_is_refused(folder: Path, text: str, refused: str) -> None:
    (folder / "shop.py").write_text(text)

    assert refusal().startswith(refused)


@pytest.mark.parametrize("algorithm", [None, "RS256"])
def test_no_key_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str | None) -> None:
    if algorithm:
        monkeypatch.setenv("UNMISSED_JWT_ALGORITHM", algorithm)
    (folder / "shop.py").write_text(f"{APPLICATION}manager.settings.key()\n")
    before = {**os.environ}

    assert types().startswith("//")
    assert before == {**os.environ}


def test_a_configured_key_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", "too short")

    assert "UNMISSED_JWT_SECRET" in refusal()
    assert (folder / "shop.py").exists()


USAGE = """
import type { Commands, Events } from "./events.d.ts";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const yes = <_ extends true>() => {};

type Sent = Events["everything.happened"];
yes<Equal<Sent["optional"], string | null>>();
yes<Equal<Sent["color"], "red" | "green">>();
yes<Equal<Sent["pet"]["kind"], "cat" | "dog">>();
yes<Equal<Sent["by_color"], { red?: number; green?: number }>>();
yes<Equal<Sent["pair"], [number, string]>>();
yes<Equal<Sent["page"]["items"][number], { width: number; height: number }>>();
yes<Equal<Commands["act"]["result"], null>>();

export const data: Commands["act"]["data"]["pet"] = { kind: "dog", puppies: [{}, { kind: "dog" }] };
// @ts-expect-error  The discriminator is required.
export const wrong: Commands["act"]["data"]["pet"] = {};
// @ts-expect-error  There is no such event.
export type None = Events["everything.happend"];
// @ts-expect-error  There is no such field.
export type Typo = Sent["otpional"];
"""


@pytest.mark.live
@pytest.mark.long
def test_all_of_it_compiles_and_means_what_it_says(tmp_path: Path) -> None:
    need_packages()

    def act(everything: Everything) -> None: ...

    (tmp_path / "events.d.ts").write_text(declared(events={"everything.happened": Everything, "a": Open}, act=act))
    (tmp_path / "usage.ts").write_text(USAGE)

    run(TYPESCRIPT, "--strict", "--noEmit", "--target", "es2022", "--ignoreConfig", tmp_path / "usage.ts", cwd=FOLDER)
