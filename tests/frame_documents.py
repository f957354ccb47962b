"""What is made from the frames and close codes: tables of the protocol page, and types of the browser client.

``python tests/frame_documents.py`` writes them, and ``npm run generate --prefix tests/browser`` the declarations.
"""

import re
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from pathlib import Path
from textwrap import wrap
from typing import Any

from unmissed.core.client_frames import CLIENT_FRAMES, ClientFrame
from unmissed.core.close_codes import CloseCode, Reaction
from unmissed.core.fields import FrameField, fields_of
from unmissed.core.server_frames import SERVER_FRAMES, ServerFrame

ROOT = Path(__file__).parents[1]
PAGE = ROOT / ".github/docs/protocol.md"
TYPES = ROOT / "src/unmissed/browser/types.js"
COMMAND = "python tests/frame_documents.py && npm run generate --prefix tests/browser"

_SECTION = "// Frames and close codes, generated from those of the server.\n"
_END_OF_TYPES = "export {};\n"
_WIDTH = 120

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
    frames = [*SERVER_FRAMES, *CLIENT_FRAMES]
    comments = [
        *(_comment([_text(frame)], _typedef(frame)) for frame in frames),
        _comment(["A frame that the server sends besides messages."], _union("ServerFrame", SERVER_FRAMES)),
        _comment(["A frame that a client sends."], _union("ClientFrame", CLIENT_FRAMES)),
        *_types_of_close_codes(),
    ]
    return "\n".join([text.partition(_SECTION)[0].removesuffix(_END_OF_TYPES) + _SECTION, *comments, _END_OF_TYPES])


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
    return {"string": '"..."', "integer": "N", "array": "[...]", "object": "{...}"}.get(schema.get("type", ""), "any")


# TypeScript


def _types_of_close_codes() -> list[str]:
    actions = [f"`{reaction.value}`: {reaction.advice}." for reaction in Reaction]
    codes = [
        f'{code:d}{"?" if code.reaction is Reaction.RESUME else ""}: "{code.reaction.value}",'
        for code in sorted(CloseCode)
    ]
    return [
        _comment(
            ["What a client does after a close code.", *actions],
            [f"@typedef {{{' | '.join(_quoted(Reaction))}}} Action"],
        ),
        _comment(
            ["What a client does after each close code. It resumes after all others."],
            ["@typedef {{", *(f"  {code}" for code in codes), "} & Record<number, Action>} Actions"],
        ),
    ]


def _typedef(frame: Frame) -> list[str]:
    properties = [
        f"@property {{{_type(each.content.schema)}}} {each.name if each.required else f'[{each.name}]'} "
        f"{each.content.schema.get('description', '')}".rstrip()
        for each in fields_of(frame)
    ]
    return [f"@typedef {{object}} {_type_name(frame)}", f'@property {{"{frame.type}"}} type', *properties]


def _union(name: str, frames: Iterable[Frame]) -> list[str]:
    # To TypeScript, a union that begins with ``|`` contains ``any`` in a comment.
    first, *others = map(_type_name, frames)
    return [f"@typedef {{{first}", *(f"  | {other}" for other in others), f"}} {name}"]


def _type_name(frame: Frame) -> str:
    return frame.__name__.removesuffix("Frame") + "Frame"


def _type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"enum": values}:
            return " | ".join(_quoted(values))
        case {"type": "array", "items": items}:
            return f"{_type(items)}[]"
        case {"type": "object"}:
            return "{ type: string, [field: string]: any }"
        case {"type": str(name)}:
            return "number" if name == "integer" else name
        case _:
            return "any"


def _quoted(values: Iterable[str]) -> list[str]:
    return [f'"{value!s}"' for value in values]


def _comment(text: list[str], tags: list[str]) -> str:
    lines = [*wrap(" ".join(text), _WIDTH - 3), "", *tags]
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */\n"])


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    TYPES.write_text(types(TYPES.read_text()))
