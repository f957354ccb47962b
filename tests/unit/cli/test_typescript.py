"""JSON Schema as TypeScript."""

from pathlib import Path
from typing import Any

import pytest

from browser.node import FOLDER, TYPESCRIPT, need_packages, run
from unmissed.cli.typescript import Definitions, block, comment

DEFINITIONS: dict[str, Any] = {
    "Color": {"type": "string", "enum": ["red", "green"]},
    "Cat": {"type": "object", "properties": {"kind": {"const": "cat"}}},
    "Dog": {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]},
    "Fox": {"type": "object", "properties": {"kind": {"enum": ["red", "arctic"]}}},
    "Order-Input": {"type": "object", "properties": {"note": {"type": "string"}}},
    "Page_Order_": {"type": "array", "items": {"$ref": "#/$defs/Order-Input"}},
    "shop.models.Événement": {"type": "null"},
}
KINDS = {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog", "red": "#/$defs/Fox", "arctic": "#/$defs/Fox"}

TYPES: list[tuple[Any, str]] = [
    (True, "unknown"),
    (False, "never"),
    ({}, "unknown"),
    ({"description": "Any value."}, "unknown"),
    ({"type": "string"}, "string"),
    ({"type": "string", "format": "date-time"}, "string"),
    ({"type": "integer", "minimum": 1}, "number"),
    ({"type": "number"}, "number"),
    ({"type": "boolean"}, "boolean"),
    ({"type": "null"}, "null"),
    ({"type": "file"}, "unknown"),
    ({"not": {"type": "string"}}, "unknown"),
    ({"type": ["string", "null"]}, "string | null"),
    # Literals.
    ({"const": "a"}, '"a"'),
    ({"const": 5, "type": "integer"}, "5"),
    ({"const": None}, "null"),
    ({"const": [1]}, "unknown"),
    ({"enum": ["a", 1, 1.5, True, None]}, '"a" | 1 | 1.5 | true | null'),
    ({"enum": ['"quoted"', "back\\slash"]}, '"\\"quoted\\"" | "back\\\\slash"'),
    ({"enum": ["Zoë", "a\u2028b"]}, '"Zoë" | "a\\u2028b"'),
    # References and combinations.
    ({"$ref": "#/$defs/Color"}, "Color"),
    ({"$ref": "#/$defs/Color", "description": "A color.", "default": "red"}, "Color"),
    ({"$ref": "#/$defs/Order-Input"}, "OrderInput"),
    ({"$ref": "#/$defs/Page_Order_"}, "Page_Order"),
    ({"$ref": "#/$defs/shop.models.Événement"}, "shop_models_v_nement"),
    ({"$ref": "#/$defs/Unknown"}, "unknown"),
    ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, "string | null"),
    ({"anyOf": [{"type": "string"}, {"type": "string", "format": "uuid"}]}, "string"),
    ({"anyOf": [{"type": "string"}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}]}, "string | number | null"),
    ({"anyOf": [{"type": "string"}, {}]}, "unknown"),
    ({"anyOf": [{"type": "string"}, False]}, "string"),
    ({"allOf": [{"$ref": "#/$defs/Cat"}]}, "Cat"),
    ({"allOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Color"}]}, "(Cat & Color)"),
    ({"allOf": [{"type": ["string", "null"]}, {"$ref": "#/$defs/Color"}]}, "((string | null) & Color)"),
    ({"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}, "Cat | Dog"),
    (
        {
            "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("Cat", "Dog", "Fox")],
            "discriminator": {"propertyName": "kind", "mapping": KINDS},
        },
        '(Cat & { kind: "cat" }) | Dog | (Fox & { kind: "red" | "arctic" })',
    ),
    # Arrays and tuples.
    ({"type": "array"}, "unknown[]"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "number[]"),
    ({"type": "array", "items": {"type": ["integer", "null"]}}, "(number | null)[]"),
    ({"type": "array", "items": {"type": "array", "items": {"enum": ["a", "b"]}}}, '("a" | "b")[][]'),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "maxItems": 1}, "[number]"),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["a", None]}], "minItems": 1, "items": False},
        '[number, ("a" | null)?]',
    ),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 1, "items": {"enum": ["a", "b"]}},
        '[number, ...("a" | "b")[]]',
    ),
    ({"type": "array", "maxItems": 0, "minItems": 0, "prefixItems": []}, "[]"),
    # Objects.
    ({"type": "object"}, "{ [name: string]: unknown }"),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, "{ [name: string]: number }"),
    ({"type": "object", "patternProperties": {"^a": {"type": "integer"}}}, "{ [name: string]: number }"),
    ({"type": "object", "additionalProperties": False}, "{}"),
    ({"type": "object", "properties": {}}, "{}"),
    (
        {"type": "object", "propertyNames": {"$ref": "#/$defs/Color"}, "additionalProperties": {"type": "integer"}},
        "{ [name in Color]?: number }",
    ),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, "{ [name: string]: unknown }"),
    ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, "{ a: string }"),
    (
        {"type": "object", "properties": {"a": {}, "b-c": {"type": "string"}, "1": {}, "é": {}}, "required": ["a"]},
        '{ a: unknown; "b-c"?: string; "1"?: unknown; "é"?: unknown }',
    ),
    (
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True, "required": ["a"]},
        "{ a: string; [name: string]: unknown }",
    ),
    (
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
        "{ a?: string; [name: string]: number | string | undefined }",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "expected"), TYPES, ids=lambda value: str(value)[:60])
