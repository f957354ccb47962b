"""The log read backwards, for operators."""

from collections.abc import Iterable
from typing import Any

import pytest

from support import FIRST, nth, nths
from unmissed import Draft
from unmissed.core.browsing import SCAN_BYTES, MessageFilter, read_backwards
from unmissed.core.retention import Retention
from unmissed.core.window import SCAN, Window
from unmissed.logs.feed import VOID

EVERYTHING = MessageFilter()


def window_of(messages: Iterable[dict[str, Any]], **retention: Any) -> Window:
    window = Window(Retention(**{"max_messages": 100_000, **retention}), epoch="e", first_number=FIRST)
    for message in messages:
        draft = Draft.of(message, max_bytes=1_000_000)
        window.append(draft.stamp(window.latest + 1, timestamp="2026-01-31T12:00:00.000Z", now=0.0))
    return window


def shown(
    window: Window, wanted: MessageFilter = EVERYTHING, *, before: int | None = None, limit: int = 100
) -> list[int]:
    before = window.latest + 1 if before is None else before
    return [step.message.sequence_number for step in read_backwards(window, before, wanted, limit=limit) if step.shown]


ADDRESSED = (
    {"type": "chat", "data": {"text": 'She said "Hello"\nand Größe'}},
    {"type": "chat.typing", "topics": ["orders.42", "news"]},
    {"type": "chat", "users": ["alice", "bob"]},
    {"type": 'a"b', "topics": ["orders.42"], "users": ["bob"], "data": "hello"},
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (MessageFilter(), (4, 3, 2, 1)),
        (MessageFilter(type="chat"), (3, 1)),
        (MessageFilter(type='a"b'), (4,)),
        (MessageFilter(type="cha"), ()),
        (MessageFilter(topic="orders.42"), (4, 2)),
        (MessageFilter(topic="orders"), ()),
        (MessageFilter(user_id="bob"), (4, 3)),
        (MessageFilter(user_id="bob", topic="orders.42"), (4,)),
        (MessageFilter(user_id="orders.42"), ()),
        (MessageFilter(search="HELLO"), (4, 1)),
        (MessageFilter(search='said "hello"\nAND gr\u00d6\u00dfe'), (1,)),
        (MessageFilter(search='"TEXT":"she'), (1,)),
        (MessageFilter(search=str(nth(2))), (2,)),
        (MessageFilter(search="hello", type="chat"), (1,)),
        (MessageFilter(search="alice"), ()),
    ],
)
def test_all_filters_must_match(wanted: MessageFilter, expected: tuple[int, ...]) -> None:
    assert nths(*expected) == shown(window_of(ADDRESSED), wanted)


def test_numbers_whose_message_was_never_published_are_not_shown() -> None:
    window = window_of(ADDRESSED)
    window.append(VOID.stamp(nth(5), timestamp="", now=0.0))

    assert nths(4, 3, 2, 1) == shown(window)
    assert [] == shown(window, MessageFilter(type=""))


@pytest.mark.parametrize(
    ("before", "expected"),
    [(nth(9), (4, 3)), (nth(4), (3, 2)), (nth(2), (1,)), (nth(1), ()), (0, ()), (2**53 - 1, (4, 3))],
)
def test_a_page_begins_below_a_number(before: int, expected: tuple[int, ...]) -> None:
    assert nths(*expected) == shown(window_of(ADDRESSED), before=before, limit=2)


def test_evicted_messages_are_not_shown() -> None:
    window = window_of(({"type": "a"} for _ in range(10)), max_messages=3)

    assert nths(10, 9, 8) == shown(window)
    assert [] == shown(window, before=nth(8))


def test_a_page_examines_a_bounded_number_of_messages() -> None:
    window = window_of({"type": "a"} for _ in range(3 * SCAN))

    steps = [*read_backwards(window, nth(3 * SCAN + 1), MessageFilter(type="b"), limit=1)]

    assert SCAN == len(steps)
    assert nth(2 * SCAN + 1) == steps[-1].message.sequence_number


def test_a_page_searches_a_bounded_number_of_bytes() -> None:
    window = window_of(({"type": "a", "data": "x" * 900_000} for _ in range(30)), max_bytes=100_000_000)

    steps = [*read_backwards(window, nth(31), MessageFilter(search="absent"), limit=1)]

    assert SCAN_BYTES <= sum(step.message.size_in_log for step in steps) <= SCAN_BYTES + 1_000_000


def test_a_page_has_1_mib_and_at_least_one_message() -> None:
    window = window_of({"type": "a", "data": "x" * 400_000} for _ in range(6))

    assert nths(6, 5) == shown(window)
    assert nths(4, 3) == shown(window, before=nth(5))
    assert nths(2) == shown(window_of({"type": "a", "data": "x" * n} for n in (9, 999_000)), limit=1)


def test_what_is_appended_and_evicted_meanwhile_changes_nothing() -> None:
    window = window_of(({"type": "a"} for _ in range(5)), max_messages=5)
    reading = read_backwards(window, nth(6), EVERYTHING, limit=100)
    first = next(reading)
    for message in window_of({"type": "b"} for _ in range(9)).messages_after(nth(5)):
        window.append(message)

    assert nths(5, 4, 3, 2, 1) == [first.message.sequence_number, *(step.message.sequence_number for step in reading)]
