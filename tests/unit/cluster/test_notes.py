"""Notes as bytes: authenticated before anything else, bounded, and received once."""

import hmac
import random
import tracemalloc
import zlib
from typing import Any

import pytest

from unmissed.cluster.notes import MAX_NOTE_BYTES, Assembly, Replays, authentic, encoded
from unmissed.core.encoding import encode_json

KEY = b"the key of these nodes"


def parts_of(note: dict[str, Any]) -> list[bytes]:
    """Return the parts of a note, without their codes."""
    parts = [authentic(sealed, keys=[KEY]) for sealed in encoded(note, key=KEY)]
    return [part for part in parts if part is not None]


def incompressible(count: int) -> str:
    """Return so many characters that zlib cannot make much shorter."""
    return random.Random(0).randbytes(count // 2).hex()


def part(content: bytes, **head: object) -> bytes:
    return encode_json({"id": "a", "part": 0, "parts": 1, **head}) + b"\n" + content


@pytest.mark.parametrize("size", [1, 9_000, 100_000, 3_000_000])
def test_a_note_of_any_size_arrives_as_it_was(size: int) -> None:
    note = {"content": incompressible(size)}
    parts = parts_of(note)
    assembly = Assembly()

    taken = [assembly.take(each) for each in reversed(parts)]

    assert note == taken[-1]
    assert [None] * (len(parts) - 1) == taken[:-1]


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_a_part_that_was_changed_is_not_authentic(position: int) -> None:
    [sealed] = encoded({"content": 1}, key=KEY)
    changed = bytearray(sealed)
    changed[position] ^= 1

    assert None is authentic(bytes(changed), keys=[KEY])
    assert None is authentic(sealed, keys=[b"another key"])
    assert None is authentic(b"", keys=[KEY])
    assert authentic(sealed, keys=[KEY])


@pytest.mark.long
def test_a_note_that_unpacks_to_more_than_a_note_may_have_is_refused_while_it_is_unpacked() -> None:
    bomb = part(zlib.compress(b'{"a":"' + b"a" * (8 * MAX_NOTE_BYTES) + b'"}', level=9))
    assembly = Assembly()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than"):
            assembly.take(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 3 * MAX_NOTE_BYTES > peak


def test_a_note_that_no_node_would_accept_is_not_sent() -> None:
    with pytest.raises(ValueError, match="nodes accept"):
        list(encoded({"content": "a" * MAX_NOTE_BYTES}, key=KEY))


def test_the_largest_note_is_accepted_even_if_it_cannot_be_compressed() -> None:
    note = {"content": random.Random(0).randbytes(MAX_NOTE_BYTES // 2 - 100).hex()}
    assembly = Assembly()

    [*first, last] = parts_of(note)

    assert all(assembly.take(each) is None for each in first)
    assert note == assembly.take(last)


@pytest.mark.parametrize(
    "head",
    [{"part": 1}, {"part": -1}, {"parts": 0}, {"parts": 100_000}, {"parts": "1"}, {"id": None}, {"part": 0.5}],
)
def test_a_part_with_an_invalid_head_is_refused(head: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="invalid head"):
        Assembly().take(part(b"{}", **head))


@pytest.mark.parametrize("text", [b"", b"x", b"[]\n{}", b"{}\n{}", part(b"\x78\x9cdamaged"), part(b"{")])
def test_other_bytes_raise_value_error_only(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the reasons differ
        Assembly().take(text)


def test_incomplete_notes_are_bounded_in_bytes_and_the_oldest_are_dropped() -> None:
    assembly = Assembly(max_incomplete_bytes=1_000)
    for number in range(3):
        assembly.take(part(b"x" * 300, id=f"note {number}", parts=2))

    with pytest.raises(ValueError, match="1 incomplete notes were dropped"):
        assembly.take(part(b"x" * 300, id="note 3", parts=2))

    assert None is assembly.take(part(b"{", id="note 0", part=1, parts=2))
    with pytest.raises(ValueError, match="decompressed"):
        assembly.take(part(b"x", id="note 3", part=1, parts=2))


def test_a_part_that_is_repeated_is_counted_once() -> None:
    assembly = Assembly(max_incomplete_bytes=1_000)

    assert [None] * 20 == [assembly.take(part(b"x" * 900, parts=2)) for _ in range(20)]


def test_a_note_is_new_once_in_whatever_order_notes_arrive() -> None:
    replays = Replays()
    numbers = [1_796_000_000_000_001 + number for number in range(200)]
    random.Random(0).shuffle(numbers)

    assert [True] * 200 == [replays.is_new("a", number) for number in numbers]
    assert [False] * 200 == [replays.is_new("a", number) for number in numbers]
    assert [True] * 200 == [replays.is_new("b", number) for number in numbers]


def test_a_note_is_not_new_after_a_thousand_later_ones() -> None:
    replays = Replays()
    first = 1_796_000_000_000_001

    assert [True, True, False, False] == [
        replays.is_new("a", first + number) for number in (0, 2_000, 2_000 - 1_024, -1)
    ]
    assert replays.is_new("a", first + 2_000 - 1_023)
    assert replays.is_new("a", first * 10**300)


def test_the_nodes_whose_numbers_are_remembered_are_bounded() -> None:
    replays = Replays(max_nodes=2)
    for node in "abac":
        replays.is_new(node, 1)

    assert [False, False, True] == [replays.is_new(node, 1) for node in "acb"]


def test_the_code_of_a_part_is_an_hmac() -> None:
    [sealed] = encoded({"content": 1}, key=KEY)

    assert hmac.digest(KEY, sealed[32:], "sha256") == sealed[:32]
