"""The window against a plain list of everything that was ever appended."""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import FIRST, nth, nths
from unmissed.core.audience import EVERYONE, Audience, keys_of
from unmissed.core.messages import MESSAGE_OVERHEAD, Message
from unmissed.core.retention import Retention
from unmissed.core.window import PAGE_BYTES, SCAN, Earlier, Located, Outcome, Page, Window


def message(number: int, *, payload: bytes = b"{}", at: float = 0.0) -> Message:
    return Message(number, "2026-01-31T12:00:00.000Z", payload, EVERYONE, at)


def empty_window(retention: Retention | None = None, *, first_number: int = FIRST) -> Window:
    return Window(retention or Retention(), epoch="life", first_number=first_number)


def window_of(count: int, *, at: float = 0.0, retention: Retention | None = None) -> Window:
    window = empty_window(retention)
    for number in nths(*range(1, count + 1)):
        window.append(message(number, at=at))
    return window


@dataclass(frozen=True)
class Recovery:
    """What a client that sees everything gets after its position."""

    outcome: Outcome
    start: int
    oldest: int
    latest: int
    messages: tuple[Message, ...]


def recover(window: Window, position: int, *, now: float, epoch: str | None = None) -> Recovery:
    window.expire(now)
    located = window.locate(position, epoch=epoch)
    messages = tuple(window.messages_after(located.start))
    return Recovery(located.outcome, located.start, window.oldest, window.latest, messages)


def numbers(recovery: Recovery) -> list[int]:
    return [each.sequence_number for each in recovery.messages]


def test_a_new_window_is_empty_and_complete_from_zero() -> None:
    recovery = recover(empty_window(), 0, now=0.0)

    assert Recovery(Outcome.COMPLETE, start=nth(0), oldest=nth(1), latest=nth(0), messages=()) == recovery


def test_a_position_gets_what_came_after_it() -> None:
    recovery = recover(window_of(3), nth(1), now=0.0)

    assert Outcome.COMPLETE is recovery.outcome
    assert nths(2, 3) == numbers(recovery)


def test_the_latest_position_has_missed_nothing() -> None:
    recovery = recover(window_of(3), nth(3), now=0.0)

    assert Recovery(Outcome.COMPLETE, start=nth(3), oldest=nth(1), latest=nth(3), messages=()) == recovery


def test_eviction_makes_the_recovery_a_gap() -> None:
    recovery = recover(window_of(5, retention=Retention(max_messages=2)), nth(2), now=0.0)

    assert Outcome.GAP is recovery.outcome
    assert nth(2) == recovery.start
    assert nths(4, 5) == numbers(recovery)


def test_a_gap_has_the_range_up_to_the_last_message_that_was_lost() -> None:
    window = window_of(5, retention=Retention(max_messages=2))

    assert Located(Outcome.GAP, start=nth(1), lost_through=nth(3)) == window.locate(nth(1))
    assert (nth(2), nth(3)) == window.locate(nth(1)).lost
    assert window.locate(nth(3)).lost is None
    assert window.locate(nth(6)).lost is None


def test_a_reset_counts_everything_evicted_so_far_as_lost() -> None:
    window = window_of(5, retention=Retention(max_messages=2))

    assert Located(Outcome.RESET, start=nth(3), lost_through=nth(3)) == window.locate(nth(6))


def test_appends_and_removals_are_changes() -> None:
    window = window_of(2, retention=Retention(max_age=10.0))
    before = window.changes
    window.append(message(nth(3)))
    appended = window.changes
    window.expire(9.0)
    unchanged = window.changes
    window.expire(10.0)
    removed = window.changes
    window.skip(nth(3))

    assert before < appended == unchanged < removed < window.changes


@pytest.mark.parametrize("position", nths(0, 1, 3))
def test_reading_may_begin_below_what_was_evicted(position: int) -> None:
    window = window_of(5, retention=Retention(max_messages=2))

    assert nths(4, 5) == [each.sequence_number for each in window.messages_after(position)]
    assert (window.latest, nths(4, 5)) == _numbered(window.next_visible(position, keys_of("alice")))
    assert (window.latest, []) == _numbered(window.next_visible(position, keys_of("alice"), everyone=False))


