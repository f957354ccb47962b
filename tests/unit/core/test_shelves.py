"""Shelves: what each rule retains, and how much more fits before something new is evicted."""

import pytest

from support import FIRST, nth
from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.messages import Draft, Message, Value
from unmissed.core.retention import Retention, rules_from
from unmissed.core.window import Window

RETENTION = Retention(max_messages=40, rules=rules_from("rooms.*=10/1h, @*=20/2h"))
ROOM, OTHER_ROOM = Audience.of(topics=["rooms.1"]), Audience.of(topics=["rooms.2"])
ALICE = Audience.of(users=["alice"])


def window_of(*added: tuple[Audience, Value | None]) -> Window:
    window = Window(RETENTION, epoch="life", first_number=FIRST)
    for n, (audience, value) in enumerate(added, start=1):
        window.append(Message(nth(n), "2026-01-31T12:00:00.000Z", b"{}", audience, 0.0, value))
    return window


def drafts(audience: Audience, count: int, value: Value | None = None) -> list[Draft]:
    return [Draft(b'{"type":"a"', b"}", audience, value=value)] * count


def test_each_rule_reports_what_it_retains() -> None:
    value, piece = Value("k"), Value("k", append=True)
    window = window_of((ROOM, None), (ROOM, value), (OTHER_ROOM, piece), (ALICE, value), (EVERYONE, None))

    none, rooms, users = window.shelves()

    assert [(None, 40, 900.0), ("rooms.*", 10, 3_600.0), ("@*", 20, 7_200.0)] == [
        (each.pattern, each.max_messages, each.max_age) for each in (none, rooms, users)
    ]
    assert [(1, 0, 1), (3, 1, 2), (1, 1, 0)] == [
        (each.messages, each.values, each.topics) for each in (none, rooms, users)
    ]
    assert window.size == none.bytes + rooms.bytes + users.bytes


@pytest.mark.parametrize(
    ("audience", "count", "share", "fits"),
    [
        (ROOM, 3, 1, True),
        (ROOM, 4, 1, False),
        (OTHER_ROOM, 10, 1, True),
        (OTHER_ROOM, 11, 1, False),
        (OTHER_ROOM, 2, 4, True),
        (OTHER_ROOM, 3, 4, False),
        (ALICE, 20, 1, True),
        (ALICE, 21, 1, False),
        (EVERYONE, 40, 1, True),
        (EVERYONE, 41, 1, False),
    ],
)
def test_there_is_room_for_what_the_rule_of_a_topic_keeps(
    audience: Audience, count: int, share: int, *, fits: bool
) -> None:
    window = window_of(*[(ROOM, None)] * 9)

    assert fits is window.has_room(drafts(audience, count), after=nth(2), share=share)


def test_values_need_no_room() -> None:
    window = window_of(*[(ROOM, None)] * 10)

    assert window.has_room(drafts(ROOM, 50, Value("k")), after=nth(0))
    assert not window.has_room(drafts(ROOM, 1, Value("k", append=True)), after=nth(0))


def test_a_rule_that_floods_makes_room_for_the_others_itself() -> None:
    """The most bytes in all are reached: the oldest message of the rule that takes the most leaves."""
    retention = Retention(max_bytes=60_000, rules=rules_from("rooms.*=1000/1h"))
    window = Window(retention, epoch="life", first_number=FIRST)
    window.append(Message(nth(1), "", b"{}", EVERYONE, 0.0))
    for n in range(2, 200):
        window.append(Message(nth(n), "", b"x" * 500, ROOM, 0.0))

    others, rooms = window.shelves()
    assert (1, nth(1)) == (others.messages, window.oldest)
    assert 0 < rooms.messages < 198
    assert window.size <= 60_000


def test_many_topics_are_looked_up_anew_when_too_many_were_remembered() -> None:
    window = window_of()
    for n in range(1, 10_050):
        window.append(Message(nth(n), "", b"{}", Audience.of(topics=[f"rooms.{n}"]), 0.0))

    assert 10_049 == window.shelves()[1].topics
