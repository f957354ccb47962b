"""Server-Sent Events, and the HTTP chunks around them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core import wire
from unmissed.core.encoding import encode_json
from unmissed.core.event_stream import COMMENT, event, events, http_chunk, last_event


def test_an_event_has_the_frame_as_data_and_its_number_as_id() -> None:
    assert b'id: 7\ndata: {"a":1}\n\n' == event(b'{"a":1}', 7)


def test_an_event_without_a_number_has_no_id() -> None:
    assert b'data: {"a":1}\n\n' == event(b'{"a":1}', None)


def test_every_frame_with_a_sequence_number_has_an_id() -> None:
    frames = [wire.heartbeat(position=7), wire.reconnect(after_ms=5), wire.gap(first=8, last=9)]

    lines = events(frames).decode().splitlines()

    assert ["id: 7", "id: 9"] == [line for line in lines if line.startswith("id")]
    assert frames == [line.removeprefix("data: ").encode() for line in lines if line.startswith("data")]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_frame_is_one_line_whatever_its_text(text: str) -> None:
    """Lines end with CR, LF or both, and nothing else."""
    payload = encode_json({"type": "a", "sequence_number": 1, "data": text})

    assert 3 == event(payload, 1).count(b"\n")
    assert b"\r" not in event(payload, 1)


def test_before_the_end_an_error_frame_tells_the_close_code() -> None:
    data = last_event(4401, "the token has expired").removeprefix(b"data: ")

    assert {"type": "error", "code": 4401, "detail": "the token has expired"} == json.loads(data)


def test_a_restart_is_no_error() -> None:
    assert b"" == last_event(1012, "the server is shutting down")


@pytest.mark.parametrize(("size", "head"), [(1, b"1\r\n"), (10, b"a\r\n"), (65_536, b"10000\r\n")])
def test_a_chunk_tells_its_size_in_hexadecimal_digits(size: int, head: bytes) -> None:
    assert head + b"x" * size + b"\r\n" == http_chunk(b"x" * size)


def test_nothing_is_no_chunk_because_that_would_end_the_body() -> None:
    assert b"" == http_chunk(b"")


def test_a_comment_is_a_line_that_clients_ignore() -> None:
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")