def test_a_position_at_the_edge_has_no_gap() -> None:
    """A client that saw the last evicted message has missed nothing."""
    recovery = recover(window_of(5, retention=Retention(max_messages=2)), nth(3), now=0.0)

    assert Outcome.COMPLETE is recovery.outcome
    assert nths(4, 5) == numbers(recovery)


def test_a_position_above_the_latest_is_a_reset_with_all_that_is_held() -> None:
    recovery = recover(window_of(5, retention=Retention(max_messages=2)), nth(6), now=0.0)

    assert Outcome.RESET is recovery.outcome
    assert nth(3) == recovery.start
    assert nths(4, 5) == numbers(recovery)


@pytest.mark.parametrize("position", [0, *nths(0, 3, 4, 5, 6)])
def test_another_epoch_is_a_reset_whatever_the_number(position: int) -> None:
    window = window_of(5, retention=Retention(max_messages=2))

    recovery = recover(window, position, now=0.0, epoch="another")

    assert Outcome.RESET is recovery.outcome
    assert nths(4, 5) == numbers(recovery)


def test_the_position_of_the_last_evicted_message_is_complete_even_when_nothing_is_held() -> None:
    recovery = recover(window_of(3, retention=Retention(max_age=10.0)), nth(3), now=10.0)

    assert Recovery(Outcome.COMPLETE, start=nth(3), oldest=nth(4), latest=nth(3), messages=()) == recovery


def test_a_window_emptied_by_age_is_a_gap_below_its_latest() -> None:
    recovery = recover(window_of(3, retention=Retention(max_age=10.0)), nth(2), now=10.0)

    assert Recovery(Outcome.GAP, start=nth(2), oldest=nth(4), latest=nth(3), messages=()) == recovery


def test_numbers_go_on_after_a_window_emptied_by_age() -> None:
    window = window_of(3, retention=Retention(max_age=10.0))
    window.expire(10.0)

    window.append(message(nth(4), at=11.0))

    assert nths(4) == numbers(recover(window, nth(3), now=11.0))


def test_a_message_of_exactly_max_age_is_gone() -> None:
    window = window_of(1, at=1_000.0, retention=Retention(max_age=900.0))

    window.expire(1_900.0)

    assert 0 == len(window)
    assert nth(1) == window.evicted_through


def test_a_message_one_millisecond_younger_than_max_age_is_there() -> None:
    window = window_of(1, at=1_000.0, retention=Retention(max_age=900.0))

    window.expire(1_899.999)

    assert 1 == len(window)
    assert nth(0) == window.evicted_through


def test_reading_evicts_what_is_too_old_by_then() -> None:
    window = empty_window(Retention(max_age=10.0))
    window.append(message(nth(1), at=0.0))
    window.append(message(nth(2), at=5.0))

    recovery = recover(window, 0, now=12.0)

    young = message(nth(2), at=5.0)
    assert Recovery(Outcome.GAP, start=nth(0), oldest=nth(2), latest=nth(2), messages=(young,)) == recovery


def test_appending_evicts_what_is_too_old_by_then() -> None:
    window = empty_window(Retention(max_age=10.0))
    window.append(message(nth(1), at=0.0))

    window.append(message(nth(2), at=10.0))

    assert nth(1) == window.evicted_through


def test_bytes_count_the_payload_and_the_overhead() -> None:
    retention = Retention(max_bytes=2 * (MESSAGE_OVERHEAD + 10))
    window = empty_window(retention)
    for number in nths(1, 2):
        window.append(message(number, payload=bytes(10)))
    held_at_the_limit = len(window)

    window.append(message(nth(3), payload=b""))

    assert 2 == held_at_the_limit
    assert nth(1) == window.evicted_through


def test_bytes_count_the_audience() -> None:
    audience = Audience.of(users=["alice", "bob"])
    window = empty_window(Retention(max_bytes=2 * MESSAGE_OVERHEAD + 2 * audience.size_in_log - 1))
    for number in nths(1, 2):
        window.append(Message(number, "2026-01-31T12:00:00.000Z", b"", audience, 0.0))

    assert nths(2) == numbers(recover(window, 0, now=0.0))
    assert 2 * (MESSAGE_OVERHEAD + audience.size_in_log) == window.appended_bytes


