"""Server frames, positions and close reasons."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core import wire
from unmissed.core.errors import InvalidPosition
from unmissed.core.wire import close_reason, parse_sequence_number


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


def test_a_greeting_tells_the_outcome_to_a_client_that_gave_a_position() -> None:
    frame = wire.connected(
        connection_id="c",
        epoch="e",
        first=1,
        oldest=3,
        latest=9,
        outcome="gap",
        start=2,
        heartbeat_seconds=25.0,
        max_age=900.0,
    )

    expected = {
        "type": "connected",
        "connection_id": "c",
        "epoch": "e",
        "first": 1,
        "oldest": 3,
        "latest": 9,
        "sequence_number": 2,
        "heartbeat_seconds": 25,
        "max_age": 900,
        "outcome": "gap",
    }
    assert expected == json.loads(frame)
    assert b'"heartbeat_seconds":25,' in frame


def test_a_greeting_without_a_position_has_no_outcome() -> None:
    frame = wire.connected(
        connection_id="c",
        epoch="e",
        first=1,
        oldest=1,
        latest=0,
        outcome=None,
        start=0,
        heartbeat_seconds=0.5,
        max_age=900.0,
    )

    assert "outcome" not in json.loads(frame)
    assert 0.5 == json.loads(frame)["heartbeat_seconds"]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (wire.heartbeat(position=7), {"type": "heartbeat", "sequence_number": 7}),
        (wire.gap(first=3, last=9), {"type": "gap", "from": 3, "to": 9, "sequence_number": 9}),
        (wire.reconnect(after_ms=250), {"type": "reconnect", "after_ms": 250}),
        (wire.error(code=4400, detail='no "é"'), {"type": "error", "code": 4400, "detail": 'no "é"'}),
        (wire.PONG, {"type": "pong"}),
    ],
)
def test_server_frames_are_json(frame: bytes, expected: dict[str, object]) -> None:
    assert expected == json.loads(frame)
    assert expected["type"] in wire.RESERVED_TYPES


@pytest.mark.parametrize("has_more", [True, False])
def test_a_recovery_holds_the_payloads_byte_for_byte(has_more: object) -> None:
    payloads = [b'{"type":"a","data":1.0}', '{"type":"é"}'.encode()]

    body = wire.recovery_body(
        payloads,
        epoch="e",
        first=1,
        oldest=1,
        latest=2,
        outcome="complete",
        has_more=bool(has_more),
        heartbeat_seconds=25.0,
        max_age=900.0,
        topics={"b", "a"},
    )

    expected = {
        "messages": [{"type": "a", "data": 1.0}, {"type": "é"}],
        "epoch": "e",
        "first": 1,
        "oldest": 1,
        "latest": 2,
        "outcome": "complete",
        "has_more": has_more,
        "topics": ["a", "b"],
        "heartbeat_seconds": 25,
        "max_age": 900,
    }
    assert expected == json.loads(body)
    assert b",".join(payloads) in body


def test_a_recovery_without_messages_is_json_too() -> None:
    body = wire.recovery_body(
        [],
        epoch="e",
        first=1,
        oldest=1,
        latest=0,
        outcome="complete",
        has_more=False,
        heartbeat_seconds=25.0,
        max_age=900.0,
    )

    assert [] == json.loads(body)["messages"]


def test_the_stamp_of_a_publish_is_json() -> None:
    body = wire.stamp_body(2**53 - 1, epoch="k3J9x0aQ_2fM", timestamp="2026-01-31T12:00:00.000Z")

    expected = {"sequence_number": 2**53 - 1, "epoch": "k3J9x0aQ_2fM", "timestamp": "2026-01-31T12:00:00.000Z"}
    assert expected == json.loads(body)


def test_a_short_close_reason_is_kept() -> None:
    assert "come back later" == close_reason("come back later")


def test_a_close_reason_is_not_cut_inside_a_character() -> None:
    assert close_reason("a" + "é" * 100) == "a" + "é" * 61
    assert close_reason("é" * 100) == "é" * 61


@given(text=st.text(alphabet=st.characters(exclude_categories=[]), max_size=200))
def test_a_close_reason_fits_whatever_the_text(text: str) -> None:
    assert len(close_reason(text).encode()) <= 123
