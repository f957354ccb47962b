"""The strict query parameters."""

import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from unmissed.api.request_parts import limit_parameter, parse_sequence_number
from unmissed.core.errors import InvalidPosition


def request(query: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "query_string": query.encode(), "headers": []})


def test_an_absent_limit_is_none_which_lets_a_page_be_read_without_counting() -> None:
    assert None is limit_parameter(request(""))
    assert None is limit_parameter(request("since=1796000000000000"), most=100)


def test_a_limit_is_a_number_up_to_the_most() -> None:
    assert 100 == limit_parameter(request("limit=100"), most=100)
    with pytest.raises(HTTPException, match="at most 100"):
        limit_parameter(request("limit=101"), most=100)


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