def test_a_message_larger_than_the_window_is_numbered_and_at_once_evicted() -> None:
    window = empty_window(Retention(max_bytes=MESSAGE_OVERHEAD))

    window.append(message(nth(1), payload=b"x"))

    assert 0 == len(window)
    assert (nth(1), nth(1)) == (window.latest, window.evicted_through)


@dataclass(frozen=True)
class Append:
    size: int
    after: int


@dataclass(frozen=True)
class Expire:
    after: int


steps = st.lists(
    st.builds(Append, size=st.integers(0, 300), after=st.integers(0, 6)) | st.builds(Expire, after=st.integers(0, 12)),
    max_size=40,
)
retentions = st.builds(
    Retention,
    max_messages=st.integers(1, 8),
    max_age=st.integers(1, 20).map(float),
    max_bytes=st.integers(MESSAGE_OVERHEAD, 6 * MESSAGE_OVERHEAD),
)


def held_by_model(published: list[Message], retention: Retention, now: float) -> list[Message]:
    """Return the longest tail of all messages that is within every bound."""
    for first in range(len(published) + 1):
        tail = published[first:]
        within_count = len(tail) <= retention.max_messages
        within_bytes = sum(len(each.payload) + MESSAGE_OVERHEAD for each in tail) <= retention.max_bytes
        within_age = all(now - each.appended_at < retention.max_age for each in tail)
        if within_count and within_bytes and within_age:
            return tail
    raise AssertionError("the empty tail is within every bound")


def outcome_of_model(published: list[Message], held: list[Message], position: int) -> Outcome:
    start = nth(0) if position == 0 else position
    if not nth(0) <= start <= nth(len(published)):
        return Outcome.RESET
    missed = published[start - nth(0) :]
    return Outcome.COMPLETE if all(each in held for each in missed) else Outcome.GAP


@given(retention=retentions, steps=steps)
def test_a_window_answers_as_a_list_of_everything_would(retention: Retention, steps: list[Append | Expire]) -> None:
    window, published, now = empty_window(retention), list[Message](), 0.0
    for step in steps:
        now += step.after
        if isinstance(step, Append):
            published.append(message(nth(len(published) + 1), payload=bytes(step.size), at=now))
            window.append(published[-1])
        else:
            window.expire(now)

        held = held_by_model(published, retention, now)
        assert len(held) == len(window)
        assert nth(len(published)) == window.latest
        assert nth(len(published) - len(held)) == window.evicted_through == window.oldest - 1
        for position in (0, 1, *range(FIRST - 2, nth(len(published) + 2))):
            recovery = recover(window, position, now=now)
            expected = outcome_of_model(published, held, position)
            assert expected is recovery.outcome
            assert (recovery.oldest, recovery.latest) == (window.oldest, window.latest)
            after = window.evicted_through if expected is Outcome.RESET else position or nth(0)
            assert after == recovery.start
            assert [each for each in held if each.sequence_number > after] == list(recovery.messages)


def life_from(first_number: int, *, count: int, max_messages: int = 500) -> Window:
    """Return a window whose life starts at a given number."""
    window = empty_window(Retention(max_messages=max_messages), first_number=first_number)
    for number in range(first_number, first_number + count):
        window.append(message(number))
    return window


def test_a_life_is_complete_from_the_position_before_its_first_number() -> None:
    assert Located(Outcome.COMPLETE, nth(100), nth(100)) == life_from(nth(101), count=3).locate(nth(100))


@pytest.mark.parametrize("position", [1, 50, *nths(99, 104), nth(10_000)])
def test_a_position_outside_of_this_life_is_a_reset(position: int) -> None:
    assert Located(Outcome.RESET, nth(100), nth(100)) == life_from(nth(101), count=3).locate(position)


