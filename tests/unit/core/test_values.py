"""Values by key: what replaces what, and whether all parts of a value are retained."""

import pytest

from support import FIRST, nth
from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.messages import Message, Value
from unmissed.core.retention import Retention, rules_from
from unmissed.core.values import MAX_ENDED, Values
from unmissed.core.window import Earlier, Window

ROOM = Audience.of(topics=["room"])
FULL, PIECE, TOMBSTONE = Value("k"), Value("k", append=True), Value("k", deleted=True)


def message(n: int, value: Value, *, audience: Audience = ROOM, size: int = 2) -> Message:
    return Message(nth(n), "2026-01-31T12:00:00.000Z", b"x" * size, audience, 0.0, value)


def added(values: Values, n: int, value: Value, *, audience: Audience = ROOM, whole: bool = True) -> list[int]:
    """Add a message, and return the numbers of those that it replaces."""
    return [each.sequence_number for each in values.add(message(n, value, audience=audience), value, whole=whole)]


@pytest.mark.parametrize("last", [FULL, TOMBSTONE])
def test_a_value_and_a_tombstone_replace_everything_before_them(last: Value) -> None:
    values = Values()

    assert [] == added(values, 1, FULL) == added(values, 2, PIECE) == added(values, 3, PIECE)
    assert [nth(1), nth(2), nth(3)] == added(values, 4, last)
    assert [nth(4)] == added(values, 5, FULL)
    assert message(5, FULL) == values.of(ROOM, "k")


def test_pieces_may_come_without_a_value() -> None:
    values = Values()

    assert [] == added(values, 1, PIECE) == added(values, 2, PIECE)
    assert values.of(ROOM, "k") is None
    assert values.is_whole(message(2, PIECE))
    assert [nth(1), nth(2)] == added(values, 3, FULL)


def test_the_same_key_with_another_audience_is_another_value() -> None:
    values = Values()
    added(values, 1, FULL)
    added(values, 2, FULL, audience=EVERYONE)

    assert [nth(1)] == added(values, 3, FULL)
    assert message(2, FULL, audience=EVERYONE) == values.of(EVERYONE, "k")


def test_the_order_of_topics_makes_no_other_value() -> None:
    values = Values()
    added(values, 1, FULL, audience=Audience.of(topics=["a", "b"]))

    assert [nth(1)] == added(values, 2, FULL, audience=Audience.of(topics=["b", "a"]))


@pytest.mark.parametrize("evicted", [1, 2])
def test_a_value_is_not_whole_without_one_of_its_parts(evicted: int) -> None:
    values = Values()
    parts = {1: message(1, FULL), 2: message(2, PIECE), 3: message(3, PIECE)}
    for each in parts.values():
        values.add(each, each.value or FULL, whole=True)

    values.evicted(parts[evicted], parts[evicted].value or FULL)

    assert not values.is_whole(parts[3])
    added(values, 4, FULL)
    assert values.is_whole(message(4, FULL))


def test_pieces_after_a_tombstone_do_not_need_it() -> None:
    values = Values()
    tombstone = message(1, TOMBSTONE)
    values.add(tombstone, TOMBSTONE, whole=True)
    added(values, 2, PIECE)

    values.evicted(tombstone, TOMBSTONE)

    assert values.is_whole(message(2, PIECE))


def test_further_pieces_do_not_make_a_value_whole_whose_pieces_were_all_evicted() -> None:
    values = Values()
    piece = message(1, PIECE)
    values.add(piece, PIECE, whole=True)
    values.evicted(piece, PIECE)
    assert 0 == len(values)

    added(values, 2, PIECE)
    assert not values.is_whole(message(2, PIECE))
    added(values, 3, FULL)
    added(values, 4, PIECE)
    assert values.is_whole(message(4, PIECE))


def test_a_bounded_number_of_ended_values_is_remembered() -> None:
    values = Values()
    for n in range(MAX_ENDED + 1):
        piece = message(n + 1, Value(str(n), append=True))
        values.add(piece, piece.value or PIECE, whole=True)
        values.evicted(piece, piece.value or PIECE)

    for key, is_whole in (("0", True), ("1", False)):
        piece = message(MAX_ENDED + 9, Value(key, append=True))
        values.add(piece, piece.value or PIECE, whole=True)
        assert is_whole is values.is_whole(piece)


def window_with(*values: Value) -> Window:
    window = Window(Retention(rules=rules_from("room=10/1h")), epoch="life", first_number=FIRST)
    for n, value in enumerate(values, start=1):
        window.append(message(n, value))
    return window


def test_a_value_of_thousands_of_pieces_is_replaced_in_steps() -> None:
    window = Window(Retention(max_messages=5_000), epoch="life", first_number=FIRST)
    for n in range(1, 601):
        window.append(message(n, PIECE))

    window.append(message(601, FULL))

    assert 0 < len(window) - 1 <= 350
    assert not any(window.is_whole(each) for each in window if each.value == PIECE)
    for _ in range(2):
        window.expire(0.0)
    assert [nth(601)] == [each.sequence_number for each in window]
    assert (600, 0) == (window.replaced_messages, window.evicted_messages)


@pytest.mark.parametrize(("lost", "is_whole"), [(0, True), (nth(1), False)])
def test_after_a_start_pieces_are_whole_if_nothing_of_their_topic_may_be_lost(lost: int, *, is_whole: bool) -> None:
    window = window_with()

    window.restore(Earlier(nth(5), [message(3, PIECE)], {"#room": lost} if lost else {}))
    window.replay(message(6, PIECE))

    assert is_whole is window.is_whole(message(6, PIECE))


def test_after_a_start_pieces_of_a_retained_value_are_whole_if_nothing_was_lost_since() -> None:
    window = window_with()

    window.restore(Earlier(nth(5), [message(3, FULL)], {"#room": nth(2)}))
    window.replay(message(6, PIECE))

    assert window.is_whole(message(6, PIECE))
    assert [message(3, FULL), message(6, PIECE)] == list(window)


def test_after_a_start_a_value_that_has_lost_pieces_is_not_whole() -> None:
    window = window_with()

    window.restore(Earlier(nth(5), [message(3, FULL)], {"#room": nth(4)}, partial=frozenset({nth(3)})))

    assert not window.is_whole(message(3, FULL))
    window.append(message(6, FULL))
    assert [nth(6)] == [each.sequence_number for each in window]
    assert window.is_whole(message(6, FULL))
