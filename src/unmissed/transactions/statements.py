"""What is executed in a transaction: the call of the SQL function that publishes, with a message that it accepts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from unmissed.core.encoding import decode_json
from unmissed.core.errors import InvalidMessage, MessageTooLarge
from unmissed.core.messages import Draft, TransactionOptions, published
from unmissed.logs.postgres.schema import quoted

_ARGUMENTS = ("type", "data", "topics", "users", "key", "append", "deleted", "fields")
_TYPES = ("text", "text::jsonb", "text[]", "text[]", "text", "boolean", "boolean", "text::jsonb")
"""JSON is passed as text: applications may have a codec of their own for jsonb."""

_LARGEST = 1.7976931348623157e308


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with its arguments, in the styles of the drivers."""

    call: str
    """The function with its schema, such as ``"unmissed".publish``."""
    arguments: Mapping[str, Any]
    types: tuple[str, ...]

    @property
    def numbered(self) -> str:
        """The statement with ``$1`` and so on, for asyncpg."""
        return self._with(f"${place}" for place in range(1, len(self.types) + 1))

    @property
    def formatted(self) -> str:
        """The statement with ``%s``, for psycopg and Django."""
        return self._with("%s" for _ in self.types)

    @property
    def named(self) -> str:
        """The statement with ``:name``, for SQLAlchemy. A colon before it would be a part of the name."""
        casts = (_cast(f":{name}", as_type) for name, as_type in zip(self.arguments, self.types, strict=True))
        return f"SELECT {self.call}({', '.join(casts)})"

    def _with(self, places: Iterator[str]) -> str:
        casts = (f"{place}::{as_type}" for place, as_type in zip(places, self.types, strict=True))
        return f"SELECT {self.call}({', '.join(casts)})"


def _cast(value: str, as_type: str) -> str:
    for each in as_type.split("::"):
        value = f"CAST({value} AS {each})"
    return value


def position_statement(schema: str) -> Statement:
    """Return the statement that reads the position of the log in the snapshot of a transaction."""
    return Statement(f"{quoted(schema)}.position", {}, ())


def publish_statement(
    schema: str, message: Mapping[str, Any], options: TransactionOptions, *, max_bytes: int
) -> Statement:
    """Return the statement that publishes a message.

    Raises InvalidMessage, or MessageTooLarge, for all that the SQL function refuses: its error would abort the
    transaction. Raises TypeError for an unknown option.
    """
    for name in options.keys() - TransactionOptions.__annotations__.keys():
        known = ", ".join(sorted(TransactionOptions.__annotations__))
        raise TypeError(f"{name!r} is no option of publishing in a transaction: choose from {known}")
    draft = Draft.of(published(message, options), max_bytes=max_bytes)
    if draft.ephemeral:
        raise InvalidMessage(
            "a message of a transaction is stored, so it is not ephemeral: publish it after the commit"
        )
    fields: dict[str, Any] = decode_json(draft.head + draft.tail)
    _check(fields, [*draft.audience.users])
    if _stored_size(fields) + draft.audience.size > max_bytes:
        raise MessageTooLarge("the message with its audience, as PostgreSQL stores it,", limit=max_bytes)
    arguments = {
        "type": fields.pop("type"),
        "data": json.dumps(fields.pop("data")) if "data" in fields else None,
        "topics": fields.pop("topics", None),
        "users": draft.audience.users or None,
        "key": fields.pop("key", None),
        "append": fields.pop("append", False),
        "deleted": fields.pop("deleted", False),
        "fields": json.dumps(fields) if fields else None,
    }
    return Statement(f"{quoted(schema)}.publish", arguments, _TYPES)


def _check(fields: Mapping[str, Any], users: list[str]) -> None:
    """Raise InvalidMessage for what JSON allows, and PostgreSQL does not store."""
    for value in _values([fields, users]):
        match value:
            case str(text) if "\0" in text:
                raise InvalidMessage("PostgreSQL stores no NUL character: remove \\0 from the message")
            case int(number) if abs(number) > _LARGEST:
                raise InvalidMessage(
                    "the message cannot be sent as JSON: a number is larger than 1.8e308: send it as a string"
                )
            case _:
                pass


def _stored_size(fields: Mapping[str, Any]) -> int:
    """Return at least the bytes of a message as jsonb: with spaces, and numbers without exponents."""
    size = len(json.dumps(fields, ensure_ascii=False).encode())
    for value in _values(fields):
        if isinstance(value, float):
            size += max(0, len(f"{Decimal(repr(value)):f}") - len(repr(value)))
    return size


def _values(value: Any) -> Iterator[Any]:
    """Yield all values in a JSON value, and the names in its objects."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict(inner):
                waiting += [*inner, *inner.values()]
            case list(items):
                waiting += items
            case single:
                yield single
