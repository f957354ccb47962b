"""The checker of transactions: clean histories have no violation, and every planted one is found."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

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
    Written,
)
from unmissed.lab.verify.judge import check
from unmissed.lab.verify.promises import Promise, Rules

RULES = Rules(
    Retention(max_messages=1_000, max_age=1_000.0, rules=rules_from("rooms.*=10/1h")),
    max_messages=1_000,
    epoch_may_change=False,
)
ALICE, BOB = Witness("a", "alice", frozenset({"news", "rooms.1"})), Witness("b", "bob")
NEWS, ROOM = Addressees(topics=frozenset({"news"})), Addressees(topics=frozenset({"rooms.1"}))
EVERYONE = Addressees()


def written(
    number: int,
    *,
    committed: bool = True,
    at: float | None = None,
    transaction: str | None = None,
    addressees: Addressees = EVERYONE,
) -> Written:
    """Return a message that a transaction published 0.1 s before its end, at a time that ascends with the number."""
    ended_at = number / 100 if at is None else at
    own = transaction or f"transaction {number}"
    return Written(
        ended_at, ended_at - 0.1, f"m-{number}", f"content {number}", own, number, committed, addressees=addressees
    )


def acknowledged(number: int) -> Acknowledged:
    return Acknowledged(number / 100, number / 100 - 0.1, f"m-{number}", "e", number, f"content {number}")


def delivered(number: int, *, message: int | None = None, client: str = "a") -> Delivered:
    known = number if message is None else message
    return Delivered(50.0, client, "e", number, f"bytes {number}", f"m-{known}", f"content {known}")


def joined(position: int, *, client: str = "a") -> Joined:
    return Joined(40.0, client, "e", None, position, None, 1, 900)


def history(*received: ClientFact, witness: Witness = ALICE, position: int = 100) -> list[Fact]:
    """Return what a client received from after a position, and then had everything."""
    name = witness.name
    return [joined(position, client=name), *received, Reached(50.0, name, "e", 500), Ended(60.0, name, "e", 500)]


def broken(
    facts: Sequence[Fact], *, witnesses: Sequence[Witness] = (ALICE,), broken: str | None = None
) -> list[tuple[Promise, tuple[int, ...]]]:
    """Return the broken promises, with their numbers."""
    return [(each.promise, each.numbers) for each in check(facts, witnesses=witnesses, rules=RULES, broken=broken)]


AROUND = [acknowledged(110), acknowledged(190)]
"""Messages before and after those of the transactions."""
BEFORE, AFTER = delivered(110), delivered(190)

CLEAN: dict[str, list[Fact]] = {
    "committed and delivered": [*AROUND, written(150), *history(BEFORE, delivered(150), AFTER)],
    "rolled back": [*AROUND, written(150, committed=False), *history(BEFORE, AFTER)],
    "several in one": [
        *AROUND,
        *(written(number, at=1.6, transaction="one") for number in (130, 140, 150)),
        *history(BEFORE, delivered(130), delivered(140), delivered(150), AFTER),
    ],
    "others between those of one": [
        *AROUND,
        *(written(number, at=1.6, transaction="one") for number in (130, 150)),
        written(140, at=1.6),
        *history(BEFORE, delivered(130), delivered(140), delivered(150), AFTER),
    ],
    "open at the same time": [
        *AROUND,
        written(150, at=1.55),
        written(151, at=1.5),
        *history(BEFORE, delivered(150), delivered(151), AFTER),
    ],
    "to nobody who is here": [*AROUND, written(150, addressees=NEWS), *history(witness=BOB)],
    "lost in a declared gap": [*AROUND, written(150), *history(GapDeclared(50.0, "a", "e", 101, 160, 100), AFTER)],
    "removed by its rule": [*AROUND, written(150, addressees=ROOM), *history(BEFORE, AFTER)],
    "committed before the client came": [*AROUND, written(150), *history(AFTER, position=180)],
    "committed at the very end": [acknowledged(110), written(150), *history(BEFORE)],
}


@pytest.mark.parametrize("facts", CLEAN.values(), ids=CLEAN)
def test_a_clean_history_has_no_violation(facts: list[Fact]) -> None:
    witnesses = [BOB] if any(isinstance(fact, Joined) and fact.client == "b" for fact in facts) else [ALICE]

    assert [] == [each for each in broken(facts, witnesses=witnesses) if each[0] is Promise.TRANSACTIONS]


def test_a_committed_message_that_nobody_received_is_missing() -> None:
    facts = [*AROUND, written(150), *history(BEFORE, AFTER)]

    assert [(Promise.TRANSACTIONS, ())] == broken(facts)


def test_it_is_missing_for_those_who_follow_its_topic() -> None:
    facts = [*AROUND, written(150, addressees=NEWS), *history(BEFORE, AFTER)]

    assert [(Promise.TRANSACTIONS, ())] == broken(facts)


def test_one_client_without_a_gap_is_enough_to_miss_it() -> None:
    gap = GapDeclared(50.0, "a", "e", 101, 160, 100)
    other = history(delivered(110, client="b"), delivered(190, client="b"), witness=BOB)

    found = broken([*AROUND, written(150), *history(gap, AFTER), *other], witnesses=[ALICE, BOB])

    assert (Promise.TRANSACTIONS, ()) in found


def test_a_gap_elsewhere_excuses_nothing() -> None:
    facts = [*AROUND, written(150), *history(GapDeclared(50.0, "a", "e", 101, 105, 100), BEFORE, AFTER)]

    assert (Promise.TRANSACTIONS, ()) in broken(facts)


def test_a_client_that_loses_messages_on_purpose_misses_nothing() -> None:
    facts = [*AROUND, written(150), *history(BEFORE, AFTER)]

    assert [] == broken(facts, broken="a")


def test_a_committed_message_that_another_client_received_is_lost() -> None:
    others = history(delivered(110, client="b"), delivered(150, client="b"), delivered(190, client="b"), witness=BOB)

    found = broken([*AROUND, written(150), *history(BEFORE, AFTER), *others], witnesses=[ALICE, BOB])

    assert [(Promise.NO_SILENT_LOSS, (150,))] == found


def test_a_message_that_was_rolled_back_may_not_arrive() -> None:
    facts = [*AROUND, written(150, committed=False), *history(BEFORE, delivered(150), AFTER)]

    assert [(Promise.TRANSACTIONS, (150,))] == broken(facts)


def test_it_is_reported_once_however_many_receive_it() -> None:
    others = history(delivered(110, client="b"), delivered(150, client="b"), delivered(190, client="b"), witness=BOB)
    facts = [*AROUND, written(150, committed=False), *history(BEFORE, delivered(150), AFTER), *others]

    assert [(Promise.TRANSACTIONS, (150,))] == broken(facts, witnesses=[ALICE, BOB])


def test_a_message_with_two_numbers_was_published_twice() -> None:
    facts = [*AROUND, written(150), *history(BEFORE, delivered(150), delivered(151, message=150), AFTER)]

    assert (Promise.TRANSACTIONS, (150, 151)) in broken(facts)


def test_other_content_than_was_published_is_found() -> None:
    facts = [*AROUND, written(150), *history(BEFORE, replace(delivered(150), content="other"), AFTER)]

    assert [(Promise.SAME_BYTES, (150,))] == broken(facts)


def test_a_commit_before_a_publish_has_the_lower_number() -> None:
    first, second = written(160, at=1.3), written(150, at=1.5)

    found = broken([*AROUND, first, second, *history(BEFORE, delivered(150), delivered(160), AFTER)])

    assert [(Promise.TRANSACTIONS, (160, 150))] == found


@pytest.mark.parametrize("late", [replace(acknowledged(150), submitted_at=1.9, at=2.0), written(150, at=2.0)])
def test_the_law_holds_between_transactions_and_other_publishers(late: Fact) -> None:
    early = (
        written(160, at=1.3) if isinstance(late, Acknowledged) else replace(acknowledged(160), submitted_at=1.2, at=1.3)
    )

    found = broken([AROUND[0], early, late, *history(BEFORE, delivered(150), delivered(160))])

    assert [(Promise.TRANSACTIONS, (160, 150))] == found


def test_messages_of_one_transaction_keep_their_order() -> None:
    first, second = (written(number, at=1.6, transaction="one") for number in (140, 150))
    swapped = [replace(first, place=2), replace(second, place=1)]

    found = broken([*AROUND, *swapped, *history(BEFORE, delivered(140), delivered(150), AFTER)])

    assert [(Promise.TRANSACTIONS, (150, 140))] == found