def test_zero_stands_for_the_start_of_this_life() -> None:
    assert Located(Outcome.COMPLETE, nth(100), nth(100)) == life_from(nth(101), count=3).locate(0)
    assert Located(Outcome.GAP, nth(100), nth(102)) == life_from(nth(101), count=4, max_messages=2).locate(0)
    assert Located(Outcome.RESET, nth(100), nth(100)) == life_from(nth(101), count=3).locate(0, epoch="another")


def test_appended_bytes_include_what_was_evicted() -> None:
    window = life_from(FIRST, count=5, max_messages=2)

    assert 5 * (MESSAGE_OVERHEAD + len(b"{}")) == window.appended_bytes


BIG = PAGE_BYTES // 2
"""Two payloads of this size fill a page."""


def paged(*sizes: int, bob: tuple[int, ...] = ()) -> Window:
    """Return a window of payloads of these sizes. Those in ``bob``, counted from 1, are for Bob only."""
    window = empty_window()
    for n, size in enumerate(sizes, start=1):
        audience = Audience.of(users=["bob"]) if n in bob else EVERYONE
        window.append(Message(nth(n), "2026-01-31T12:00:00.000Z", bytes(size), audience, 0.0))
    return window


def read(window: Window, position: int = 0, *, max_messages: int | None = None) -> tuple[list[int], bool]:
    """Return the numbers that Alice gets in one page, and whether there are more."""
    page = window.page(position, keys=keys_of("alice"), now=0.0, max_messages=max_messages)
    return [each.sequence_number for each in page.messages], page.has_more


def test_a_page_tells_what_a_recovery_tells() -> None:
    window = window_of(5, retention=Retention(max_messages=2))

    page = window.page(nth(2), keys=keys_of("alice"), now=0.0)

    assert (
        Page(
            Outcome.GAP,
            oldest=nth(4),
            latest=nth(5),
            messages=(message(nth(4)), message(nth(5))),
            has_more=False,
            sequence_number=nth(5),
            lost=(nth(3), nth(3)),
        )
        == page
    )
    reset = window.page(nth(2), keys=keys_of("alice"), now=0.0, epoch="another")
    assert (Outcome.RESET, None) == (reset.outcome, reset.lost)


def test_a_page_has_the_position_to_ask_again_with() -> None:
    """Without it, a client that only counts messages would be sent the same gap until something follows."""
    window = paged(1, 1, 1, bob=(3,))

    pages = [window.page(nth(0), keys=keys_of("alice"), now=0.0, max_messages=1)]
    pages.append(window.page(pages[0].sequence_number, keys=keys_of("alice"), now=0.0, max_messages=1))

    assert [(nth(1), True), (nth(3), False)] == [(page.sequence_number, page.has_more) for page in pages]
    window.expire(1_000.0)
    lost = window.page(nth(0), keys=keys_of("alice"), now=0.0)
    assert (Outcome.GAP, (nth(1), nth(2)), nth(3)) == (lost.outcome, lost.lost, lost.sequence_number)
    assert Outcome.COMPLETE is window.page(lost.sequence_number, keys=keys_of("alice"), now=0.0).outcome


def test_a_page_evicts_what_is_too_old() -> None:
    assert () == window_of(3, retention=Retention(max_age=10.0)).page(0, keys=keys_of("alice"), now=10.0).messages


def test_a_page_holds_as_many_bytes_as_fit() -> None:
    assert (nths(1, 2), False) == read(paged(BIG, BIG))
    assert (nths(1, 2), True) == read(paged(BIG, BIG, 1))
    assert (nths(1), True) == read(paged(BIG, BIG + 1))
    assert (nths(3), False) == read(paged(BIG, BIG, 1), nth(2))


def test_a_page_holds_one_message_however_large() -> None:
    assert (nths(1), True) == read(paged(PAGE_BYTES + 1, 0))
    assert (nths(2), False) == read(paged(0, PAGE_BYTES + 1), nth(1))


def test_a_page_holds_no_more_messages_than_asked_for() -> None:
    assert (nths(1, 2), True) == read(paged(9, 9, 9), max_messages=2)
    assert (nths(1, 2, 3), False) == read(paged(9, 9, 9), max_messages=3)


