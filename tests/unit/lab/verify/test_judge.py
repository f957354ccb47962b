"""The checker: clean histories have no violation, and every planted one is found."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.retention import Retention, rules_from
from unmissed.lab.verify.facts import (
    Acknowledged,
    Addressees,
    ClientFact,
    Delivered,
    Ended,
    Fact,
    GapDeclared,
    Joined,
    Reached,
    Witness,
)
from unmissed.lab.verify.judge import check
from unmissed.lab.verify.promises import Promise, Rules

RETENTION = Retention(max_messages=10, max_age=100.0, rules=rules_from("rooms.*=10/1h"))
RULES = Rules(RETENTION, max_messages=10, epoch_may_change=False)
LOSSY = replace(RULES, epoch_may_change=True)
EVERYONE = Addressees()
ALICE, BOB = Witness("a", "alice", frozenset({"news"})), Witness("b", "bob")


def acknowledged(number: int, *, epoch: str = "e", addressees: Addressees = EVERYONE, at: float = 1.0) -> Acknowledged:
    return Acknowledged(at, at - 0.1, f"{epoch}-{number}", epoch, number, f"content {number}", addressees)


def published(*numbers: int, epoch: str = "e", addressees: Addressees = EVERYONE, at: float = 1.0) -> list[Fact]:
    """Acknowledge messages, one a second."""
    return [
        acknowledged(number, epoch=epoch, addressees=addressees, at=at + index) for index, number in enumerate(numbers)
    ]


def delivered(number: int, *, client: str = "a", epoch: str = "e", at: float = 50.0) -> Delivered:
    return Delivered(at, client, epoch, number, f"bytes {number}", f"{epoch}-{number}", f"content {number}")


def received(*numbers: int, client: str = "a", epoch: str = "e") -> list[ClientFact]:
    return [delivered(number, client=client, epoch=epoch) for number in numbers]


def joined(
    position: int,
    *,
    since: int | None = None,
    outcome: str | None = None,
    client: str = "a",
    epoch: str = "e",
    oldest: int = 1,
    latest: int = 100,
    at: float = 40.0,
    lost: tuple[int, int] | None = None,
) -> Joined:
    return Joined(at, client, epoch, since, position, outcome, oldest, latest, lost)


def ended(number: int, *, client: str = "a", epoch: str = "e") -> Ended:
    return Ended(60.0, client, epoch, number)


def broken(
    facts: Sequence[Fact], *, witnesses: Iterable[Witness] = (ALICE,), rules: Rules = RULES
) -> list[tuple[Promise, tuple[int, ...]]]:
    """Return the broken promises, with their numbers."""
    return [(each.promise, each.numbers) for each in check(facts, witnesses=witnesses, rules=rules)]


CLEAN: dict[str, list[Fact]] = {
    "everything live": [*published(1, 2, 3), joined(0), *received(1, 2, 3), ended(3)],
    "only new messages": [*published(1, 2, 3), joined(2), *received(3), ended(3)],
    "resumed": [
        *published(1, 2, 3),
        joined(0),
        *received(1),
        joined(1, since=1, outcome="complete"),
        *received(2, 3),
        ended(3),
    ],
    "reached by a heartbeat": [*published(1, 2), joined(0), *received(1, 2), Reached(51.0, "a", "e", 2), ended(2)],
    "numbers of others": [
        *published(1, 3),
        *published(2, addressees=Addressees(users=frozenset({"bob"}))),
        joined(0),
        *received(1, 3),
        ended(3),
    ],
    "a gap after an eviction": [
        *published(*range(1, 21)),
        joined(0),
        *received(1, 2),
        joined(2, since=2, outcome="gap", lost=(3, 10), oldest=11, latest=20),
        *received(*range(11, 21)),
        ended(20),
    ],
    "a gap in which a part is retained": [
        *published(*range(1, 21)),
        joined(0),
        *received(1, 2),
        joined(2, since=2, outcome="gap", lost=(3, 10), oldest=11, latest=20),
        *received(5, 7, *range(11, 21)),
        ended(20),
    ],
    "a gap on a slow connection": [
        *published(*range(1, 21)),
        joined(0),
        GapDeclared(50.0, "a", "e", 1, 10, 0),
        *received(*range(11, 21)),
        ended(20),
    ],
    "a message of an unknown publisher": [
        *published(1, 3),
        joined(0),
        *received(1),
        Delivered(50.0, "a", "e", 2, "bytes", None, None),
        *received(3),
        ended(3),
    ],
}


@pytest.mark.parametrize("history", CLEAN.values(), ids=CLEAN)
def test_a_clean_history_has_no_violation(history: list[Fact]) -> None:
    assert [] == broken(history)


def test_a_new_epoch_with_a_reset_is_clean_if_the_log_may_be_lost() -> None:
    history: list[Fact] = [
        *published(1, 2, 3),
        joined(0),
        *received(1),
        *published(101, 102, epoch="f", at=20.0),
        joined(100, since=1, outcome="reset", epoch="f"),
        *received(101, 102, epoch="f"),
        ended(102, epoch="f"),
    ]

    assert [] == broken(history, rules=LOSSY)
    assert [(Promise.HONEST_RESETS, ())] == broken(history)


def test_a_message_that_comes_twice_is_a_duplicate() -> None:
    history = [*published(1, 2), joined(0), *received(1, 2, 2), ended(2)]

    assert [(Promise.NO_DUPLICATES, (2,))] == broken(history)


def test_a_message_that_comes_again_after_a_resume_is_a_duplicate() -> None:
    history = [
        *published(1, 2),
        joined(0),
        *received(1, 2),
        joined(2, since=2, outcome="complete"),
        *received(2),
        ended(2),
    ]

    assert [(Promise.NO_DUPLICATES, (2,))] == broken(history)


def test_a_message_published_twice_is_a_duplicate() -> None:
    again = replace(delivered(2), number=3)
    history = [*published(1, 2), joined(0), *received(1, 2), again, ended(3)]

    assert [(Promise.NO_DUPLICATES, (2, 3))] == broken(history)


def test_a_lower_number_after_a_higher_one_is_out_of_order() -> None:
    history = [*published(1, 2, 3), joined(0), *received(1, 3, 2), ended(3)]

    assert [(Promise.ORDER, (2,))] == broken(history)


def test_a_message_after_a_heartbeat_that_passed_it_is_out_of_order() -> None:
    history = [*published(1, 2), joined(0), Reached(45.0, "a", "e", 2), *received(1, 2), ended(2)]

    assert [(Promise.ORDER, (1,)), (Promise.ORDER, (2,))] == broken(history)


def test_a_number_below_an_earlier_acknowledgement_is_out_of_order() -> None:
    history = [*published(2, 1), joined(0), *received(1, 2), ended(2)]

    assert [(Promise.ORDER, (2, 1))] == broken(history)


def test_concurrent_publishers_may_be_acknowledged_in_any_order() -> None:
    history = [acknowledged(2), replace(acknowledged(1), at=9.0), joined(0), *received(1, 2), ended(2)]

    assert [] == broken(history)


@pytest.mark.parametrize(
    "rest",
    [
        received(1, 3),
        [*received(1), Reached(50.0, "a", "e", 2), *received(3)],
        [*received(1), joined(2, since=2, outcome="complete"), *received(3)],
        [*received(1), joined(2, since=1, outcome="complete"), *received(3)],
    ],
    ids=["skipped", "passed by a heartbeat", "passed by the client", "passed by the answer"],
)
def test_a_message_that_neither_came_nor_is_in_a_gap_is_lost(rest: list[ClientFact]) -> None:
    found = check([*published(1, 2, 3), joined(0), *rest, ended(3)], witnesses=[ALICE, BOB], rules=RULES)

    assert {Promise.NO_SILENT_LOSS, Promise.PUBLISH} == {each.promise for each in found}
    assert {(2,)} == {each.numbers for each in found}


def test_what_was_acknowledged_before_a_client_came_to_its_end_is_lost_without_a_later_message() -> None:
    history = [*published(1, 2), joined(0), *received(1), ended(2)]

    assert (Promise.NO_SILENT_LOSS, (2,)) in broken(history)


def test_losses_before_a_reset_are_found() -> None:
    history: list[Fact] = [
        *published(1, 2, 3),
        joined(0),
        *received(1, 3),
        joined(100, since=3, outcome="reset", epoch="f"),
        ended(100, epoch="f"),
    ]

    assert (Promise.NO_SILENT_LOSS, (2,)) in broken(history, rules=LOSSY)


def test_a_message_outside_of_the_declared_gap_is_lost() -> None:
    history = [
        *published(*range(1, 21)),
        joined(0),
        GapDeclared(50.0, "a", "e", 1, 9, 0),
        *received(*range(11, 21)),
        ended(20),
    ]

    assert (Promise.NO_SILENT_LOSS, (10,)) in broken(history)


def test_a_client_that_never_came_to_its_end_is_a_loss() -> None:
    history = [*published(1, 2), joined(0), *received(1)]

    assert [(Promise.NO_SILENT_LOSS, ())] == broken(history)


@pytest.mark.parametrize("fact", [delivered(1), Reached(50.0, "a", "e", 1), GapDeclared(50.0, "a", "e", 1, 1, 0)])
def test_a_client_that_receives_anything_before_it_has_a_position_has_lost_its_first_frame(fact: ClientFact) -> None:
    history = [*published(1), fact, joined(1), ended(1)]

    assert (Promise.NO_SILENT_LOSS, ()) in broken(history)


def test_an_acknowledged_message_that_nobody_received_is_forgotten() -> None:
    histories = (
        [joined(0), *received(1, 3), ended(3)],
        [joined(0, client="b"), *received(1, 3, client="b"), ended(3, client="b")],
    )

    assert (Promise.PUBLISH, (2,)) in broken(
        [*published(1, 2, 3), *histories[0], *histories[1]], witnesses=[ALICE, BOB]
    )


def test_what_only_a_broken_client_lost_is_not_forgotten_by_the_server() -> None:
    history = [*published(1, 2), joined(0), *received(1), ended(2)]

    found = check(history, witnesses=[ALICE], rules=RULES, broken="a")

    assert [Promise.NO_SILENT_LOSS] == [each.promise for each in found]


def test_a_gap_whose_last_message_was_retained_is_false() -> None:
    history = [
        *published(*range(1, 11)),
        joined(0, latest=0),
        GapDeclared(50.0, "a", "e", 1, 3, 0),
        *received(*range(4, 11)),
        ended(10),
    ]

    assert [(Promise.NO_FALSE_GAP, (3,)), (Promise.RULES, (1, 2, 3))] == broken(history)


def test_a_gap_that_ends_at_the_oldest_number_is_false() -> None:
    history = [
        *published(*range(1, 21)),
        joined(10),
        joined(10, since=10, outcome="gap", lost=(11, 11), oldest=11, latest=20),
        *received(*range(11, 21)),
        ended(20),
    ]

    assert [(Promise.NO_FALSE_GAP, (11,))] == broken(history)


def test_a_gap_after_the_retention_time_is_true() -> None:
    history = [*published(1, 2), joined(0), GapDeclared(150.0, "a", "e", 1, 2, 0), ended(2)]

    assert [] == broken(history)


@pytest.mark.parametrize(("field", "value"), [("digest", "others"), ("content", "others")])
def test_other_bytes_are_found(field: str, value: str) -> None:
    other = delivered(1, client="b")
    history = [
        *published(1),
        joined(0),
        *received(1),
        ended(1),
        joined(0, client="b"),
        replace(other, **{field: value}),  # type: ignore[arg-type]  # a name of a field
        ended(1, client="b"),
    ]

    assert [(Promise.SAME_BYTES, (1, 1))] == broken(history, witnesses=[ALICE, BOB])


def test_a_number_of_two_messages_is_found_in_acknowledgements() -> None:
    other = acknowledged(1, at=2.0)
    history = [*published(1), replace(other, message_id="other"), joined(0), *received(1), ended(1)]

    assert [(Promise.HONEST_RESETS, (1, 1))] == broken(history)


def test_a_number_of_two_messages_is_found_in_deliveries() -> None:
    other = delivered(1, client="b")
    history = [
        *published(1),
        joined(0),
        *received(1),
        joined(0, client="b"),
        replace(other, message_id="other"),
        ended(1),
    ]

    assert (Promise.HONEST_RESETS, (1, 1)) in broken(history)


def test_a_number_of_two_epochs_is_found() -> None:
    history: list[Fact] = [
        *published(1, 2),
        joined(0),
        *received(1, 2),
        *published(2, epoch="f", at=20.0),
        joined(1, since=2, outcome="reset", epoch="f"),
        *received(2, epoch="f"),
        ended(2, epoch="f"),
    ]

    assert [(Promise.HONEST_RESETS, (2, 2))] == broken(history, rules=LOSSY)


def test_a_reset_within_an_epoch_is_false() -> None:
    history = [
        *published(1, 2),
        joined(0),
        *received(1),
        joined(0, since=1, outcome="reset"),
        *received(1, 2),
        ended(2),
    ]

    assert [(Promise.HONEST_RESETS, ())] == broken(history)


def test_a_new_epoch_without_a_reset_is_found() -> None:
    history: list[Fact] = [
        *published(1),
        joined(0),
        *received(1),
        joined(1, since=1, outcome="complete", epoch="f"),
        ended(1, epoch="f"),
    ]

    assert [(Promise.HONEST_RESETS, ())] == broken(history, rules=LOSSY)


@pytest.mark.parametrize(
    "addressees", [Addressees(users=frozenset({"bob"})), Addressees(topics=frozenset({"sport"}))], ids=["user", "topic"]
)
def test_a_message_for_others_is_found(addressees: Addressees) -> None:
    history = [*published(1, addressees=addressees), joined(0), *received(1), ended(1)]

    assert [(Promise.PRIVACY, (1,))] == broken(history)


@pytest.mark.parametrize(
    "addressees",
    [
        Addressees(users=frozenset({"bob", "alice"})),
        Addressees(topics=frozenset({"sport", "news"})),
        Addressees(users=frozenset({"bob"}), topics=frozenset({"news"})),
    ],
    ids=["user", "topic", "both"],
)
def test_a_message_for_this_user_is_owed(addressees: Addressees) -> None:
    history = [*published(1, addressees=addressees), joined(0), *received(1), ended(1)]

    assert [] == broken(history)
    assert (Promise.NO_SILENT_LOSS, (1,)) in broken([*history[:2], ended(1)])


def test_the_excerpt_shows_the_events_around_the_violation() -> None:
    facts = received(*range(1, 31))
    lost = facts.pop(19)

    [violation, _] = check([*published(*range(1, 31)), joined(0), *facts, ended(30)], witnesses=[ALICE], rules=RULES)

    assert lost not in violation.excerpt
    assert {19, 21} <= {fact.number for fact in violation.excerpt if isinstance(fact, Delivered)}
    assert len(violation.excerpt) <= 7


FAULTS = ("lose", "repeat", "swap", "corrupt")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Fact], list[Fact], str]:
    """Return a clean history of one client, the same with one fault, and the fault."""
    count = draw(st.integers(3, 30))
    cuts = draw(st.sets(st.integers(1, count - 1)))
    clean: list[Fact] = [joined(0)]
    for number in range(1, count + 1):
        clean += received(number)
        if number in cuts:
            clean.append(joined(number, since=number, outcome="complete"))
    clean.append(ended(count))
    fault = draw(st.sampled_from(FAULTS))
    places = [place for place, fact in enumerate(clean) if isinstance(fact, Delivered)]
    place = draw(st.sampled_from(places[:-1]))
    faulty = list(clean)
    match fault:
        case "lose":
            del faulty[place]
        case "repeat":
            faulty.insert(place + 1, faulty[place])
        case "swap":
            other = places[places.index(place) + 1]
            faulty[place], faulty[other] = faulty[other], faulty[place]
        case _:
            faulty[place] = replace(delivered(places.index(place) + 1), content="others")
    known = published(*range(1, count + 1))
    return [*known, *clean], [*known, *faulty], fault


@given(histories())
def test_one_fault_anywhere_is_found(histories: tuple[list[Fact], list[Fact], str]) -> None:
    clean, faulty, fault = histories
    expected = dict(zip(FAULTS, ("NO_SILENT_LOSS", "NO_DUPLICATES", "ORDER", "SAME_BYTES"), strict=True))[fault]

    found = check(faulty, witnesses=[ALICE], rules=RULES)

    assert [] == check(clean, witnesses=[ALICE], rules=RULES)
    assert expected in {each.promise.name for each in found}
