"""Who sees what."""

import tracemalloc

import pytest

from unmissed.core.audience import AUDIENCE_OVERHEAD, EVERYONE, USER_OVERHEAD, Audience, Identity, visible


@pytest.mark.parametrize("user_id", ["alice", "", None])
def test_everyone_sees_what_is_for_everyone(user_id: str | None) -> None:
    assert visible(EVERYONE, user_id)


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [("alice", True), ("bob", True), ("carol", False), ("Alice", False), ("", False), (None, False)],
)
def test_only_the_addressed_see_what_is_for_some(user_id: str | None, expected: object) -> None:
    assert expected is visible(Audience.of(["alice", "bob"]), user_id)


def test_an_audience_of_nobody_is_seen_by_nobody() -> None:
    """An empty list must never come to mean everyone."""
    assert not visible(Audience.of([]), "alice")
    assert not visible(Audience.of([]), None)


def test_no_users_at_all_is_everyone() -> None:
    assert EVERYONE is Audience.of(None)


def test_everyone_takes_no_bytes() -> None:
    assert 0 == EVERYONE.size


def test_each_user_takes_its_utf8_and_an_overhead_once() -> None:
    assert AUDIENCE_OVERHEAD + 2 * USER_OVERHEAD + len("bobzoë".encode()) == Audience.of(["bob", "zoë", "bob"]).size


@pytest.mark.parametrize("count", [1, 5, 19, 77, 307, 1_000])
def test_users_take_no_more_memory_than_counted(count: int) -> None:
    """The counts are those at which a set has just grown."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    audiences = [Audience.of([f"{copy:04}-{number:04}" for number in range(count)]) for copy in range(20)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before <= sum(audience.size for audience in audiences)


def test_an_id_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="a lone surrogate is not Unicode text"):
        Audience.of(["\ud800"])


def test_an_identity_has_no_scopes_and_no_end_unless_given() -> None:
    identity = Identity("alice")

    assert frozenset() == identity.scopes
    assert None is identity.expires_at
