"""The checker on rules, values by key and ephemeral messages: what is clean, and every planted violation."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from unmissed.core.messages import Value
from unmissed.core.retention import Retention, rules_from
from unmissed.lab.verify.facts import (
    Acknowledged,
    Addressees,
    Delivered,
    DeliveredLive,
    Ended,
    Fact,
    GapDeclared,
    Joined,
    SentLive,
    StateComplete,
    StateValue,
    Witness,
)
from unmissed.lab.verify.judge import check
from unmissed.lab.verify.promises import Promise, Rules

RETENTION = Retention(max_messages=10, max_age=100.0, rules=rules_from("rooms.*=10/1h"))
RULES = Rules(RETENTION, max_messages=10, epoch_may_change=False)
LOSSY = replace(RULES, epoch_may_change=True, restarts=True)
ALICE = Witness("a", "alice", frozenset({"rooms.1", "news"}))
ROOM, NEWS, BOB = (
    Addressees(topics=frozenset({"rooms.1"})),
    Addressees(topics=frozenset({"news"})),
    Addressees(frozenset({"bob"})),
)
CART, PIECE, END = Value("cart"), Value("cart", append=True), Value("cart", deleted=True)


def published(
    number: int, addressees: Addressees = NEWS, value: Value | None = None, *, node: str = "n"
) -> Acknowledged:
    """Acknowledge the message of a second, which is its number."""
    return Acknowledged(number, number - 0.1, f"m{number}", "e", number, f"content {number}", addressees, value, node)


def received(*numbers: int, at: float = 50.0) -> list[Delivered]:
    return [Delivered(at, "a", "e", each, f"bytes {each}", f"m{each}", f"content {each}") for each in numbers]


def joined(position: int, *, since: int | None = None, lost: tuple[int, int] | None = None, at: float = 40.0) -> Joined:
    outcome = None if since is None else "complete" if lost is None else "gap"
    return Joined(at, "a", "e", since, position, outcome, 1, 40, lost)


def ended(number: int) -> Ended:
    return Ended(60.0, "a", "e", number)


def state(number: int, *values: int, at: float = 41.0) -> list[Fact]:
    """Receive a state, as right after ``connected``."""
    found = [StateValue(at, "a", "e", each, f"bytes {each}", f"m{each}", f"content {each}") for each in values]
    return [*found, StateComplete(at, "a", "e", number)]


def sent(name: str = "x", addressees: Addressees = NEWS, *, at: float = 45.0) -> SentLive:
    return SentLive(at, at - 0.1, name, f"content {name}", addressees, "n")


def live(name: str = "x", *, at: float = 45.1, begun_at: float = 40.0) -> DeliveredLive:
    return DeliveredLive(at, "a", "e", name, f"content {name}", begun_at)


def broken(facts: Sequence[Fact], *, rules: Rules = RULES) -> list[tuple[Promise, tuple[int, ...]]]:
    return [(each.promise, each.numbers) for each in check(facts, witnesses=[ALICE], rules=rules)]


OTHERS = [published(number) for number in range(3, 33)]
LAST = range(23, 33)
"""What the limits for messages without a rule retain of them."""

CLEAN: dict[str, list[Fact]] = {
    "a replaced message does not come": [
        published(1, value=CART),
        published(2, value=CART),
        joined(0),
        *received(2),
        ended(2),
    ],
    "a tombstone replaces a value and its pieces": [
        published(1, value=CART),
        published(2, value=PIECE),
        published(3, value=END),
        joined(0),
        *received(3),
        ended(3),
    ],
    "what a rule retains comes after a gap": [
        published(1, ROOM),
        published(2, value=CART),
        *OTHERS,
        joined(0),
        joined(0, since=0, lost=(1, 22)),
        *received(1, 2, *LAST),
        ended(32),
    ],
    "a state has the values at its number": [
        published(1, value=CART),
        published(2, ROOM, CART),
        published(3, ROOM, PIECE),
        published(4, BOB, CART),
        published(5, NEWS, END),
        published(6, NEWS),
        joined(6),
        *state(6, 2, 3),
        ended(6),
    ],
    "a value that was replaced while the state was read follows": [
        published(1, value=CART),
        published(2),
        joined(2, at=2.5),
        *state(2, at=3.5),
        published(3, value=CART),
        *received(3),
        ended(3),
    ],
    "ephemeral messages come after what was published before": [
        published(1),
        joined(0),
        *received(1),
        sent(),
        live(),
        published(46),
        *received(46),
        ended(46),
    ],
}


@pytest.mark.parametrize("history", CLEAN.values(), ids=CLEAN)
def test_a_clean_history_has_no_violation(history: list[Fact]) -> None:
    assert [] == broken(history)


GAP = joined(0, since=0, lost=(1, 22))
BROKEN: dict[str, tuple[list[Fact], Promise, tuple[int, ...]]] = {
    "a piece replaces nothing": (
        [published(1, value=CART), published(2, value=PIECE), joined(0), *received(2), ended(2)],
        Promise.NO_SILENT_LOSS,
        (1,),
    ),
    "the same key of others replaces nothing": (
        [published(1, value=CART), published(2, ROOM, CART), joined(0), *received(2), ended(2)],
        Promise.NO_SILENT_LOSS,
        (1,),
    ),
    "a message that was replaced after the client had passed it": (
        [
            published(1, value=CART),
            published(2),
            joined(0, at=2.1),
            *received(2, at=2.5),
            published(9, value=CART),
            *received(9),
            ended(9),
        ],
        Promise.NO_SILENT_LOSS,
        (1,),
    ),
    "what a rule retains does not come after a gap": (
        [published(1, ROOM), published(2), *OTHERS, joined(0), GAP, *received(*LAST), ended(32)],
        Promise.RULES,
        (1,),
    ),
    "a value that was not replaced does not come after a gap": (
        [published(1, value=CART), published(2), *OTHERS, joined(0), GAP, *received(*LAST), ended(32)],
        Promise.RULES,
        (1,),
    ),
    "a gap ends at what a rule retains": (
        [
            published(1),
            published(2, ROOM),
            *OTHERS,
            joined(0),
            joined(0, since=0, lost=(1, 2)),
            GapDeclared(41.0, "a", "e", 1, 22, 0),
            *received(2, *LAST),
            ended(32),
        ],
        Promise.NO_FALSE_GAP,
        (2,),
    ),
    "a gap is declared twice on a connection": (
        [
            published(1),
            published(2),
            *OTHERS,
            joined(0),
            GAP,
            GapDeclared(41.0, "a", "e", 1, 22, 0),
            *received(*LAST),
            ended(32),
        ],
        Promise.NO_FALSE_GAP,
        (22,),
    ),
    "a gap moves the position": (
        [
            published(1),
            published(2),
            *OTHERS,
            joined(0),
            GapDeclared(41.0, "a", "e", 1, 22, 22),
            *received(*LAST),
            ended(32),
        ],
        Promise.NO_FALSE_GAP,
        (),
    ),
    "a state misses a value": (
        [published(1, value=CART), published(2), joined(2), *state(2), ended(2)],
        Promise.STATE,
        (1,),
    ),
    "a state has a value that was replaced": (
        [published(1, value=CART), published(2, value=CART), joined(2), *state(2, 1, 2), ended(2)],
        Promise.STATE,
        (1,),
    ),
    "a state has a value that was deleted": (
        [published(1, value=CART), published(2, value=END), joined(2), *state(2, 1), ended(2)],
        Promise.STATE,
        (1,),
    ),
    "a state has a part of a value": (
        [published(1, value=CART), published(2, value=PIECE), joined(2), *state(2, 1), ended(2)],
        Promise.STATE,
        (1,),
    ),
    "a state is cut at another number": (
        [published(1, value=CART), published(2), joined(2), *state(1, 1), ended(2)],
        Promise.STATE,
        (),
    ),
    "a state shows what is for others": (
        [published(1, BOB, CART), joined(1), *state(1, 1), ended(1)],
        Promise.PRIVACY,
        (1,),
    ),
    "an ephemeral message comes twice": (
        [published(1), joined(0), *received(1), sent(), live(), live(), ended(1)],
        Promise.EPHEMERAL,
        (),
    ),
    "an ephemeral message comes again after a resume": (
        [
            published(1),
            joined(0),
            *received(1),
            sent(),
            live(),
            joined(1, since=1),
            live(at=48.0, begun_at=47.0),
            ended(1),
        ],
        Promise.EPHEMERAL,
        (),
    ),
    "an ephemeral message is recovered": (
        [published(1), joined(0), *received(1), sent(at=20.0), live(), ended(1)],
        Promise.EPHEMERAL,
        (),
    ),
    "an ephemeral message has a number": (
        [published(1), joined(0), *received(1), sent("m2"), *received(2), ended(2)],
        Promise.EPHEMERAL,
        (2,),
    ),
    "an ephemeral message comes before what was published earlier": (
        [published(1), joined(0), sent(), live(), *received(1), ended(1)],
        Promise.EPHEMERAL,
        (1,),
    ),
    "an ephemeral message is for others": (
        [published(1), joined(0), *received(1), sent(addressees=BOB), live(), ended(1)],
        Promise.PRIVACY,
        (),
    ),
    "an ephemeral message has another content": (
        [published(1), joined(0), *received(1), sent(), replace(live(), content="others"), ended(1)],
        Promise.SAME_BYTES,
        (),
    ),
}


@pytest.mark.parametrize(("history", "promise", "numbers"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_found(history: list[Fact], promise: Promise, numbers: tuple[int, ...]) -> None:
    assert (promise, numbers) in broken(history)


def test_a_message_is_lost_if_its_rule_has_no_room_for_it() -> None:
    """Eleven messages in a room of ten: the first is lost, and the second must come."""
    room = [published(number, ROOM) for number in range(1, 12)]
    gap = joined(0, since=0, lost=(1, 1))

    assert [] == broken([*room, joined(0), gap, *received(*range(2, 12)), ended(11)])
    assert [(Promise.RULES, (2,))] == broken(
        [*room, joined(0), joined(0, since=0, lost=(1, 2)), *received(*range(3, 12)), ended(11)]
    )[1:]


def test_messages_of_one_node_alone_have_an_order_with_its_ephemeral_messages() -> None:
    """A node that has not reached a message of another one cannot know that it was published before."""
    history: list[Fact] = [published(1, node="other"), joined(0), sent(), live(), *received(1), ended(1)]

    assert [] == broken(history)


# A node is killed before it answers: the publishers repeat their requests, and get numbers of the next epoch.


def again(number: int, addressees: Addressees = NEWS, value: Value | None = None) -> Acknowledged:
    """Acknowledge in the epoch "f", at second 45, the message that was submitted as this number of the epoch "e"."""
    return replace(published(number, addressees, value), at=45.0, epoch="f", number=1000 + number)


def found(facts: Sequence[Fact]) -> list[tuple[Promise, tuple[int, ...]]]:
    """Return what another client's deliveries, which are complete, and these facts break."""
    return [(each.promise, each.numbers) for each in check(facts, witnesses=[ALICE], rules=LOSSY)]


