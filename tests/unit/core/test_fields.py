"""Fields of frames: numbers as they are read, times as they are sent, and how fields are described."""

import math
from dataclasses import dataclass
from typing import Annotated

import pytest

from unmissed.core.fields import NUMBER, OUTCOME, TEXT, fields_of
from unmissed.core.server_frames import SECONDS, short_seconds
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
