"""Whose messages were evicted."""

from unmissed.core.audience import Audience, keys_of
from unmissed.core.evictions import Evictions
from unmissed.core.messages import Message
from unmissed.core.retention import Retention, rules_from

ALICE, BOB = keys_of("alice", ["news"]), keys_of("bob")


def empty(*, rules: str = "", max_keys: int = 10_000) -> Evictions:
    return Evictions(100, retention=Retention(rules=rules_from(rules)), max_keys=max_keys)


def evicted(record: Evictions, number: int, **audience: list[str]) -> None:
    record.add(Message(number, "", b"", Audience.of(**audience), 0.0))


def test_what_somebody_could_not_see_is_not_lost_for_them() -> None:
    record = empty()
    evicted(record, 101)
    evicted(record, 102, users=["alice"])
    evicted(record, 103, topics=["news", "sport"])
    evicted(record, 104, users=["carol"])

    assert 103 == record.highest(ALICE)
    assert 101 == record.highest(BOB)
    assert 104 == record.highest(keys_of("carol", ["news"]))
    assert 101 == record.highest(frozenset())


def test_nothing_is_lost_before_the_first_eviction() -> None:
    assert 100 == empty().highest(ALICE)


def test_what_is_forgotten_counts_for_everybody() -> None:
    """Memory is bounded, so beyond the bound the answer may be a gap, and never silence."""
    record = empty(max_keys=2)
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
    record = empty()
    evicted(record, 101, users=["alice"])

    record.forget(110)

    assert 110 == record.highest(ALICE)
    assert 110 == record.highest(BOB)
    assert 110 == record.highest(frozenset())


def test_what_is_evicted_after_it_was_forgotten_counts_for_those_who_could_see_it() -> None:
    record = empty()
    record.forget(110)

    evicted(record, 111, users=["alice"])
    evicted(record, 112)

    assert 112 == record.highest(BOB)
    assert 110 == record.highest(BOB, everyone=False)
    assert 111 == record.highest(ALICE, everyone=False)


def test_numbers_of_a_key_may_come_in_any_order() -> None:
    """Each rule evicts its own messages: one of another rule may be older."""
    record = empty()
    evicted(record, 105, topics=["news"])
    evicted(record, 103, topics=["news", "sport"])
    evicted(record, 104)
    evicted(record, 102)

    assert 105 == record.highest(ALICE)
    assert 104 == record.highest(keys_of("bob", ["sport"]))


def test_the_lowest_number_is_forgotten_first_not_the_oldest_eviction() -> None:
    """A high number that is forgotten would count for all others."""
    record = empty(max_keys=2)
    evicted(record, 150, users=["alice"])
    evicted(record, 101, users=["bob"])
    evicted(record, 102, users=["carol"])

    assert 150 == record.highest(keys_of("alice"))
    assert 101 == record.highest(keys_of("dave"))


def test_a_key_that_was_forgotten_is_not_remembered_with_a_lower_number() -> None:
    record = empty(max_keys=1)
    evicted(record, 120, users=["alice"])
    evicted(record, 130, users=["bob"])

    evicted(record, 110, users=["alice"])

    assert 120 <= record.highest(keys_of("alice"))


def test_what_is_forgotten_of_one_rule_counts_for_its_keys_only() -> None:
    record = empty(rules="rooms.*=10/1d, @*=10/1d", max_keys=1)
    evicted(record, 101, users=["alice"])
    evicted(record, 102, topics=["rooms.1"])
    evicted(record, 103, topics=["news"])

    assert 101 == record.highest(keys_of("bob"))
    assert 102 == record.highest(frozenset({"#rooms.2"}))
    assert 103 == record.highest(frozenset({"#news"}))
    assert 100 == record.highest(frozenset({"#sport"}))


def test_what_may_be_lost_without_a_rule_is_not_lost_with_one() -> None:
    record = empty(rules="rooms.*=10/1d")
    record.mark_others(110)
    record.mark("#rooms.1", 105)
    record.mark_everyone(103)

    assert 110 == record.highest(frozenset({"@alice", "#rooms.1"}))
    assert 105 == record.highest(frozenset({"#rooms.1"}), everyone=False)
    assert 103 == record.highest(frozenset({"#rooms.2"}))


def test_forgetting_one_of_many_keys_whose_numbers_rise_takes_few_steps() -> None:
    """All entries of the order are outdated: one that is nearly the lowest is forgotten instead of the lowest."""
    record = empty(max_keys=1_000)
    for number in range(1_000):
        evicted(record, 1_000 + number, users=[f"u{number}"])
    for number in range(1_000):
        evicted(record, 3_000 + number, users=[f"u{number}"])

    evicted(record, 5_000, users=["alice"])

    assert 5_000 == record.highest(keys_of("alice"))
    forgotten = record.highest(keys_of("bob"))
    assert 3_000 <= forgotten < 3_100
    assert 3_999 == record.highest(keys_of("u999"))
