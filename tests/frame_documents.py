"""What is made from the frames and close codes: tables of the protocol page, and types of the browser client.

``python tests/frame_documents.py`` writes them.
"""

import re
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from pathlib import Path
from textwrap import wrap
from typing import Any

from unmissed.cli.typescript import Definitions, block, comment, literal
from unmissed.core.client_frames import CLIENT_FRAMES, ClientFrame
from unmissed.core.close_codes import CloseCode, Reaction
from unmissed.core.fields import FrameField, fields_of
from unmissed.core.server_frames import SERVER_FRAMES, ServerFrame

ROOT = Path(__file__).parents[1]
PAGE = ROOT / ".github/docs/protocol.md"
TYPES = ROOT / "src/unmissed/browser/types.d.ts"
COMMAND = "python tests/frame_documents.py"

_SECTION = "// Frames and close codes, generated from those of the server.\n"
_WIDTH = 120
_DEFINITIONS = Definitions({"Published": True})

Frame = type[ServerFrame | ClientFrame]


def tables() -> list[str]:
    """Return the tables of the protocol page. Each begins with another word."""
    return [
        _table(("server frame", "fields", "meaning"), [(f"`{f.type}`", _fields(f), _text(f)) for f in SERVER_FRAMES]),
        _table(("client frame", "meaning"), [(f"`{_example(frame)}`", _text(frame)) for frame in CLIENT_FRAMES]),
        _table(
            ("close code", "meaning", "what to do"),
            [(f"{code:d}", code.meaning, code.reaction.advice) for code in CloseCode],
        ),
    ]


def page(text: str) -> str:
    """Return the text of the page with these tables in place of those that begin like them."""
    for table in tables():
        old = re.search(rf"^{re.escape(table.splitlines()[0])}\n(?:\|.*\n)*", text, re.MULTILINE)
        if old is not None:
            text = text[: old.start()] + table + text[old.end() :]
    return text


def types(text: str) -> str:
    """Return the text of the file with types, which ends with those of the frames."""
    frames = [*map(_interface, (*SERVER_FRAMES, *CLIENT_FRAMES))]
    unions = [
        _type("ServerFrame", "A frame that the server sends besides messages.", map(_type_name, SERVER_FRAMES)),
        _type("ClientFrame", "A frame that a client sends.", map(_type_name, CLIENT_FRAMES)),
    ]
    return "\n".join([text.partition(_SECTION)[0] + _SECTION, *frames, *unions, *_types_of_close_codes()])


def _text(frame: Frame) -> str:
    """Return the docstring of a frame in one line of Markdown."""
    return " ".join(cleandoc(frame.__doc__ or "").replace("``", "`").split())


# Markdown


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (head, *rows)]
    return "".join([lines[0], "|---" * len(head) + "|\n", *lines[1:]])


def _fields(frame: Frame) -> str:
    return ", ".join(map(_described, fields_of(frame))) or "none"


def _described(field: FrameField) -> str:
    name = f"`{field.name}`" if field.required else f"`{field.name}`?"
    description = field.content.schema.get("description", "").removesuffix(".")
    return f"{name} ({description})" if description else name


def _example(frame: Frame) -> str:
    fields = [
        f'"{each.name}"{"" if each.required else "?"}: {_value(each.content.schema)}' for each in fields_of(frame)
    ]
    return "{" + ", ".join([f'"type": "{frame.type}"', *fields]) + "}"


def _value(schema: Mapping[str, Any]) -> str:
    values = {"string": '"..."', "integer": "N", "boolean": "true", "array": "[...]", "object": "{...}"}
    return values.get(schema.get("type", ""), "any")


# TypeScript


def _types_of_close_codes() -> list[str]:
    actions = [f"`{reaction.value}`: {reaction.advice}." for reaction in Reaction]
    codes = [
        f"{code:d}{'?' if code.reaction is Reaction.RESUME else ''}: {literal(code.reaction.value)}"
        for code in sorted(CloseCode)
    ]
    comment_of_codes = _comment("What a client does after each close code. It resumes after all others.")
    return [
        _type("Action", " ".join(["What a client does after a close code.", *actions]), map(literal, Reaction)),
        f"{comment_of_codes}export type Actions = Record<number, Action> & {block(codes).rstrip()};\n",
    ]


def _interface(frame: Frame) -> str:
    fields = [comment(each.content.schema) + _member(each) for each in fields_of(frame)]
    body = block([f"type: {literal(frame.type)}", *fields])
    return f"{_comment(_text(frame))}export interface {_type_name(frame)} {body}"


def _member(field: FrameField) -> str:
    return _DEFINITIONS.member(field.name, _loose(field.content.schema), required=field.required)


def _loose(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a field, with a type of the client for a message."""
    return {"$ref": "#/$defs/Published"} if schema.get("type") == "object" else schema


def _type(name: str, description: str, alternatives: Iterable[str]) -> str:
    lines = "".join(f"\n  | {each}" for each in alternatives)
    return f"{_comment(description)}export type {name} ={lines};\n"


def _type_name(frame: Frame) -> str:
    return frame.__name__.removesuffix("Frame") + "Frame"


def _comment(text: str) -> str:
    lines = wrap(text, _WIDTH - 3)
    return comment({"description": "\n".join(lines)})


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    TYPES.write_text(types(TYPES.read_text()))
