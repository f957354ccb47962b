"""Clocks of issuers that are wrong: a few seconds do no harm, and more is refused with a reason."""

from typing import Any

import pytest
from jose import jwt

from unmissed.core.errors import InvalidToken
from unmissed.security.claims import TokenRules
from unmissed.security.tokens import JwtVerifier
from unmissed.testing import SECRET, ManualClock

NOW = 1_796_000_000.0
HOUR, DAY = 3_600.0, 86_400.0


def verdict(ahead: float, *claims: str, leeway: float = 0.0, life: float = 2 * DAY) -> str:
    """Return the user of a token whose issuer is so many seconds ahead, or why the token is refused."""
    issued = NOW + ahead
    contents: dict[str, Any] = {"sub": "alice", "exp": issued + life, **dict.fromkeys(claims, issued)}
    verifier = JwtVerifier(SECRET, rules=TokenRules(leeway=leeway), wall_clock=ManualClock(NOW))
    try:
        return verifier.verify(jwt.encode(contents, SECRET)).user_id
    except InvalidToken as error:
        return str(error)


@pytest.mark.parametrize("claims", [("iat",), ("nbf",), ("iat", "nbf")], ids=" ".join)
@pytest.mark.parametrize("ahead", [-DAY, -HOUR, -2.0, 0.0, 0.5, 2.0, 5.0])
def test_an_issuer_that_is_at_most_5_seconds_ahead_is_understood(ahead: float, claims: tuple[str, ...]) -> None:
    assert "alice" == verdict(ahead, *claims)


@pytest.mark.parametrize("claim", ["iat", "nbf"])
@pytest.mark.parametrize("ahead", [5.5, HOUR, DAY])
def test_a_token_from_further_in_the_future_is_refused_with_the_reason(ahead: float, claim: str) -> None:
    assert f"the token's {claim} is in the future: check the clocks of issuer and server" == verdict(ahead, claim)


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_leeway_of_more_seconds_counts_for_the_future_too(claim: str) -> None:
    assert "alice" == verdict(60.0, claim, leeway=60.0)
    assert "in the future" in verdict(61.0, claim, leeway=60.0)


@pytest.mark.parametrize(("behind", "accepted"), [(59.0, True), (60.0, False), (HOUR, False)])
def test_a_token_ends_exactly_at_its_expiry(behind: float, *, accepted: bool) -> None:
    """A second more would be a second of access more: only ``UNMISSED_TOKEN_LEEWAY`` gives it."""
    assert accepted is ("alice" == verdict(-behind, "iat", life=60.0))
    assert "alice" == verdict(-behind, "iat", life=60.0, leeway=HOUR)


def test_a_token_that_was_verified_stays_valid_when_the_clock_is_set_back() -> None:
    clock = ManualClock(NOW)
    verifier = JwtVerifier(SECRET, wall_clock=clock)
    token = jwt.encode({"sub": "alice", "exp": NOW + DAY, "iat": NOW, "nbf": NOW}, SECRET)
    before = verifier.verify(token)

    clock.advance(-HOUR)

    assert before is verifier.verify(token)


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp"])
@pytest.mark.parametrize("value", [True, "1796000000", [1_796_000_000], {}, -1, 2**53, 10**400])
def test_a_time_is_a_number_of_seconds(claim: str, value: object) -> None:
    contents = {"sub": "alice", "exp": NOW + DAY, claim: value}
    verifier = JwtVerifier(SECRET, wall_clock=ManualClock(NOW))

    with pytest.raises(InvalidToken):
        verifier.verify(jwt.encode(contents, SECRET))
