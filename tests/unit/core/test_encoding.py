"""JSON in and out, strictly."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from unmissed.core.encoding import decode_items, decode_json, encode_json
from unmissed.core.errors import MessageTooLarge

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(), values, max_size=5),
    max_leaves=20,
)


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Point(BaseModel):
    x: float
    at: datetime


@given(value=json_values)
def test_every_json_value_comes_back(value: object) -> None:
    assert value == decode_json(encode_json(value))


@given(value=json_values)
def test_another_decoder_reads_the_same(value: object) -> None:
    assert value == json.loads(encode_json(value))


def test_json_is_compact_and_utf8() -> None:
    assert '{"text":"héllo 🦊","list":[1,2]}'.encode() == encode_json({"text": "héllo 🦊", "list": [1, 2]})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOON, b'"2026-01-31T12:00:00Z"'),
        (Decimal("1.10"), b'"1.10"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Point(x=1.5, at=NOON), b'{"x":1.5,"at":"2026-01-31T12:00:00Z"}'),
    ],
)
def test_common_python_values_are_accepted(value: object, expected: bytes) -> None:
    assert expected == encode_json(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], Point(x=math.nan, at=NOON)])
def test_numbers_that_are_none_are_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        encode_json(value)


def test_a_lone_surrogate_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="a lone surrogate is not Unicode text"):
        encode_json("\ud800")


def test_a_cycle_is_not_encoded() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    with pytest.raises(ValueError, match="Circular"):
        encode_json(cycle)


def nested(levels: int, inner: object) -> object:
    value = inner
    for level in range(levels):
        value = [value] if level % 2 else {"deeper": value}
    return value


@pytest.mark.parametrize("levels", [101, 952, 100_000])
def test_a_value_of_more_than_100_levels_is_not_encoded(levels: int) -> None:
    with pytest.raises(ValueError, match="nested deeper than 100 levels: flatten it"):
        encode_json(nested(levels, 1))


@pytest.mark.parametrize("inner", [1, "[" * 200, '"' + "{" * 200, "\\" + "[" * 200, '\\"[' * 200])
def test_brackets_in_strings_are_no_levels(inner: object) -> None:
    value = nested(100, inner)

    assert value == decode_json(encode_json(value))


def test_many_brackets_side_by_side_are_few_levels() -> None:
    assert b"[" + b",".join([b"[{}]"] * 200) + b"]" == encode_json([[{}]] * 200)


@given(levels=st.integers(90, 110), text=st.text(alphabet='[]{}"\\a', max_size=9), width=st.integers(0, 60))
def test_exactly_100_levels_are_the_limit(levels: int, text: str, width: int) -> None:
    value = nested(levels, text)
    try:
        encode_json([value, *[[text]] * width])
    except ValueError:
        assert levels + 1 > 100
    else:
        assert levels + 1 <= 100


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, lambda: None])
def test_a_value_without_a_json_form_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match=r"serialize|keys must be"):
        encode_json(value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_of_javascript_are_not_decoded(constant: str) -> None:
    with pytest.raises(ValueError, match=f"{constant} is not JSON"):
        decode_json(f"[{constant}]")


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "[1,]", "01", "chat", b"\xff", b"\xff\xfe[\x00]\x00"])
def test_what_is_not_utf8_json_is_not_decoded(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the texts are Python's own
        decode_json(text)


def test_text_and_its_bytes_decode_alike() -> None:
    assert {"é": 1} == decode_json('{"é": 1}') == decode_json('{"é": 1}'.encode())


def test_json_nested_too_deep_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="it is nested too deep"):
        decode_json("[" * 100_000 + "]" * 100_000)


def test_a_number_of_5000_digits_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="digits"):
        decode_json("9" * 5000)


@given(value=json_values, indent=st.sampled_from([None, 1, "\t", " \r\n"]))
def test_the_items_of_an_array_are_its_values_and_another_value_is_one_item(value: object, indent: Any) -> None:
    expected = value if isinstance(value, list) else [value]

    assert expected == items_of(json.dumps(value, indent=indent).encode())


@given(text=st.text(alphabet='[]{},:"1aN \n\ufeff', max_size=12))
def test_items_are_read_as_strictly_as_the_whole(text: str) -> None:
    try:
        value = decode_json(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  # the texts are Python's own
            items_of(text.encode())
    else:
        assert (value if isinstance(value, list) else [value]) == items_of(text.encode())


@pytest.mark.parametrize(
    "text", [b"", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1}", b"[] 1", b"[1]]", b"[NaN]", b"NaN", b"\xff"]
)
def test_what_is_not_json_has_no_items(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the texts are Python's own
        items_of(text)


def test_an_item_nested_too_deep_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="it is nested too deep"):
        items_of(b"[" + b"[" * 100_000 + b"]" * 100_000 + b"]")


def test_items_are_decoded_when_they_are_asked_for() -> None:
    items = decode_items(b"[1, nonsense]", max_item_bytes=5)

    assert 1 == next(items)
    with pytest.raises(ValueError, match="Expecting value"):
        next(items)


def test_a_text_that_may_be_one_item_is_decoded_at_once() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        next(decode_items(b"[1, nonsense]", max_item_bytes=13))


@given(value=json_values)
def test_a_text_decoded_at_once_has_the_same_items(value: object) -> None:
    text = json.dumps(value).encode()

    assert items_of(text) == items_of(text, max_item_bytes=len(text))


WIDE = b'{"data":[' + b"[]," * 20_000 + b"[]]}"


@pytest.mark.parametrize("text", [WIDE, b"[" + WIDE + b"]", b"[1," + WIDE + b",2]", b" " * 9_000 + WIDE])
def test_an_item_that_must_be_over_the_limit_is_not_decoded(text: bytes) -> None:
    with pytest.raises(MessageTooLarge, match="1000 bytes"):
        items_of(text, max_item_bytes=1_000)


@given(items=st.lists(json_values, max_size=50), padding=st.integers(0, 9_000))
def test_an_item_within_the_limit_is_decoded_wherever_it_is(items: list[object], padding: int) -> None:
    text = b"[" + (b"," + b" " * padding).join(json.dumps(item).encode() for item in items) + b"]"

    assert items == items_of(text, max_item_bytes=max((len(json.dumps(item)) for item in items), default=0))


def items_of(text: bytes, *, max_item_bytes: int | None = None) -> list[object]:
    """Return the items. By default each is decoded by itself, because the text is longer than one item may be."""
    return list(decode_items(text, max_item_bytes=len(text) - 1 if max_item_bytes is None else max_item_bytes))
