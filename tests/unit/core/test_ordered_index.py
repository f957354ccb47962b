"""Finding the messages of one user or topic among many others."""

from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.messages import Message
from unmissed.core.ordered import AudienceIndex, Ordered

KEYS = ["@alice", "@bob", "#news"]
AUDIENCES = st.one_of(
    st.just(EVERYONE), st.sets(st.sampled_from(KEYS), min_size=1).map(lambda keys: Audience(frozenset(keys)))
)


def message(number: int, audience: Audience) -> Message:
    return Message(number, "2026-01-31T12:00:00.000Z", b"{}", audience, 0.0)


class Indexed:
    """An index with messages, which answers with numbers."""

    def __init__(self, *audiences: Audience) -> None:
        self.messages = Ordered()
        self.index = AudienceIndex(self.messages)
        for number, audience in enumerate(audiences, start=1):
            added = message(number, audience)
            self.index.add(added)
            self.messages.append(added)

    def remove(self, removed: Message) -> None:
        self.messages.remove(removed.sequence_number)
        self.index.remove(removed)

    def after(self, position: int, keys: Iterable[str], *, everyone: bool, limit: int) -> list[int] | None:
        found = self.index.after(position, keys, everyone=everyone, limit=limit)
        return None if found is None else [each.sequence_number for each in found]

    def first_after(self, position: int, keys: Iterable[str], *, everyone: bool) -> int | None:
        found = self.index.first_after(position, keys, everyone=everyone)
        return None if found is None else found.sequence_number


def addressed(*audiences: Audience) -> Indexed:
    return Indexed(*audiences)


ALICE, BOTH = Audience(frozenset({"@alice"})), Audience(frozenset({"@alice", "#news"}))


def test_a_message_for_two_keys_is_found_once() -> None:
    index = addressed(ALICE, EVERYONE, BOTH)

    assert [1, 2, 3] == index.after(0, ["@alice", "#news"], everyone=True, limit=4)
    assert [3] == index.after(1, ["@alice", "#news"], everyone=False, limit=3)
    assert [2] == index.after(0, ["@bob"], everyone=True, limit=4)


def test_the_only_message_of_a_key_is_found_up_to_the_position_before_it() -> None:
    index = addressed(EVERYONE, EVERYONE, ALICE)

    found = [index.after(position, ["@alice"], everyone=False, limit=1) for position in (1, 2, 3)]

    assert [[3], [3], []] == found


def test_more_than_the_limit_is_not_looked_up() -> None:
    index = addressed(EVERYONE, EVERYONE, ALICE, ALICE, ALICE)

    assert None is index.after(0, ["@bob"], everyone=True, limit=1)
    assert None is index.after(0, ["@alice"], everyone=False, limit=2)
    assert None is index.after(1, ["@alice"], everyone=True, limit=3)
    assert [4, 5] == index.after(3, ["@alice"], everyone=True, limit=2)


@given(audiences=st.lists(AUDIENCES, max_size=40), keys=st.sets(st.sampled_from(KEYS)), everyone=st.booleans())
def test_the_first_is_the_lowest_of_all_that_are_found(
    audiences: list[Audience], keys: set[str], *, everyone: bool
) -> None:
    index = addressed(*audiences)

    for position in range(len(audiences) + 1):
        found = index.after(position, keys, everyone=everyone, limit=1_000)

        assert found is not None
        assert (found[0] if found else None) == index.first_after(position, keys, everyone=everyone)


def test_a_message_for_many_keys_costs_no_more_than_the_limit() -> None:
    """Without a bound for all keys together, 1,000 topics would be copied 1,000 times."""
    asked = list[str]()

    def keys() -> Iterator[str]:
        for number in range(1_000):
            asked.append(f"#{number}")
            yield asked[-1]

    for_many = Audience(frozenset(f"#{number}" for number in range(1_000)))
    index = addressed(*[for_many] * 3)

    assert None is index.after(0, keys(), everyone=False, limit=9)
    assert 4 == len(asked)


@given(audiences=st.lists(AUDIENCES, max_size=40), removed=st.sets(st.integers(0, 39)), position=st.integers(0, 40))
def test_exactly_the_messages_after_the_position_for_a_key_are_found(
    audiences: list[Audience], removed: set[int], position: int
) -> None:
    messages = [message(number, audience) for number, audience in enumerate(audiences, start=1)]
    index = addressed(*audiences)
    for place in removed & {*range(len(messages))}:
        index.remove(messages[place])

    found = index.after(position, ["@alice", "#news"], everyone=True, limit=80)

    assert found == [
        each.sequence_number
        for place, each in enumerate(messages)
        if place not in removed
        and each.sequence_number > position
        and (each.audience.keys is None or each.audience.keys & {"@alice", "#news"})
    ]