def seen_by_another(*numbers: int) -> list[Fact]:
    return [replace(each, client="b") for each in received(*numbers)]


def test_a_value_was_replaced_whose_publisher_got_no_answer() -> None:
    unseen: list[Fact] = [again(1, value=CART), again(2, value=CART), published(3)]
    history: list[Fact] = [*unseen, *seen_by_another(1), joined(0), *received(3), ended(3)]

    assert [] == found(history)
    # Nothing replaces it, and then it is lost.
    assert [(Promise.NO_SILENT_LOSS, (1,))] == found([each for each in history if each != unseen[1]])


@pytest.mark.parametrize("seen", [range(2, 12), range(0)], ids=["by another client", "by nobody"])
def test_messages_without_an_answer_count_for_their_rule(seen: Sequence[int]) -> None:
    """Eleven messages in a room of ten, of which only the first was answered: it may be lost."""
    history: list[Fact] = [
        published(1, ROOM),
        *(again(number, ROOM) for number in range(2, 12)),
        *seen_by_another(*seen),
        joined(0),
        joined(0, since=0, lost=(1, 1)),
        *received(*seen),
        ended(11),
    ]

    assert [] == found(history)
    # With ten of them there is room for the first one.
    assert (Promise.RULES, (1,)) in found([each for each in history if getattr(each, "message_id", "") != "m11"])


