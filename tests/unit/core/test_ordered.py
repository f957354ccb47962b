"""Messages in order, of which any are removed, against a plain list."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import nth, nths
from unmissed.core.audience import EVERYONE
from unmissed.core.messages import Message
from unmissed.core.ordered import BLOCK, Groups, Ordered


def message(number: int) -> Message:
    return Message(number, "2026-01-31T12:00:00.000Z", b"{}", EVERYONE, 0.0)


def numbers(messages: object) -> list[int]:
    return [each.sequence_number for each in messages]  # type: ignore[attr-defined]


def ordered(*found: int) -> Ordered:
    return Ordered(map(message, found))


def kept(count: int, *, one_in: int) -> tuple[Ordered, list[int]]:
    """Return messages of which one in so many is left, and their numbers."""
    found = ordered(*nths(*range(1, count + 1)))
    left = [nth(n) for n in range(1, count + 1) if n % one_in == 0]
    for number in {*nths(*range(1, count + 1))}.difference(left):
        found.remove(number)
    return found, left


@pytest.mark.parametrize("one_in", [1, 2, 100, 2_000])
def test_what_is_left_is_found_from_every_position(one_in: int) -> None:
    found, left = kept(3 * BLOCK, one_in=one_in)

    assert len(left) == found.count
    assert (left[0] if left else None) == getattr(found.first, "sequence_number", None)
    for position in nths(0, 1, 99, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK):
        after = [number for number in left if number > position]
        assert after == numbers(found.after(position))
        assert [number for number in left if number < position][::-1] == numbers(found.before(position))
        assert min(len(after), 50) == min(found.count_after(position, limit=50), 50)
        assert (after[0] if after else None) == getattr(found.first_after(position), "sequence_number", None)
        assert (after[6] if len(after) > 6 else None) == found.through(position, most=7)


@given(
    added=st.sets(st.integers(1, 200), max_size=60),
    removed=st.sets(st.integers(1, 200)),
    more=st.sets(st.integers(201, 260)),
    position=st.integers(0, 261),
)
def test_numbers_may_have_holes(added: set[int], removed: set[int], more: set[int], position: int) -> None:
    found = ordered(*nths(*sorted(added)))
    for n in added & removed:
        found.remove(nth(n))
    for n in sorted(more):
        found.append(message(nth(n)))

    left = nths(*sorted((added - removed) | more))
    assert left == numbers(found.after(nth(0)))
    assert [number for number in left if number > nth(position)] == numbers(found.after(nth(position)))
    assert [number for number in left if number < nth(position)][::-1] == numbers(found.before(nth(position)))


def test_a_ring_stays_in_few_blocks() -> None:
    found = ordered(*nths(*range(1, 501)))
    for n in range(501, 20_001):
        found.append(message(nth(n)))
        found.remove(nth(n - 500))

    assert nths(*range(19_501, 20_001)) == numbers(found.after(nth(0)))
    assert nths(19_999, 20_000) == numbers(found.after(nth(19_998)))


def test_a_copy_does_not_change_with_the_original() -> None:
    found = ordered(*nths(1, 2, 3))

    copy = found.copy()
    found.remove(nth(2))
    found.append(message(nth(4)))

    assert nths(1, 2, 3) == numbers(copy.after(nth(0)))
    assert 3 == copy.count


def test_a_group_may_have_one_message_or_many() -> None:
    groups = Groups()
    messages = [message(nth(n)) for n in range(1, 5)]
    for each in messages[:3]:
        groups.add("a", each)
    groups.add("b", messages[3])

    assert (3, 1, 0) == (groups.size("a"), groups.size("b"), groups.size("c"))
    assert [messages[0], messages[3], None] == [groups.first(name) for name in "abc"]
    assert nths(2, 3) == numbers(groups.after("a", nth(1)))
    assert ([nth(4)], []) == (numbers(groups.after("b", nth(3))), numbers(islice(groups.after("b", nth(4)), 1)))
    assert (2, 1, 0, 0) == tuple(
        groups.count_after(name, nth(n), limit=9) for name, n in (("a", 1), ("b", 3), ("b", 4), ("c", 0))
    )
    assert [messages[1], messages[3], None, None] == [
        groups.first_after(name, nth(n)) for name, n in (("a", 1), ("b", 3), ("b", 4), ("c", 0))
    ]


def test_a_group_without_messages_is_forgotten() -> None:
    groups = Groups()
    for n in (1, 2):
        groups.add("a", message(nth(n)))

    groups.remove("a", message(nth(1)))
    assert 1 == len(groups)
    groups.remove("a", message(nth(2)))

    assert 0 == len(groups)
