"""Validation at a bounded cost: the number of errors, and of the bytes that describe them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from unmissed.application.validation import explanation, validator_of

EMPTY = ",".join(["{}"] * 21_000)


class Address(BaseModel):
    name: str
    street: str
    city: str
    lat: float
    lon: float


class Order(BaseModel):
    default: list[Address] = []
    to: Address | None = None


class Deep(BaseModel):
    orders: dict[str, Order] | list[Order]


class Tree(BaseModel):
    kind: Literal["tree"]
    children: list["Tree"] = []
    addresses: list[Address] = []


class Leaf(BaseModel):
    kind: Literal["leaf"]


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Address] = {}


@pydantic_dataclass
class Checked:
    addresses: tuple[Address, ...]


@dataclass
class Plain:
    addresses: list[Address]


class Typed(TypedDict):
    addresses: set[int]


def errors_of(annotation: Any, data: str) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        validator_of(TypeAdapter(annotation)).validate_json(data)
    return refused.value


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (list[Address], f"[{EMPTY}]"),
        (list[list[int]], "[[" + "],[".join(['"x"'] * 10_000) + "]]"),
        (dict[str, Address], "{" + ",".join(f'"{number}":{{}}' for number in range(6_000)) + "}"),
        (dict[int, int], "{" + ",".join(f'"a{number}":{{}}' for number in range(6_000)) + "}"),
        (Order, f'{{"default":[{EMPTY}]}}'),
        (Deep, f'{{"orders":[{{"default":[{EMPTY}]}}]}}'),
        (Deep, f'{{"orders":{{"a":{{"default":[{EMPTY}]}}}}}}'),
        (Tree, f'{{"kind":"tree","children":[{{"kind":"tree","addresses":[{EMPTY}]}}]}}'),
        (
            Annotated[Tree | Leaf, Field(discriminator="kind")],
            f'{{"kind":"tree","addresses":[{EMPTY}]}}',
        ),
        (Checked, f'{{"addresses":[{EMPTY}]}}'),
        (Plain, f'{{"addresses":[{EMPTY}]}}'),
        (Typed, '{"addresses":[' + ",".join(['"x"'] * 16_000) + "]}"),
        (tuple[list[Address], list[Address]], f"[[{EMPTY}],[{EMPTY}]]"),
        (list[Address] | None, f"[{EMPTY}]"),
    ],
)
def test_the_number_of_errors_does_not_grow_with_the_data(annotation: Any, data: str) -> None:
    assert errors_of(annotation, data).error_count() <= 30


def test_an_explanation_names_the_first_fields_and_counts_the_others() -> None:
    text = explanation(errors_of(list[Order], '[{"default":[{}],"to":{}}]'))

    assert text.startswith("0.default.0.name: Field required; 0.default.0.street: Field required; ")
    assert text.endswith("; and 5 more errors")


def test_very_many_errors_are_counted_only() -> None:
    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")

    data = "{" + ",".join(f'"{number}":1' for number in range(6_000)) + "}"

    assert "the data has 6000 errors, too many to name" == explanation(errors_of(Closed, data))


def test_what_is_valid_becomes_the_same_as_without_the_bounds() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(str_max_length=5)
        default: dict[str, Any] = {"type": "list"}
        text: str

        @field_validator("text")
        @classmethod
        def _upper(cls, text: str) -> str:
            return text.upper()

    adapter = TypeAdapter(list[Strict])

    [found] = validator_of(adapter).validate_json('[{"text":"abc"}]')

    assert Strict(text="abc") == found
    assert {"type": "list"} == found.default
    assert 2 == errors_of(list[Strict], '[{"text":"abcdef","default":1}]').error_count()
    assert Strict.__pydantic_complete__


def test_the_models_themselves_are_not_changed() -> None:
    validator_of(TypeAdapter(Order))

    with pytest.raises(ValidationError) as refused:
        Order.model_validate_json('{"default":[{},{}]}')

    assert 10 == refused.value.error_count()