def test_messages_without_an_answer_count_for_the_newest_of_all() -> None:
    history: list[Fact] = [
        published(1),
        *(again(number) for number in range(2, 12)),
        joined(0),
        GapDeclared(41.0, "a", "e", 1, 1, 0),
        ended(11),
    ]

    assert [] == found([replace(each, latest=1) if isinstance(each, Joined) else each for each in history])


def test_a_state_may_lack_a_value_with_a_piece_that_nobody_saw() -> None:
    history: list[Fact] = [
        published(1, value=CART),
        again(2, value=PIECE),
        published(3),
        joined(3),
        *state(3),
        ended(3),
    ]

    assert [] == found(history)
    assert [(Promise.STATE, (1,))] == found([each for each in history if each != history[1]])


def test_a_state_may_lack_a_piece_of_a_value_from_before_the_run() -> None:
    piece: list[Fact] = [published(35, value=PIECE), published(36), joined(36), *state(36), ended(36)]
    full: list[Fact] = [published(35, value=CART), *piece[1:]]
    rules = replace(RULES, has_past=True)

    promises = [[each.promise for each in check(facts, witnesses=[ALICE], rules=rules)] for facts in (piece, full)]

    assert [[], [Promise.STATE]] == promises
    # Without a past, the piece is the whole value.
    assert [(Promise.STATE, (35,))] == broken(piece)


def test_a_client_may_meet_an_ephemeral_message_again_at_another_node() -> None:
    once: list[Fact] = [published(1), joined(0), *received(1), sent(), live(), joined(1, since=1)]
    rules = replace(RULES, several_nodes=True)

    assert [] == broken([*once, live(at=46.0, begun_at=45.5), ended(1)], rules=rules)
    # Not on one connection, and not later than the note arrives.
    again = live(at=46.0, begun_at=45.5)
    assert [(Promise.EPHEMERAL, ())] == broken([*once, again, again, ended(1)], rules=rules)
    assert [(Promise.EPHEMERAL, ())] == broken([*once, live(at=57.0, begun_at=56.0), ended(1)], rules=rules)
