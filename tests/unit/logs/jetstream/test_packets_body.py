"""The body of a message in a stream: what is stored is read unchanged, and other bytes are refused."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed import Draft
from unmissed.logs.jetstream.packets import LINE_BYTES, decode_body, encode_body, encode_receipt
from unmissed.logs.writer import Write

UNIX_MS = 1_796_000_000_000
DRAFT = Draft.of({"type": "order", "data": {"item": "Grüße\n"}, "topics": ["orders.42"]}, max_bytes=65_536)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def write_of(loop: asyncio.AbstractEventLoop, *, fingerprint: bytes) -> Write:
    return Write([DRAFT], "key" if fingerprint else None, fingerprint, loop.create_future())


@given(unix_ms=st.integers(0, 2**42), log_ms=st.integers(-(2**53), 2**53), place=st.integers(1, 500))
def test_a_body_is_read_as_it_was_stored(unix_ms: int, log_ms: int, place: int) -> None:
    body = decode_body(encode_body(DRAFT, unix_ms=unix_ms, log_ms=log_ms, place=place))

    assert not body.is_last
    assert (unix_ms, log_ms, place, None, DRAFT) == body


@pytest.mark.parametrize("fingerprint", [b"", b"f" * 32], ids=["without a key", "with a key"])
def test_the_last_message_of_a_publish_is_recognized_by_its_write(
    loop: asyncio.AbstractEventLoop, fingerprint: bytes
) -> None:
    mine, other = (write_of(loop, fingerprint=fingerprint) for _ in range(2))

    body = decode_body(encode_body(DRAFT, unix_ms=UNIX_MS, log_ms=0, place=3, receipt=encode_receipt(mine)))

    assert body.is_last
    assert (True, False) == (body.is_of(mine), body.is_of(other))
    assert body.has_drafts_of(mine)


def test_a_publish_of_other_drafts_under_one_key_is_noticed(loop: asyncio.AbstractEventLoop) -> None:
    mine, other = (write_of(loop, fingerprint=letter * 32) for letter in (b"a", b"b"))

    body = decode_body(encode_body(DRAFT, unix_ms=UNIX_MS, log_ms=0, place=1, receipt=encode_receipt(mine)))

    assert (True, False) == (body.has_drafts_of(mine), body.has_drafts_of(other))


def test_the_line_before_the_draft_is_as_short_as_is_stated(loop: asyncio.AbstractEventLoop) -> None:
    receipt = encode_receipt(write_of(loop, fingerprint=b"f" * 32))

    body = encode_body(DRAFT, unix_ms=2**53, log_ms=-(2**53), place=500, receipt=receipt)

    assert len(body.partition(b"\n")[0]) <= LINE_BYTES


@pytest.mark.parametrize("body", [b"", b"no", b"1 2\n{}", b"1 2 0\n", b"1 2 x\n{}", b"x 2 1\n{}", b"\xff" * 100])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of several functions
        decode_body(body)
