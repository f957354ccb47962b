"""Users and tokens that were logged out."""

import pytest

from unmissed.core import revocations
from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidToken
from unmissed.core.revocations import Revocations


def accepted(revoked: Revocations, user_id: str, issued_at: float | None) -> bool:
    try:
        revoked.check(Identity(user_id, issued_at=issued_at))
    except InvalidToken:
        return False
    return True


def test_the_tokens_of_a_user_that_were_issued_before_are_refused() -> None:
    revoked = Revocations()

    revoked.revoke_user("alice", now=100.5)

    assert [False, False, False, True] == [accepted(revoked, "alice", at) for at in (None, 100.0, 100.5, 100.6)]
    assert accepted(revoked, "bob", 100.0)


def test_only_the_token_of_one_connection_is_refused() -> None:
    revoked = Revocations()

    revoked.revoke_token("alice", 100.0)

    assert [True, False, True] == [accepted(revoked, "alice", at) for at in (99.0, 100.0, 101.0)]
    assert accepted(revoked, "bob", 100.0)


def test_the_number_that_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    revoked = Revocations()
    for user_id in "abc":
        revoked.revoke_user(user_id, now=1.0)
        revoked.revoke_token(f"token {user_id}", 1.0)

    assert [True, False, False] == [accepted(revoked, user_id, 1.0) for user_id in "abc"]
    assert [True, False, False] == [accepted(revoked, f"token {user_id}", 1.0) for user_id in "abc"]


def test_a_later_revocation_of_a_user_keeps_the_latest_time() -> None:
    """The nodes of a log tell each other about revocations in any order, and their clocks may differ."""
    revoked = Revocations()

    revoked.revoke_user("alice", now=100.0)
    revoked.revoke_user("alice", now=90.0)
    revoked.revoke_user("bob", now=90.0)
    revoked.revoke_user("bob", now=100.0)

    assert [("alice", 100.0), ("bob", 100.0)] == revoked.users


def test_a_user_who_is_revoked_again_is_not_the_next_to_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MAX_REVOKED", 2)
    revoked = Revocations()

    for user_id in ("alice", "bob", "alice", "carol"):
        revoked.revoke_user(user_id, now=1.0)

    assert ["alice", "carol"] == [user_id for user_id, _ in revoked.users]


def test_what_was_revoked_is_listed_for_other_nodes() -> None:
    revoked = Revocations()

    revoked.revoke_user("alice", now=100.0)
    revoked.revoke_token("bob", 50.0)
    revoked.revoke_token("bob", None)
    revoked.revoke_token("bob", 50.0)

    assert [("alice", 100.0)] == revoked.users
    assert [("bob", 50.0), ("bob", None)] == revoked.tokens


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity("alice", issued_at=100.0), True),
        (Identity("alice", issued_at=100.5), False),
        (Identity("alice"), True),
        (Identity("bob", issued_at=50.0), True),
        (Identity("bob", issued_at=49.0), False),
        (Identity("bob"), False),
        (Identity("carol"), True),
        (Identity("carol", issued_at=1.0), False),
    ],
)
def test_a_token_is_refused_if_its_user_or_the_token_itself_was_revoked(identity: Identity, *, expected: bool) -> None:
    revoked = Revocations()
    revoked.revoke_user("alice", now=100.0)
    revoked.revoke_token("bob", 50.0)
    revoked.revoke_token("carol", None)

    assert expected is revoked.refuses(identity)
