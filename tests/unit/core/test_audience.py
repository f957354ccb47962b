"""Who sees what."""

import pytest

from unmissed.core.audience import EVERYONE, Audience, Identity, visible


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


def test_an_identity_has_no_scopes_and_no_end_unless_given() -> None:
    identity = Identity("alice")

    assert frozenset() == identity.scopes
    assert None is identity.expires_at