def test_messages_of_others_are_neither_counted_nor_more() -> None:
    assert (nths(2, 3), False) == read(paged(BIG, BIG, BIG, BIG, BIG, bob=(1, 4, 5)))
    assert (nths(2, 3), False) == read(paged(9, 9, 9, 9, bob=(1, 4)), max_messages=2)
    assert (nths(2, 3), False) == read(paged(9, 9, 9, 9, bob=(1, 4)))


def test_a_message_behind_those_of_others_is_more() -> None:
    assert (nths(1, 2), True) == read(paged(BIG, BIG, 9, 9, 1, bob=(3, 4)))
    assert (nths(1), True) == read(paged(9, 9, 9, bob=(2,)), max_messages=1)


@given(
    messages=st.lists(
        st.tuples(st.sampled_from([1, BIG // 2, BIG, PAGE_BYTES, PAGE_BYTES + 1]), st.booleans()), max_size=9
    ),
    max_messages=st.none() | st.integers(1, 4),
)
def test_pages_joined_are_everything_that_a_user_sees(
    messages: list[tuple[int, bool]], max_messages: int | None
) -> None:
    others = tuple(n for n, (_, for_bob) in enumerate(messages, start=1) if for_bob)
    window = paged(*(size for size, _ in messages), bob=others)

    got, has_more = read(window, max_messages=max_messages)
    while has_more:
        page, has_more = read(window, got[-1], max_messages=max_messages)
        assert page
        got += page

    assert [nth(n) for n in range(1, len(messages) + 1) if n not in others] == got


@given(
    for_bob=st.lists(st.booleans(), max_size=60),
    evicted=st.integers(0, 20),
    most=st.integers(1, 9),
    everyone=st.booleans(),
)
def test_steps_joined_are_everything_that_a_user_sees_and_each_is_bounded(
    for_bob: list[bool], evicted: int, most: int, *, everyone: bool
) -> None:
    bob, rest = Audience.of(users=["bob"]), EVERYONE if everyone else Audience.of(users=["carol"])
    window = empty_window(Retention(max_messages=max(1, len(for_bob) - evicted)), first_number=FIRST)
    for number, mine in enumerate(for_bob, start=FIRST):
        window.append(Message(number, "", b"{}", bob if mine else rest, 0.0))
    position, got = window.evicted_through, list[int]()

    while position < window.latest:
        before = position
        position, messages = window.next_visible(position, keys_of("bob"), everyone=everyone, most=most)
        found = [each.sequence_number for each in messages]
        assert before < position
        assert len(found) <= most
        got += found

    visible = [number for number, mine in enumerate(for_bob, start=FIRST) if mine or everyone]
    assert [number for number in visible if number > window.evicted_through] == got


def sparse_and_then_dense(*, sparse: int, dense: int) -> Window:
    """Return a window with one message for bob, many for carol, and then many for bob."""
    window = empty_window(Retention(max_messages=1_000_000, max_bytes=2**40), first_number=FIRST)
    carol, bob = Audience.of(users=["carol"]), Audience.of(users=["bob"])
    for place in range(1 + sparse + dense):
        window.append(Message(FIRST + place, "", b"{}", carol if 0 < place <= sparse else bob, 0.0))
    return window


def test_a_step_looks_at_a_bounded_number_of_messages_and_skips_those_before_the_first_visible_one() -> None:
    window = sparse_and_then_dense(sparse=10_000, dense=10_000)

    first, messages = window.next_visible(FIRST - 1, keys_of("bob"))
    assert (FIRST - 1 + SCAN, [FIRST]) == (first, [each.sequence_number for each in messages])
    second, messages = window.next_visible(first, keys_of("bob"))
    dense = FIRST + 1 + 10_000
    assert (dense - 1 + SCAN, dense) == (second, next(messages).sequence_number)


def test_nothing_is_looked_at_where_nothing_is_visible() -> None:
    window = sparse_and_then_dense(sparse=10_000, dense=0)

    assert (window.latest, []) == _listed(window.next_visible(FIRST, keys_of("bob")))
    assert (window.latest, []) == _listed(window.next_visible(FIRST - 1, frozenset()))


def _listed(step: tuple[int, Iterable[Message]]) -> tuple[int, list[Message]]:
    return step[0], [*step[1]]


def _numbered(step: tuple[int, Iterable[Message]]) -> tuple[int, list[int]]:
    return step[0], [each.sequence_number for each in step[1]]


def test_a_page_of_a_user_who_sees_little_ends_early_and_the_next_one_continues() -> None:
    window = sparse_and_then_dense(sparse=30_000, dense=9_000)

    pages = [window.page(FIRST - 1, keys=keys_of("bob"), now=0.0)]
    while pages[-1].has_more:
        pages.append(window.page(pages[-1].messages[-1].sequence_number, keys=keys_of("bob"), now=0.0))

    assert [1, 9_000] == [len(page.messages) for page in pages]


def skipped_to(number: int) -> Window:
    """Return a window of 3 messages that has continued after this number."""
    window = window_of(3)
    window.skip(number)
    return window


def test_a_skip_keeps_what_is_retained() -> None:
    window = skipped_to(nth(7))

    assert nths(1, 2, 3) == [each.sequence_number for each in window]
    assert (nth(1), nth(7), nth(7)) == (window.oldest, window.latest, window.evicted_through)
    assert ("life", FIRST) == (window.epoch, window.first_number)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (0, Located(Outcome.GAP, nth(0), nth(7))),
        (nth(3), Located(Outcome.GAP, nth(3), nth(7))),
        (nth(6), Located(Outcome.GAP, nth(6), nth(7))),
        (nth(7), Located(Outcome.COMPLETE, nth(7), nth(7))),
        (nth(8), Located(Outcome.RESET, nth(0), nth(7))),
    ],
)
def test_what_was_skipped_is_a_gap_for_everybody(position: int, expected: Located) -> None:
    """Nothing tells whom the messages were for."""
    window = skipped_to(nth(7))

    assert expected == window.locate(position)
    assert expected == window.locate(position, keys=keys_of("alice"), epoch="life")
    assert expected == window.locate(position, keys=frozenset())


def test_a_skip_to_the_latest_number_may_have_lost_messages_up_to_it() -> None:
    window = skipped_to(nth(3))

    assert Located(Outcome.GAP, nth(2), nth(3)) == window.locate(nth(2))
    assert Located(Outcome.COMPLETE, nth(3), nth(3)) == window.locate(nth(3))


def test_messages_are_counted_as_evicted_however_they_leave() -> None:
    window = window_of(5, retention=Retention(max_messages=3))

    window.expire(1_000.0)
    window.append(message(nth(6), at=1_000.0))
    window.restore(Earlier(through=nth(10)))
    window.append(message(nth(11), at=1_000.0))
    window.restart(epoch="next", first_number=nth(20))

    assert 7 == window.evicted_messages


def test_messages_follow_after_what_was_skipped() -> None:
    window = skipped_to(nth(7))

    window.append(Message(nth(8), "2026-01-31T12:00:00.000Z", b"{}", Audience.of(users=["bob"]), 0.0))
    window.append(message(nth(9)))

    assert nths(3, 8, 9) == numbers(recover(window, nth(2), now=0.0))
    assert nths(9) == [each.sequence_number for each in window.next_visible(nth(7), keys_of("alice"))[1]]
    page = window.page(0, keys=keys_of("bob"), now=0.0)
    assert nths(1, 2, 3, 8, 9) == [each.sequence_number for each in page.messages]


def test_what_is_evicted_after_a_skip_is_lost_for_those_who_could_see_it() -> None:
    window = empty_window(Retention(max_messages=1))
    window.skip(nth(7))
    for number, user in ((nth(8), "bob"), (nth(9), "alice"), (nth(10), "alice")):
        window.append(Message(number, "", b"{}", Audience.of(users=[user]), 0.0))

    assert Outcome.GAP is window.locate(nth(6), keys=keys_of("carol")).outcome
    assert Outcome.COMPLETE is window.locate(nth(7), keys=keys_of("carol")).outcome
    assert Outcome.COMPLETE is window.locate(nth(8), keys=keys_of("bob")).outcome
    assert Outcome.GAP is window.locate(nth(8), keys=keys_of("alice")).outcome


def restarted_at(first_number: int) -> Window:
    """Return a window of 3 messages that has begun another epoch."""
    window = window_of(3)
    window.restart(epoch="next", first_number=first_number)
    return window


def test_a_restart_begins_another_epoch_that_is_empty() -> None:
    window = restarted_at(nth(101))

    assert (0, 0) == (len(window), window.size)
    assert ("next", nth(101)) == (window.epoch, window.first_number)
    assert (nth(101), nth(100), nth(100)) == (window.oldest, window.latest, window.evicted_through)


@pytest.mark.parametrize("position", nths(1, 3, 99, 101))
def test_every_position_before_a_restart_is_a_reset(position: int) -> None:
    window = restarted_at(nth(101))

    assert Located(Outcome.RESET, nth(100), nth(100)) == window.locate(position)
    assert Located(Outcome.RESET, nth(100), nth(100)) == window.locate(position, epoch="life", keys=keys_of("alice"))


def test_an_epoch_is_complete_from_its_start_although_the_last_one_lost_messages() -> None:
    window = window_of(5, retention=Retention(max_messages=2))
    window.skip(nth(9))

    window.restart(epoch="next", first_number=nth(10))

    assert Located(Outcome.COMPLETE, nth(9), nth(9)) == window.locate(0, epoch="next")
    assert Located(Outcome.COMPLETE, nth(9), nth(9)) == window.locate(nth(9), epoch="next", keys=keys_of("alice"))
    assert Located(Outcome.RESET, nth(9), nth(9)) == window.locate(nth(9), epoch="life")


def test_messages_follow_after_a_restart() -> None:
    window = restarted_at(nth(101))

    window.append(message(nth(101)))
    window.append(message(nth(102)))

    assert Recovery(
        Outcome.COMPLETE, start=nth(101), oldest=nth(101), latest=nth(102), messages=(message(nth(102)),)
    ) == recover(window, nth(101), now=0.0, epoch="next")
    assert nths(101, 102) == numbers(recover(window, nth(2), now=0.0))


@dataclass(frozen=True)
class Skip:
    lost: int


@dataclass(frozen=True)
class Restart:
    unused: int


@given(
    steps=st.lists(
        st.sampled_from(["append", "expire"])
        | st.builds(Skip, st.integers(1, 3))
        | st.builds(Restart, st.integers(0, 3)),
        max_size=20,
    )
)
def test_a_window_never_calls_a_position_complete_that_has_missed_messages(
    steps: list[str | Skip | Restart],
) -> None:
    window, epoch, numbered, now = empty_window(Retention(max_messages=3, max_age=4.0)), 0, list[int](), 0.0
    window.restart(epoch="0", first_number=FIRST)
    for step in steps:
        now += 1.0
        match step:
            case Skip(lost=lost):
                numbered += range(window.latest + 1, window.latest + lost + 1)
                window.skip(window.latest + lost)
            case Restart(unused=unused):
                epoch, numbered = epoch + 1, []
                window.restart(epoch=str(epoch), first_number=window.latest + 1 + unused)
            case "append":
                numbered.append(window.latest + 1)
                window.append(message(numbered[-1], at=now))
            case _:
                window.expire(now)

        for position in range(window.first_number - 1, window.latest + 1):
            recovery = recover(window, position, now=now, epoch=str(epoch))
            missed = [number for number in numbered if number > position]
            assert (Outcome.COMPLETE is recovery.outcome) == (missed == numbers(recovery))
            assert {*missed}.issuperset(numbers(recovery))
        assert Outcome.RESET is window.locate(window.latest, epoch=str(epoch - 1)).outcome


def test_messages_expire_in_steps_that_are_bounded() -> None:
    """A hundred thousand at once would hold up the event loop for a fifth of a second."""
    window = window_of(1_200, retention=Retention(max_messages=2_000, max_age=10.0))

    left = []
    for _ in range(4):
        window.expire(10.0)
        left.append(len(window))

    assert [700, 200, 0, 0] == left
