"""Validation of the data of clients. Its cost is bounded, however many errors the data has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

_MOST_NAMED = 5
_MOST_COLLECTED = 100
"""The most errors that are described: Pydantic describes all or none, each in 2 us. Beyond this, they are counted."""

_COLLECTIONS = ("list", "tuple", "set", "frozenset", "dict")
_NESTED = (
    *("schema", "items_schema", "keys_schema", "values_schema", "extras_schema", "extras_keys_schema"),
    *("fields", "choices", "steps", "definitions", "lax_schema", "strict_schema", "json_schema", "python_schema"),
    *("arguments_schema", "var_args_schema", "var_kwargs_schema"),
)
"""Where a core schema has other ones. Elsewhere are values, such as defaults, which may look like a schema."""


def validator_of(adapter: TypeAdapter[Any]) -> SchemaValidator:
    """Return a validator for the same type whose collections stop at the first invalid item.

    64 kB can hold 21,000 empty objects in place of models, and each missing field of each would be an error. 200,000
    errors take 0.1 s to create and 0.3 s to describe, on the event loop. A thread would not help, because Pydantic
    keeps the GIL.
    """
    schema = _stopping(adapter.core_schema)
    with _rebuilt(set(_classes(schema))):
        return SchemaValidator(schema)


def explanation(error: ValidationError) -> str:
    """Return one line that names the first invalid fields, without their values."""
    count = error.error_count()
    if count > _MOST_COLLECTED:
        return f"the data has {count} errors, too many to name"
    errors = error.errors(include_input=False, include_url=False, include_context=False)
    named = [f"{'.'.join(map(str, each['loc'])) or 'data'}: {each['msg']}" for each in errors[:_MOST_NAMED]]
    return "; ".join([*named, *([f"and {count - _MOST_NAMED} more errors"] if count > _MOST_NAMED else ())])


def _stopping(schema: Any) -> Any:
    """Return a copy of a core schema, or of a part of one, with collections that stop at the first invalid item."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_stopping, schema))
    if not isinstance(schema, Mapping):
        return schema
    copy = {**schema, **{key: _stopping_within(schema[key]) for key in _NESTED if key in schema}}
    return {**copy, "fail_fast": True} if copy.get("type") in _COLLECTIONS else copy


def _stopping_within(nested: Any) -> Any:
    """Return a copy of a schema, of a list of schemas, or of a mapping from names to schemas."""
    if isinstance(nested, Mapping) and not isinstance(nested.get("type"), str):
        return {name: _stopping(schema) for name, schema in nested.items()}
    return _stopping(nested)


def _classes(schema: Any) -> Iterator[type]:
    """Yield the classes in a core schema that Pydantic would validate with their own, unchanged validator."""
    if isinstance(schema, Mapping):
        if "__pydantic_complete__" in vars(schema.get("cls", object)):
            yield schema["cls"]
        schema = schema.values()
    elif not isinstance(schema, list | tuple):
        return
    for part in schema:
        yield from _classes(part)


@contextmanager
def _rebuilt(classes: set[type]) -> Iterator[None]:
    """Let these classes be built again, with the parts that their schemas have now.

    A class that is complete has a validator already, which Pydantic would use.
    """
    complete = [each for each in classes if each.__pydantic_complete__]  # type: ignore[attr-defined]
    for each in complete:
        each.__pydantic_complete__ = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for each in complete:
            each.__pydantic_complete__ = True  # type: ignore[attr-defined]
