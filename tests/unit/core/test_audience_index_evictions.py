"""Whose messages were evicted."""

from unmissed.core.audience import Audience, keys_of
from unmissed.core.audience_index import Evictions
from unmissed.core.messages import Message

ALICE, BOB = keys_of("alice", ["news"]), keys_of("bob")


def evicted(record: Evictions, number: int, **audience: list[str]) -> None:
    record.add(Message(number, "", b"", Audience.of(**audience), 0.0))


def test_what_somebody_could_not_see_is_not_lost_for_them() -> None:
    record = Evictions(100)
    evicted(record, 101)
    evicted(record, 102, users=["alice"])
    evicted(record, 103, topics=["news", "sport"])
    evicted(record, 104, users=["carol"])

    assert 103 == record.highest(ALICE)
    assert 101 == record.highest(BOB)
    assert 104 == record.highest(keys_of("carol", ["news"]))
    assert 101 == record.highest(frozenset())


def test_nothing_is_lost_before_the_first_eviction() -> None:
    assert 100 == Evictions(100).highest(ALICE)


def test_what_is_forgotten_counts_for_everybody() -> None:
    """Memory is bounded, so beyond the bound the answer may be a gap, and never silence."""
    record = Evictions(100, max_keys=2)
    evicted(record, 101, users=["alice"])
    evicted(record, 102, users=["bob"])
    evicted(record, 103, users=["alice"])
    assert 100 == record.highest(keys_of("carol"))

    evicted(record, 104, users=["dave"])

    assert 102 == record.highest(keys_of("carol"))
    assert 102 == record.highest(BOB)
    assert 103 == record.highest(ALICE)
    assert 104 == record.highest(keys_of("dave"))


def test_what_a_log_forgets_is_lost_for_everybody() -> None:
    record = Evictions(100)
    evicted(record, 101, users=["alice"])

    record.forget(110)

    assert 110 == record.highest(ALICE)
    assert 110 == record.highest(BOB)
    assert 110 == record.highest(frozenset(), everyone=False)


def test_what_is_evicted_after_it_was_forgotten_counts_for_those_who_could_see_it() -> None:
    record = Evictions(100)
    record.forget(110)

    evicted(record, 111, users=["alice"])
    evicted(record, 112)

    assert 112 == record.highest(BOB)
    assert 110 == record.highest(BOB, everyone=False)
    assert 111 == record.highest(ALICE, everyone=False)
