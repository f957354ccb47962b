"""TypeScript declarations from JSON Schema: the part of it that Pydantic writes, with any keyword that users add.

What a schema does not say, or says in keywords that TypeScript has no type for, is ``unknown``.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from textwrap import indent
from typing import Any

_REFERENCE = "#/$defs/"
_PRIMITIVES = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_WIDTH = 100
"""Characters of a line, after which the alternatives of a type get lines of their own."""

_NO_NAMES = {
    *("any", "as", "asserts", "async", "await", "bigint", "boolean", "break", "case", "catch", "class", "const"),
    *("continue", "debugger", "declare", "default", "delete", "do", "else", "enum", "export", "extends", "false"),
    *("finally", "for", "from", "function", "get", "if", "implements", "import", "in", "infer", "instanceof"),
    *("interface", "is", "keyof", "let", "module", "namespace", "never", "new", "null", "number", "object", "of"),
    *("package", "private", "protected", "public", "readonly", "require", "return", "set", "static", "string"),
    *("super", "switch", "symbol", "this", "throw", "true", "try", "type", "typeof", "undefined", "unique"),
    *("unknown", "var", "void", "while", "with", "yield"),
}
"""Words that cannot be the name of a type, or would read as something else."""

Definition = Mapping[str, Any] | bool
"""A JSON schema: ``True`` accepts everything, and ``False`` nothing."""


class Definitions:
    """The definitions that schemas refer to (``$defs``), each under a name that TypeScript accepts."""

    def __init__(self, definitions: Mapping[str, Definition], *, taken: Collection[str] = ()) -> None:
        """Give each a name that is not among ``taken``."""
        self._definitions = definitions
        self._names = _names(definitions, taken={*taken, *_NO_NAMES})

    def __str__(self) -> str:
        """Return the declarations, ordered by name."""
        ordered = sorted(self._names, key=self._names.__getitem__)
        return "\n".join(self._declaration(self._names[key], self._definitions[key]) for key in ordered)

    def type_of(self, schema: Definition) -> str:
        """Return the type of the values that a schema describes, in one line."""
        return " | ".join(self._alternatives(schema))

    def member(self, name: str, schema: Definition, *, required: bool) -> str:
        """Return a member of an object type, without its semicolon."""
        return f"{property_name(name)}{'' if required else '?'}: {self.type_of(schema)}"

    def _declaration(self, name: str, schema: Definition) -> str:
        if isinstance(schema, Mapping) and _is_interface(schema):
            return f"{comment(schema)}export interface {name} {block(self._documented(schema))}"
        alternatives = self._alternatives(schema)
        line = f"export type {name} = {' | '.join(alternatives)};\n"
        if len(line) > _WIDTH:
            line = "".join([f"export type {name} =", *(f"\n  | {each}" for each in alternatives), ";\n"])
        return (comment(schema) if isinstance(schema, Mapping) else "") + line

    def _alternatives(self, schema: Definition) -> list[str]:
        """Return the types of which a value has one. None of them is a union, which would need parentheses."""
        if not isinstance(schema, Mapping):
            return ["unknown" if schema else "never"]
        options = self._options(schema)
        return [self._single(schema)] if options is None else _union(options)

    def _options(self, schema: Mapping[str, Any]) -> Iterable[str] | None:
        """Return the types of a schema that offers several, or lists its values."""
        match schema:
            case {"const": value}:
                return [literal(value)]
            case {"enum": list(values)}:
                return map(literal, values)
            case {"oneOf": list(options), "discriminator": {"propertyName": str(name), "mapping": Mapping() as kinds}}:
                return (self._chosen(option, name, kinds) for option in options)
            case {"anyOf": list(options)} | {"oneOf": list(options)}:
                return (each for option in options for each in self._alternatives(option))
            case {"type": list(types)}:
                return (each for kind in types for each in self._alternatives({**schema, "type": kind}))
        return None

    def _single(self, schema: Mapping[str, Any]) -> str:
        match schema:
            case {"$ref": str(reference)}:
                return self._names.get(reference.removeprefix(_REFERENCE), "unknown")
            case {"allOf": list(parts)}:
                joined = " & ".join(map(self._grouped, parts))
                return f"({joined})" if len(parts) > 1 else joined
            case {"type": "array"}:
                return self._array(schema)
            case {"type": "object"} | {"properties": Mapping()}:
                return self._object(schema)
        return _PRIMITIVES.get(schema.get("type", ""), "unknown")

    def _grouped(self, schema: Definition) -> str:
        """Return a type to which ``[]`` or ``&`` may be added."""
        alternatives = self._alternatives(schema)
        return alternatives[0] if len(alternatives) == 1 else f"({' | '.join(alternatives)})"

    def _chosen(self, option: Definition, name: str, mapping: Mapping[str, str]) -> str:
        """Return an option of a discriminated union. Its discriminator is required, also if it has a default."""
        reference = option.get("$ref", "") if isinstance(option, Mapping) else ""
        definition = self._definitions.get(reference.removeprefix(_REFERENCE), True)
        values = [value for value, target in mapping.items() if target == reference]
        if isinstance(definition, Mapping) and values and name not in definition.get("required", ()):
            kinds = self.type_of(definition.get("properties", {}).get(name, {"enum": values}))
            return f"({self._grouped(option)} & {{ {property_name(name)}: {kinds} }})"
        return self._grouped(option)

    def _array(self, schema: Mapping[str, Any]) -> str:
        first, rest = schema.get("prefixItems"), schema.get("items", True)
        if first is None:
            return f"{self._grouped(rest)}[]"
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        items = [
            self.type_of(each) if number < least else f"{self._grouped(each)}?" for number, each in enumerate(first)
        ]
        if rest is not False and (most is None or most > len(first)):
            items.append(f"...{self._grouped(rest)}[]")
        return f"[{', '.join(items)}]"

    def _object(self, schema: Mapping[str, Any]) -> str:
        names = schema.get("propertyNames", True)
        keys = self.type_of(names) if names is not True else "string"
        if keys not in ("string", "number", "unknown"):
            values = schema.get("additionalProperties", True)
            return f"{{ [name in {keys}]?: {self.type_of(values)} }}"
        members = self._members(schema)
        return f"{{ {'; '.join(members)} }}" if members else "{}"

    def _members(self, schema: Mapping[str, Any]) -> list[str]:
        return [*self._properties(schema).values(), *self._index(schema)]

    def _documented(self, schema: Mapping[str, Any]) -> list[str]:
        """Return the members of an interface, each with its description."""
        properties = schema.get("properties", {})
        members = [comment(properties[name]) + member for name, member in self._properties(schema).items()]
        return [*members, *self._index(schema)]

    def _properties(self, schema: Mapping[str, Any]) -> dict[str, str]:
        required = schema.get("required", ())
        return {
            name: self.member(name, each, required=name in required)
            for name, each in schema.get("properties", {}).items()
        }

    def _index(self, schema: Mapping[str, Any]) -> list[str]:
        """Return the index signature for other properties, if any are allowed.

        TypeScript requires that it also covers the named ones.
        """
        properties = schema.get("properties")
        others = schema.get("additionalProperties", properties is None and "patternProperties" not in schema)
        described = [*schema.get("patternProperties", {}).values(), *([others] if others is not False else [])]
        if not described:
            return []
        named = dict(properties or {})
        is_partial = any(name not in schema.get("required", ()) for name in named)
        types = [each for part in (*described, *named.values()) for each in self._alternatives(part)]
        return [f"[name: string]: {' | '.join(_union([*types, *(['undefined'] if is_partial else [])]))}"]


def block(members: Iterable[str]) -> str:
    """Return the body of an interface, each member in lines of its own."""
    lines = "".join(indent(f"{member};\n", "  ") for member in members)
    return f"{{\n{lines}}}\n" if lines else "{}\n"


def comment(schema: Definition) -> str:
    """Return the description of a schema as a comment with a line break, or nothing."""
    described = schema if isinstance(schema, Mapping) else {}
    text = [*str(described.get("description", "")).strip().splitlines()]
    lines = [*text, *(["@deprecated"] if described.get("deprecated") is True else [])]
    lines = [line.rstrip().replace("*/", "*\\/") for line in lines]
    if len(lines) > 1:
        return "".join(["/**\n", *(f" * {line}".rstrip() + "\n" for line in lines), " */\n"])
    return f"/** {lines[0]} */\n" if lines else ""


def literal(value: object) -> str:
    """Return the type of one JSON value."""
    if isinstance(value, str | int | float | None):
        text = json.dumps(value, ensure_ascii=not str(value).isprintable())
        return text if text not in ("NaN", "Infinity", "-Infinity") else "number"
    return "unknown"


def property_name(name: str) -> str:
    """Return the name of a property, in quotes unless it is an identifier."""
    return name if _IDENTIFIER.fullmatch(name) else literal(name)


def _is_interface(schema: Mapping[str, Any]) -> bool:
    combined = {"$ref", "allOf", "anyOf", "oneOf", "const", "enum"} & {*schema}
    return schema.get("type") == "object" and "properties" in schema and not combined


def _union(types: Iterable[str]) -> list[str]:
    """Return alternatives without repetitions, and without those that another one includes."""
    found = [*dict.fromkeys(types)]
    if "unknown" in found:
        return ["unknown"]
    return [each for each in found if each != "never"] or ["never"]


def _names(keys: Iterable[str], *, taken: set[str]) -> dict[str, str]:
    """Return a name for each key: ``OrderInput`` for ``Order-Input``, and ``Page_Order`` for ``Page_Order_``."""
    names: dict[str, str] = {}
    for key in sorted(keys):
        name = re.sub(r"[^A-Za-z0-9_$]+", "_", key.replace("-", "")).rstrip("_") or "_"
        name = name if _IDENTIFIER.fullmatch(name) else f"_{name}"
        while name in taken:
            name += "_"
        names[key] = name
        taken.add(name)
    return names
