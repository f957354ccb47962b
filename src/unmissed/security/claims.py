"""What the claims of a token must say, and the identity that they describe."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from unmissed.core.audience import MAX_TOPICS, Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
from unmissed.settings import Settings

CLOCK_SKEW_SECONDS = 5.0
"""How far the clock of a token's issuer may be ahead, if ``leeway`` is not more."""

_LATEST = 2**53

_OWN_CLAIM = "scope"

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must say besides having a valid signature, and which identity it describes.

    ``exp`` is required. Where ``audiences`` or ``issuers`` are given, one of them must be in ``aud`` or be the ``iss``.
    A token with an ``aud`` is for another service when no audience is given (RFC 7519 section 4.1.3), unless
    ``ignore_audience`` accepts it. ``leeway`` is the number of seconds that a token is accepted after it has expired,
    and, if it is more than 5, before its ``nbf`` and ``iat``.

    ``sub`` is the user id. Scopes are those of all ``scope_claims`` together, each a string of space-separated scopes
    (RFC 8693 section 4.2) or a list, and topics are the list in ``topics_claim``. A name such as ``realm_access.roles``
    is that of a claim, or a path into nested ones. ``identity`` replaces these: a function that returns the Identity of
    the claims, and may raise InvalidToken. The identity expires with its token at the latest.
    """

    audiences: Collection[str] = ()
    issuers: Collection[str] = ()
    ignore_audience: bool = False
    leeway: float = 0.0
    scope_claims: Collection[str] = (_OWN_CLAIM,)
    topics_claim: str = "topics"
    identity: Callable[[Claims], Identity] | None = None

    def __post_init__(self) -> None:
        for name in ("audiences", "issuers", "scope_claims"):
            if isinstance(value := getattr(self, name), str):
                raise ConfigurationError(f"{name} is a list: write {name}=[{value!r}]")

    @classmethod
    def of(cls, settings: Settings, *, identity: Callable[[Claims], Identity] | None = None) -> "TokenRules":
        """Return the rules of these settings."""
        return cls(
            audiences=settings.jwt_audience,
            issuers=settings.jwt_issuer,
            ignore_audience=settings.jwt_ignore_audience,
            leeway=settings.token_leeway,
            scope_claims=settings.scope_claim,
            topics_claim=settings.topics_claim,
            identity=identity,
        )

    def identity_of(self, claims: Claims, *, now: float) -> Identity:
        """Return the identity that the claims of a verified token describe at ``now`` (Unix seconds).

        Raises InvalidToken if they break a rule. The text never contains a part of the token.
        """
        self._check_audience(claims)
        if self.issuers and not _is_one_of(claims.get("iss"), self.issuers):
            raise InvalidToken("the token's iss is not an issuer that this server accepts: see UNMISSED_JWT_ISSUER")
        expires_at, issued_at = self._check_times(claims, now=now)
        if self.identity is None:
            return self._described(claims, expires_at=expires_at, issued_at=issued_at)
        identity = self.identity(claims)
        if not isinstance(identity, Identity):
            raise ConfigurationError(
                f"the identity function must return unmissed.Identity(user_id), not {type(identity).__name__}"
            )
        # The token limits what the function says: an identity without an expiry would be valid for ever.
        until = expires_at if identity.expires_at is None else min(identity.expires_at, expires_at)
        return replace(identity, expires_at=until, issued_at=identity.issued_at or issued_at)

    def _check_audience(self, claims: Claims) -> None:
        if self.audiences:
            audience = claims.get("aud")
            if not any(_is_one_of(each, self.audiences) for each in _listed(audience)):
                raise InvalidToken("the token's aud is not an audience of this server: see UNMISSED_JWT_AUDIENCE")
        elif "aud" in claims and not self.ignore_audience:
            raise InvalidToken("the token has an aud: set UNMISSED_JWT_AUDIENCE to it, or UNMISSED_JWT_IGNORE_AUDIENCE")

    def _check_times(self, claims: Claims, *, now: float) -> tuple[float, float | None]:
        """Return ``exp`` and ``iat``."""
        expires_at, issued_at = seconds_of(claims, "exp"), seconds_of(claims, "iat")
        if expires_at is None:
            raise InvalidToken("the token's exp is missing")
        # Not only after it: a token must not be accepted "on or after" its exp (RFC 7519 section 4.1.4).
        if expires_at <= now - self.leeway:
            raise InvalidToken("the token has expired, or its exp is not a valid date")
        latest = now + max(self.leeway, CLOCK_SKEW_SECONDS)
        for name, seconds in (("iat", issued_at), ("nbf", seconds_of(claims, "nbf"))):
            if seconds is not None and seconds > latest:
                raise InvalidToken(f"the token's {name} is in the future: check the clocks of issuer and server")
        return expires_at, issued_at

    def _described(self, claims: Claims, *, expires_at: float, issued_at: float | None) -> Identity:
        user_id, topics = claims.get("sub"), _found(claims, self.topics_claim, otherwise=[])
        if not _is_text(user_id) or not user_id:
            raise InvalidToken("the token's sub must be a user id, which is a non-empty string")
        scopes = {scope for name in self.scope_claims for scope in _scopes(claims, name)}
        if not isinstance(topics, list) or len(topics) > MAX_TOPICS:
            raise InvalidToken(f"the token's {self.topics_claim} must be a list of at most {MAX_TOPICS} names")
        return checked_identity(user_id, scopes=scopes, topics=topics, expires_at=expires_at, issued_at=issued_at)


def checked_identity(
    user_id: str,
    *,
    scopes: Iterable[str],
    topics: Iterable[str],
    expires_at: float | None = None,
    issued_at: float | None = None,
) -> Identity:
    """Return the identity that these claims describe. Raises InvalidToken."""
    try:
        return Identity(user_id, frozenset(scopes), expires_at, topics, issued_at)  # type: ignore[arg-type]  # Identity checks the topics
    except ConfigurationError as error:
        raise InvalidToken(f"the token's {error}") from None


def _scopes(claims: Claims, name: str) -> list[str]:
    """Return the scopes in this claim: none without it. Raises InvalidToken."""
    value = _found(claims, name, otherwise="")
    scopes = value.split() if isinstance(value, str) else value
    if not isinstance(scopes, list) or not all(map(_is_text, scopes)):
        raise InvalidToken(f"the token's {name} must be a string of space-separated scopes, or a list of them")
    # A provider lists roles and groups of all its applications, which may have spaces, and then are no scopes here.
    return scopes if name == _OWN_CLAIM else [scope for scope in scopes if [scope] == scope.split()]


def _found(claims: Claims, name: str, *, otherwise: object) -> Any:
    """Return the claim with this name, or that at this path into nested claims: names may have dots themselves."""
    if name in claims:
        return claims[name]
    head, dot, rest = name, "", ""
    while head:
        head, dot, last = head.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
        nested = claims.get(head) if dot else None
        if isinstance(nested, Mapping):
            return _found(nested, rest, otherwise=otherwise)
    return otherwise


def seconds_of(claims: Claims, name: str) -> float | None:
    """Return a time of the token in Unix seconds, or None without one. Raises InvalidToken."""
    if name not in claims:
        return None
    seconds = claims[name]
    # Comparisons are exact for integers of any size, and false for NaN. Conversions to float can fail.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _LATEST:
        raise InvalidToken(f"the token's {name} must be a number of seconds since 1970")
    return float(seconds)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_one_of(value: object, accepted: Collection[str]) -> bool:
    return isinstance(value, str) and value in accepted


def _is_text(value: object) -> TypeGuard[str]:
    """Return whether this is a string that UTF-8 can encode. JSON escapes can give lone surrogates, which it cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
