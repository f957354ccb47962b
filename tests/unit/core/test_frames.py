"""Frames, read back by a parser that is written from RFC 6455 section 5.2 and shares nothing with the writer."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.frames import text_frames, text_header

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
