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
