"""Who sees what."""

import tracemalloc

import pytest

from unmissed.core.audience import (
    AUDIENCE_OVERHEAD,
    EVERYONE,
    KEY_OVERHEAD,
    Audience,
    Identity,
    keys_of,
    topic_key,
    user_key,
    visible,
)

NOBODY = frozenset[str]()


@pytest.mark.parametrize("keys", [keys_of("alice"), keys_of(""), keys_of("alice", ["news"]), NOBODY])
def test_everyone_sees_what_is_for_everyone(keys: frozenset[str]) -> None:
    assert visible(EVERYONE, keys)


@pytest.mark.parametrize(
    ("user_id", "topics", "expected"),
    [
        ("alice", [], True),
        ("bob", [], True),
        ("carol", [], False),
        ("Alice", [], False),
        ("", [], False),
        ("carol", ["news"], True),
        ("carol", ["sport", "news"], True),
        ("carol", ["sport"], False),
        ("carol", ["News"], False),
        ("news", [], False),
        ("carol", ["alice"], False),
    ],
)
def test_an_audience_is_the_union_of_its_users_and_the_followers_of_its_topics(
    user_id: str, topics: list[str], *, expected: bool
) -> None:
    audience = Audience.of(users=["alice", "bob"], topics=["news"])

    assert expected is visible(audience, keys_of(user_id, topics))
    assert not visible(audience, NOBODY)


def test_users_and_topics_of_one_name_are_different() -> None:
    assert user_key("news") != topic_key("news")
    assert not visible(Audience.of(users=["news"]), keys_of("alice", ["news"]))
    assert not visible(Audience.of(topics=["alice"]), keys_of("alice"))


@pytest.mark.parametrize("nobody", [Audience.of(users=[]), Audience.of(topics=[]), Audience.of(users=[], topics=[])])
def test_an_audience_of_nobody_is_seen_by_nobody(nobody: Audience) -> None:
    """An empty list must never come to mean everyone."""
    assert not visible(nobody, keys_of("alice", ["news"]))
    assert not visible(nobody, NOBODY)


def test_no_users_and_no_topics_at_all_is_everyone() -> None:
    assert EVERYONE is Audience.of()


def test_everyone_takes_no_bytes() -> None:
    assert (0, 0) == (EVERYONE.size, EVERYONE.size_in_log)


def test_each_key_takes_its_utf8_and_an_overhead_once() -> None:
    audience = Audience.of(users=["bob", "zoë", "bob"], topics=["news"])

    size = len("@bob@zoë#news".encode())
    assert (size, AUDIENCE_OVERHEAD + 3 * KEY_OVERHEAD + size) == (audience.size, audience.size_in_log)


@pytest.mark.parametrize("count", [1, 5, 19, 77, 307, 1_000])
def test_keys_take_no_more_memory_than_counted(count: int) -> None:
    """The counts are those at which a set has just grown."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    audiences = [Audience.of(users=[f"{copy:04}-{number:04}" for number in range(count)]) for copy in range(20)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before <= sum(audience.size_in_log for audience in audiences)


def test_an_id_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="a lone surrogate is not Unicode text"):
        Audience.of(users=["\ud800"])


def test_an_identity_has_no_scopes_no_topics_and_no_end_unless_given() -> None:
    identity = Identity("alice")

    assert (frozenset(), frozenset(), None) == (identity.scopes, identity.topics, identity.expires_at)
