"""The cache of verified tokens."""

import sys
from dataclasses import replace

from unmissed.core.audience import Identity
from unmissed.security.tokens import MAX_VERIFIED_BYTES, VerifiedTokens

ALICE = Identity("alice", frozenset({"messages:publish"}), 100.0)
ROOM_FOR_TWO = 2 * (256 + sum(map(sys.getsizeof, ("token-1", "alice", ALICE.scopes, "messages:publish"))))


def test_a_token_that_was_kept_is_found() -> None:
    tokens = VerifiedTokens()

    tokens.keep("token-1", ALICE)

    assert ALICE is tokens.find("token-1", now=0.0)
    assert None is tokens.find("token-2", now=0.0)


def test_an_entry_expires_with_its_token() -> None:
    tokens = VerifiedTokens()

    tokens.keep("token-1", ALICE)

    assert ALICE is tokens.find("token-1", now=99.9)
    assert None is tokens.find("token-1", now=100.0)


def test_an_identity_without_an_expiry_is_kept() -> None:
    tokens = VerifiedTokens()

    tokens.keep("token-1", Identity("alice"))

    assert Identity("alice") == tokens.find("token-1", now=1e12)


def test_the_oldest_token_is_evicted_first() -> None:
    tokens = VerifiedTokens(max_bytes=ROOM_FOR_TWO)

    for token in ("token-1", "token-2", "token-3"):
        tokens.keep(token, ALICE)

    assert [None, ALICE, ALICE] == [tokens.find(f"token-{number}", now=0.0) for number in (1, 2, 3)]


def test_an_expired_token_makes_room() -> None:
    tokens = VerifiedTokens(max_bytes=ROOM_FOR_TWO)
    tokens.keep("token-1", replace(ALICE, expires_at=200.0))
    tokens.keep("token-2", ALICE)

    assert None is tokens.find("token-2", now=150.0)
    tokens.keep("token-3", replace(ALICE, expires_at=200.0))

    assert "alice" == getattr(tokens.find("token-1", now=150.0), "user_id", None)


def test_keeping_a_token_twice_counts_it_once() -> None:
    tokens = VerifiedTokens(max_bytes=ROOM_FOR_TWO)

    for token in ("token-1", "token-2", "token-2"):
        tokens.keep(token, ALICE)

    assert ALICE is tokens.find("token-1", now=0.0)


def test_many_short_scopes_count_for_the_memory_they_take() -> None:
    tokens = VerifiedTokens(max_bytes=ROOM_FOR_TWO)
    tokens.keep("token-1", ALICE)

    tokens.keep("token-2", replace(ALICE, scopes=frozenset("abcdefghij")))

    assert None is tokens.find("token-1", now=0.0)


def test_an_identity_over_the_whole_limit_is_not_kept() -> None:
    tokens = VerifiedTokens(max_bytes=ROOM_FOR_TWO)

    tokens.keep("token-1", Identity("x" * ROOM_FOR_TWO))

    assert None is tokens.find("token-1", now=0.0)


def test_the_limit_is_16_mib() -> None:
    tokens = VerifiedTokens()
    half = Identity("x" * 8 * 1024 * 1024)

    tokens.keep("token-1", ALICE)
    tokens.keep("token-2", half)
    tokens.keep("token-3", half)

    assert 16 * 1024 * 1024 == MAX_VERIFIED_BYTES
    assert [None, None, half] == [tokens.find(f"token-{number}", now=0.0) for number in (1, 2, 3)]
