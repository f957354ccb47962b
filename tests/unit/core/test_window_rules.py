"""The window with rules and values, against a plain list of everything that was ever appended."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from retention_model import Fate, Model, fold, is_full
from support import FIRST, nth
from unmissed.core.audience import EVERYONE, Audience, keys_of, visible
from unmissed.core.messages import MESSAGE_OVERHEAD, Message, Value
from unmissed.core.retention import Retention, rules_from
from unmissed.core.window import Earlier, Outcome, Window

RULES = "a.*=10/80s, a.b*=11/20s, @*=10/60s"
RETENTION = Retention(max_messages=12, max_age=50.0, max_bytes=25 * (MESSAGE_OVERHEAD + 900), rules=rules_from(RULES))
AUDIENCES = [
    EVERYONE,
    Audience.of(topics=["a.1"]),
    Audience.of(topics=["a.b2"]),
    Audience.of(topics=["c", "a.1"]),
    Audience.of(topics=["a.1", "c"]),
    Audience.of(users=["alice"]),
    Audience.of(users=["alice", "bob"]),
]
CLIENTS = [
    keys_of("alice"),
    keys_of("bob", ["a.1"]),
    keys_of("carol", ["a.b2", "c"]),
    keys_of("dave", ["a.1", "a.b2", "c"]),
]
VALUES = [None, None, Value("k"), Value("k", append=True), Value("k", deleted=True), Value("l")]


def seen(window: Window, position: int, keys: frozenset[str]) -> list[Message]:
    """Return what a client reads after its position, step by step."""
    found: list[Message] = []
    while position < window.latest:
        position, messages = window.next_visible(position, keys, most=3)
        found += messages
    return found


Step = tuple[Audience, Value | None, float, int]

PAUSES = [0.0, 0.0, 1.0, 7.0]
steps = st.lists(
    st.tuples(st.sampled_from(AUDIENCES), st.sampled_from(VALUES), st.sampled_from(PAUSES), st.integers(1, 900)),
    min_size=40,
    max_size=90,
)


def published(steps: Iterable[Step]) -> list[Message]:
    """Return one message for each step, a pause after the one before."""
    now, found = 0.0, list[Message]()
    for n, (audience, value, pause, size) in enumerate(steps, start=1):
        now += pause
        found.append(Message(nth(n), "2026-01-31T12:00:00.000Z", b"x" * size, audience, now, value))
    return found


def filled(messages: Iterable[Message]) -> tuple[Window, Model]:
    """Return a window and the model of it, both with these messages."""
    window, model = Window(RETENTION, epoch="life", first_number=FIRST), Model(RETENTION)
    for each in messages:
        window.append(each)
        model.append(each)
    return window, model


@given(steps, st.integers(0, 90), st.sampled_from([0.0, 15.0]))
def test_a_window_with_rules_retains_and_loses_what_the_rules_say(
    steps: list[Step], position: int, later: float
) -> None:
    window, model = filled(published(steps))
    now = later + sum(pause for _, _, pause, _ in steps)
    window.expire(now)
    model.expire(now)

    assert model.retained() == list(window)
    assert sum(each.size_in_log for each in model.retained()) == window.size
    assert window.size == sum(shelf.bytes for shelf in window.shelves())
    assert len(window) == sum(shelf.messages for shelf in window.shelves())
    assert window.evicted_messages == [*model.fates.values()].count(Fate.EVICTED)
    assert window.replaced_messages == [*model.fates.values()].count(Fate.REPLACED)
    since = nth(min(position, len(steps)))
    for keys in CLIENTS:
        assert model.lost_through(keys) == window.lost_through(keys)
        assert model.seen_after(since, keys, Fate.RETAINED) == seen(window, since, keys)
        assert model.seen_after(since, keys, Fate.RETAINED) == [
            each for each in window.messages_after(since) if visible(each.audience, keys)
        ]
        _check_recovery(window, model, since, keys)


def _check_recovery(window: Window, model: Model, since: int, keys: frozenset[str]) -> None:
    got = {each.sequence_number for each in seen(window, since, keys)}
    evicted = [each for each in model.seen_after(since, keys, Fate.EVICTED) if each.sequence_number not in got]
    assert (Outcome.GAP if evicted else Outcome.COMPLETE) is window.locate(since, keys=keys).outcome
    _check_truth(window, model, since, keys)


def _check_truth(window: Window, model: Model, since: int, keys: frozenset[str]) -> None:
    """A client without a gap has all messages without a key, and the state of all keys."""
    if window.locate(since, keys=keys).outcome is not Outcome.COMPLETE:
        return
    everything = model.seen_after(0, keys, *Fate)
    has = [*(each for each in everything if each.sequence_number <= since), *seen(window, since, keys)]
    assert fold(everything) == fold(has)
    assert [each for each in everything if each.value is None] == [each for each in has if each.value is None]


@given(steps)
def test_the_state_is_whole_or_left_out(steps: list[Step]) -> None:
    everything = published(steps)
    window, _ = filled(everything)

    state = fold(each for each in window if each.value is not None and window.is_whole(each))

    truth = fold(everything)
    # A value whose parts were all evicted has ended: pieces after that begin another one.
    assert all(truth[identity][-len(parts) :] == parts for identity, parts in state.items())
    retained = {each.sequence_number for each in window}
    for identity, parts in truth.items():
        if retained.issuperset(parts):
            assert parts == state[identity]


@given(steps, st.integers(0, 40))
def test_a_restored_window_declares_what_may_be_lost(steps: list[Step], tail: int) -> None:
    """A node that starts again has the archive of rules and keys, and after it the tail."""
    window, model = filled(published(steps))
    again = Window(RETENTION, epoch="life", first_number=FIRST)
    through = max(window.latest - tail, nth(0))
    again.restore(earlier_of(model, through))
    for each in [*model.messages.values()]:
        if each.sequence_number > through:
            again.append(each)

    # A false gap is possible after the start of a node, a silent loss is not.
    for keys in CLIENTS:
        for since in range(nth(0), window.latest + 1):
            _check_truth(again, model, since, keys)


def earlier_of(model: Model, through: int) -> Earlier:
    """Return what an engine has in its archives: what rules and keys retain, and marks of what they do not."""
    kept = [
        each
        for each in model.retained()
        if each.sequence_number <= through and (model.rule_of(each) is not None or is_full(each))
    ]
    gone = [
        each
        for number, each in model.messages.items()
        if number <= through and each not in kept and model.fates[number] is not Fate.REPLACED
    ]
    ruled = [
        (key, each) for each in gone for key in each.audience.keys or () if model.retention.rule_of(key) is not None
    ]
    lost: dict[str, int] = {}
    for key, each in ruled:
        lost[key] = max(lost.get(key, 0), each.sequence_number)
    everyone = max((each.sequence_number for each in gone if each.audience.keys is None), default=0)
    return Earlier(through=through, messages=kept, lost=lost, everyone=everyone, others=through)
