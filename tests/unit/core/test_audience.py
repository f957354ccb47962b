"""Who sees what."""

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

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
from unmissed.core.errors import ConfigurationError, InvalidTopic, ScopeRequired

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


TIME = 1_796_000_000.5


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"user_id": 42}, r"str\(user.id\)"),
        ({"user_id": None}, "non-empty string"),
        ({"user_id": ""}, "non-empty string"),
        ({"user_id": b"alice"}, "non-empty string"),
        ({"user_id": UUID(int=42)}, "non-empty string"),
        ({"user_id": "alice\ud800"}, "not text"),
        ({"scopes": "openid read:administrators"}, r"write scopes=\["),
        ({"scopes": ["openid read:administrators"]}, r"text.split\(\)"),
        ({"scopes": {"admin": True}}, "a set or a list"),
        ({"scopes": None}, "a set or a list"),
        ({"scopes": [1]}, "must contain names"),
        ({"scopes": [""]}, "must contain names"),
        ({"scopes": [["admin"]]}, "must contain names"),
        ({"topics": "orders.42"}, r"write topics=\['orders.42'\]"),
        ({"topics": ["my room"]}, "a topic is"),
        ({"topics": [42]}, "a topic is"),
        ({"topics": ["a*b"]}, "a topic is"),
        ({"topics": None}, "a set or a list"),
        ({"expires_at": str(TIME)}, "Unix time"),
        ({"expires_at": datetime(2026, 12, 1, tzinfo=UTC)}, r"when.timestamp\(\)"),
        ({"expires_at": math.inf}, "or None"),
        ({"expires_at": math.nan}, "Unix time"),
        ({"expires_at": True}, "Unix time"),
        ({"expires_at": 10**400}, "Unix time"),
        ({"issued_at": datetime(2026, 12, 1, tzinfo=UTC)}, "issued_at is Unix time"),
        ({"issued_at": -math.inf}, "Unix time"),
    ],
    ids=str,
)
def test_an_identity_refuses_what_would_never_work_and_names_the_fix(arguments: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigurationError, match=fix):
        Identity(**{"user_id": "alice", **arguments})


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_scopes_and_topics_may_come_in_any_collection(kind: Callable[[list[str]], Any]) -> None:
    identity = Identity("alice", scopes=kind(["admin"]), topics=kind(["orders.42", "rooms.*", "*"]))

    assert identity == Identity("alice", frozenset({"admin"}), topics=frozenset({"orders.42", "rooms.*", "*"}))
    assert hash(identity) == hash(replace(identity))


@pytest.mark.parametrize("time", [None, 0, -1, 1_796_000_000, TIME])
def test_times_are_seconds_or_unknown(time: float | None) -> None:
    identity = Identity("alice", expires_at=time, issued_at=time)

    assert (time, time) == (identity.expires_at, identity.issued_at)


def test_a_scope_is_a_whole_name() -> None:
    identity = Identity("mallory", scopes=frozenset({"read:administrators"}))

    with pytest.raises(ScopeRequired):
        identity.require("admin", what="listing connections")


def test_one_string_is_no_list_of_topics() -> None:
    with pytest.raises(InvalidTopic, match=r"topics=\['news'\]"):
        keys_of("alice", "news")
