"""Text frames, read back by a parser written from RFC 6455 section 5.2, and Server-Sent Events in HTTP chunks."""

import json
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import nth
from unmissed.core.chunks import COMMENT, event, events, http_chunk, last_event, text_frames, text_header
from unmissed.core.encoding import encode_json
from unmissed.core.server_frames import GapFrame, HeartbeatFrame, ReconnectFrame, StateFrame

EDGES = (0, 1, 125, 126, 127, 65_535, 65_536, 65_537)


def parsed(stream: bytes) -> Iterator[bytes]:
    """Yield the payload of each frame; every frame has to be a final, unmasked text frame of the shortest form."""
    position = 0
    while position < len(stream):
        first, second = struct.unpack_from("!BB", stream, position)
        assert (True, 0, 1) == (bool(first & 0b1000_0000), first & 0b0111_0000, first & 0b1111)
        assert not second & 0b1000_0000
        position += 2
        length, least = second, 0
        if second == 126:
            (length,), least = struct.unpack_from("!H", stream, position), 126
            position += 2
        elif second == 127:
            (length,), least = struct.unpack_from("!Q", stream, position), 65_536
            position += 8
        assert least <= length
        yield stream[position : position + length]
        position += length


@given(
    payloads=st.lists(st.binary(max_size=300) | st.sampled_from(EDGES).map(lambda length: b"x" * length), max_size=6)
)
def test_every_payload_comes_back_from_its_frame(payloads: list[bytes]) -> None:
    assert payloads == list(parsed(text_frames(payloads)))


@pytest.mark.parametrize("length", EDGES)
def test_the_edges_of_the_length_fields_come_back(length: int) -> None:
    payload = bytes(length)

    assert [payload, b"next"] == list(parsed(text_frames([payload, b"next"])))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, b"\x81\x00"),
        (5, b"\x81\x05"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (2**63 - 1, b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_headers_are_the_bytes_of_the_rfc(length: int, expected: bytes) -> None:
    assert expected == text_header(length)


def test_no_payloads_are_no_bytes() -> None:
    assert b"" == text_frames([])


def test_payloads_may_come_from_an_iterator() -> None:
    assert b"\x81\x01a\x81\x01b" == text_frames(iter([b"a", b"b"]))


# Server-Sent Events


def test_an_event_has_the_frame_as_data_and_its_number_as_id() -> None:
    assert b'id: 7\ndata: {"a":1}\n\n' == event(b'{"a":1}', 7)


def test_an_event_without_a_number_has_no_id() -> None:
    assert b'data: {"a":1}\n\n' == event(b'{"a":1}', None)


def test_every_frame_with_a_sequence_number_has_an_id() -> None:
    frames = [
        frame.encode()
        for frame in (
            HeartbeatFrame(sequence_number=nth(7)),
            ReconnectFrame(after_ms=5),
            GapFrame(first=nth(9), last=nth(9), sequence_number=nth(8)),
        )
    ]

    lines = events(frames).decode().splitlines()

    assert [f"id: {nth(7)}", f"id: {nth(8)}"] == [line for line in lines if line.startswith("id")]
    assert frames == [line.removeprefix("data: ").encode() for line in lines if line.startswith("data")]


def test_a_browser_that_is_cut_before_the_end_of_a_state_repeats_the_id_from_before() -> None:
    """With the id of ``connected``, everything after it would be complete, and the state would not be sent again."""
    connected = b'{"type":"connected","sequence_number":%d,"state":true}' % nth(7)
    parts = [
        StateFrame(values=[], has_more=True).encode(),
        StateFrame(values=[], has_more=False, sequence_number=nth(7)).encode(),
    ]

    sent = [events([frame]) for frame in (connected, *parts)]

    assert [False, False, True] == [each.startswith(b"id: %d\n" % nth(7)) for each in sent]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_frame_is_one_line_whatever_its_text(text: str) -> None:
    """Lines end with CR, LF or both, and nothing else."""
    payload = encode_json({"type": "a", "sequence_number": 1, "data": text})

    assert 3 == event(payload, 1).count(b"\n")
    assert b"\r" not in event(payload, 1)


def test_an_error_frame_with_the_close_code_precedes_the_end() -> None:
    data = last_event(4401, "the token has expired").removeprefix(b"data: ")

    assert {"type": "error", "code": 4401, "detail": "the token has expired"} == json.loads(data)


def test_a_restart_is_no_error() -> None:
    assert b"" == last_event(1012, "the server is shutting down")


@pytest.mark.parametrize(("size", "head"), [(1, b"1\r\n"), (10, b"a\r\n"), (65_536, b"10000\r\n")])
def test_a_chunk_begins_with_its_size_in_hexadecimal_digits(size: int, head: bytes) -> None:
    assert head + b"x" * size + b"\r\n" == http_chunk(b"x" * size)


def test_nothing_is_no_chunk_because_that_would_end_the_body() -> None:
    assert b"" == http_chunk(b"")


def test_a_comment_is_a_line_that_clients_ignore() -> None:
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")