def test_a_schema_becomes_the_type_of_its_values(schema: Any, expected: str) -> None:
    assert expected == Definitions(DEFINITIONS).type_of(schema)


def test_definitions_become_interfaces_and_types_ordered_by_name() -> None:
    definitions = Definitions(
        {
            "Tree": {
                "type": "object",
                "description": "A tree.\n\nOf trees. */",
                "properties": {
                    "branches": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "description": "Smaller ones."},
                    "age": {"type": "integer", "deprecated": True},
                },
                "required": ["branches"],
                "additionalProperties": True,
            },
            "Color": {"enum": ["red", "green"], "description": "A color."},
            "Long": {"enum": [f"a number of {number} characters" for number in range(100, 104)]},
            "Nothing": {"type": "object", "properties": {}},
        }
    )

    assert """\
/** A color. */
export type Color = "red" | "green";

export type Long =
  | "a number of 100 characters"
  | "a number of 101 characters"
  | "a number of 102 characters"
  | "a number of 103 characters";

export interface Nothing {}

/**
 * A tree.
 *
 * Of trees. *\\/
 */
export interface Tree {
  /** Smaller ones. */
  branches: Tree[];
  /** @deprecated */
  age?: number;
  [name: string]: unknown;
}
""" == str(definitions)


def test_names_are_valid_and_none_occurs_twice() -> None:
    keys = ["Events", "string", "Order", "Or-der", "Order_", "1st", "é"]
    definitions = Definitions(dict.fromkeys(keys, True), taken={"Events"})

    names = {key: definitions.type_of({"$ref": f"#/$defs/{key}"}) for key in keys}

    assert {"Events": "Events_", "string": "string_", "1st": "_1st", "é": "_"} == {
        key: names[key] for key in ("Events", "string", "1st", "é")
    }
    assert ["Order", "Order_", "Order__"] == sorted(names[key] for key in ("Order", "Or-der", "Order_"))


def test_the_order_of_definitions_makes_no_difference() -> None:
    backwards = dict(reversed(DEFINITIONS.items()))

    assert str(Definitions(DEFINITIONS)) == str(Definitions(backwards))


def test_an_empty_description_makes_no_comment() -> None:
    assert "" == comment({"description": "  \n"}) == comment({})


def test_a_block_without_members_is_in_one_line() -> None:
    assert ("{}\n", "{\n  a: string;\n}\n") == (block([]), block(["a: string"]))


@pytest.mark.live
@pytest.mark.long
def test_all_of_it_compiles(tmp_path: Path) -> None:
    need_packages()
    definitions = Definitions(DEFINITIONS)
    members = [definitions.member(f"{number}", schema, required=True) for number, (schema, _) in enumerate(TYPES)]
    (tmp_path / "all.ts").write_text(f"{definitions}\nexport interface All {block(members)}")

    run(TYPESCRIPT, "--strict", "--noEmit", "--target", "es2022", "--ignoreConfig", tmp_path / "all.ts", cwd=FOLDER)
