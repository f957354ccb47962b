"""Fields of frames: numbers as they are read, times as they are sent, and how fields are described."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.errors import InvalidPosition
from unmissed.core.fields import NUMBER, OUTCOME, SECONDS, TEXT, fields_of, parse_sequence_number, short_seconds
from unmissed.core.window import Outcome


@dataclass
class Example:
    """A frame with a field of each kind."""

    first: Annotated[int, NUMBER.named("from")]
    last: Annotated[int, NUMBER.named("to", "sequence_number")]
    until: Annotated[float, SECONDS.described("Unix time in seconds.")]
    note: Annotated[str | None, TEXT] = None


def test_a_field_has_its_names_in_the_json_and_is_required_without_a_default() -> None:
    described = [(field.name, field.attribute, field.required) for field in fields_of(Example)]

    assert [
        ("from", "first", True),
        ("to", "last", True),
        ("sequence_number", "last", True),
        ("until", "until", True),
        ("note", "note", False),
    ] == described


def test_a_description_is_part_of_the_schema_of_its_field_alone() -> None:
    schemas = {field.name: field.content.schema for field in fields_of(Example)}

    assert {"type": "number", "description": "Unix time in seconds."} == schemas["until"]
    assert {"type": "number"} == SECONDS.schema


def test_the_outcomes_of_frames_are_those_of_the_window() -> None:
    assert {outcome.value for outcome in Outcome} == {*OUTCOME.schema["enum"]}


@pytest.mark.parametrize(("seconds", "expected"), [(25.0, "25"), (0.5, "0.5"), (math.inf, "None"), (1e22, f"{10**22}")])
def test_whole_seconds_are_short_and_a_time_without_end_is_none(seconds: float, expected: str) -> None:
    assert expected == repr(short_seconds(seconds))


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("1", 1), ("42", 42), ("10", 10), ("9007199254740991", 2**53 - 1)]
)
def test_canonical_digits_are_a_position(text: str, expected: int) -> None:
    assert expected == parse_sequence_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "007",
        "00",
        "-0",
        "-1",
        "+5",
        " 1",
        "1 ",
        "1\n",
        "1_000",
        "1,000",
        "1e3",
        "1.5",
        "1.0",
        "0x10",
        "0b1",
        "NaN",
        "Infinity",
        "null",
        "\uff15",
        "\uff11\uff10",
        "\u0665",
        "1\u0660",
        "\u0967",
        "\u00b2",
        "9007199254740992",
        "9999999999999999",
        "99999999999999999",
        "9" * 4_400,
        "1\x00",
    ],
)
def test_everything_else_is_no_position(text: str) -> None:
    with pytest.raises(InvalidPosition, match="since must be one whole number from 0 to 9007199254740991"):
        parse_sequence_number(text)


@given(number=st.integers(0, 2**53 - 1))
def test_every_position_is_read_as_it_is_written(number: int) -> None:
    assert number == parse_sequence_number(str(number))


@given(
    text=st.text(alphabet=st.characters(categories=["Nd", "Zs"]) | st.sampled_from("0123456789+-_.eEx"), max_size=20)
)
def test_what_is_read_as_a_position_is_written_as_it_was(text: str) -> None:
    try:
        number = parse_sequence_number(text)
    except InvalidPosition:
        return

    assert text == str(number)
    assert number < 2**53
