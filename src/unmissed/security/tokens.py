"""Verifies and issues JSON Web Tokens (RFC 7519)."""

import base64
import binascii
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, Self

from jose import jwt
from jose.backends.base import Key

from unmissed.core.audience import MAX_TOPICS, Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
from unmissed.security.claims import Claims, TokenRules, checked_identity
from unmissed.security.keys import keys_of
from unmissed.settings import Settings

MAX_VERIFIED_BYTES = 16 * 1024 * 1024

_ENTRY_BYTES = 256
"""Bytes of the Identity, its expiry and the dict entry."""


class VerifiedTokens:
    """The identities of verified tokens, bounded in bytes. The oldest token is evicted first."""

    def __init__(self, *, max_bytes: int = MAX_VERIFIED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._identities: dict[str, Identity] = {}

    def find(self, token: str, *, now: float) -> Identity | None:
        """Return the identity of a token that was kept and is valid now (Unix seconds), or None."""
        identity = self._identities.get(token)
        if identity is None:
            return None
        if identity.expires_at is not None and identity.expires_at <= now:
            self._forget(token)
            return None
        return identity

    def keep(self, token: str, identity: Identity) -> None:
        """Add a token, and evict the oldest ones that are over the limit."""
        # Removed first, so that it is added at the end: the first entry is always the oldest.
        self._forget(token)
        self._identities[token] = identity
        self._bytes += _size(token, identity)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._identities)))

    def _forget(self, token: str) -> None:
        identity = self._identities.pop(token, None)
        if identity is not None:
            self._bytes -= _size(token, identity)


def _size(token: str, identity: Identity) -> int:
    """Return the bytes that an entry holds. Many short scopes and topics take more memory than the token's text."""
    held = [token, identity.user_id, identity.scopes, *identity.scopes]
    if identity.topics:
        held += [identity.topics, *identity.topics]
    return _ENTRY_BYTES + sum(map(sys.getsizeof, held))


MAX_TOKEN_BYTES = 8_192

_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.(?P<signature>[\w-]+)", re.ASCII)
_PREVIOUS = "UNMISSED_JWT_PREVIOUS_SECRET"
INVALID = "the token is invalid or expired"
_OPTIONS = {
    # Compared by the rules, with the clock of the verifier.
    "verify_aud": False,
    "verify_iss": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_at_hash": False,
}


class TokenVerifier(Protocol):
    """Verifies bearer tokens, at once or in an ``async`` method."""

    def verify(self, token: str) -> Identity | Awaitable[Identity]:
        """Return the identity of a valid token. Raises InvalidToken."""
        ...


class JwtVerifier:
    """Verifies JWTs signed with exactly one algorithm, by ``key`` or one of the ``previous_keys``. Each is parsed once.

    A key is a secret, or a text with one or more public keys as PEM. Raises ConfigurationError for a key that cannot
    work.
    """

    def __init__(
        self,
        key: str,
        *,
        algorithm: str = "HS256",
        previous_keys: Sequence[str] = (),
        rules: TokenRules | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        previous = [each for text in previous_keys for each in keys_of(text, algorithm=algorithm, name=_PREVIOUS)]
        self._keys = [*keys_of(key, algorithm=algorithm), *previous]
        self._algorithm = algorithm
        self._rules = rules or TokenRules()
        self._wall_clock = wall_clock
        self._verified = VerifiedTokens()

    @classmethod
    def of(cls, settings: Settings, *, identity: Callable[[Claims], Identity] | None = None) -> Self:
        """Return a verifier with these settings. Raises ConfigurationError."""
        key, *previous = settings.keys()
        rules = TokenRules.of(settings, identity=identity)
        return cls(key, algorithm=settings.jwt_algorithm, previous_keys=previous, rules=rules)

    def verify(self, token: str) -> Identity:
        """Return the identity of a valid token. Raises InvalidToken for every other token."""
        now = self._wall_clock()
        # A token in the cache is only checked for its expiry: clients reconnect, and poll, with the same token.
        identity = self._verified.find(token, now=now - self._rules.leeway)
        if identity is None:
            # The algorithm is never that of the header: a public key must not become a secret (RFC 8725 section 2.1).
            claims = claims_of(compact(token), keys=self._keys, algorithm=self._algorithm)
            identity = self._rules.identity_of(claims, now=now)
            self._verified.keep(token, identity)
        return identity


def claims_of(token: str, *, keys: Sequence[Key], algorithm: str) -> dict[str, Any]:
    """Return the claims of a token that one of the keys has signed. Raises InvalidToken."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, keys, algorithms=[algorithm], options=_OPTIONS)  # type: ignore[arg-type]  # the stub lacks lists of keys
    except Exception:  # noqa: BLE001  # python-jose lets RecursionError, OverflowError and TypeError escape
        raise InvalidToken(INVALID) from None
    # python-jose ignores extensions that it must understand (RFC 7515 section 4.1.11).
    if "crit" in header:
        raise InvalidToken("the token has critical extensions that are not supported")
    return claims


def compact(token: str) -> str:
    """Return the token if it is the one spelling of a compact JWS (RFC 7515 section 7.1). Raises InvalidToken.

    The signature protects the text of the header and the claims, but not its own: python-jose skips characters outside
    the alphabet, and unused bits at its end.
    """
    if not token.isascii() or len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(f"a token must be ASCII text of at most {MAX_TOKEN_BYTES} bytes")
    match = _COMPACT.fullmatch(token)
    if match is None or not _is_canonical(match["signature"]):
        raise InvalidToken(INVALID)
    return token


def _is_canonical(segment: str) -> bool:
    """Return whether encoding the decoded bytes gives the same text."""
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        return False
    return segment == base64.urlsafe_b64encode(decoded).rstrip(b"=").decode()


def issue_token_under(
    settings: Settings, *, user_id: str, expires_in: float, scope: str = "", topics: Iterable[str] = ()
) -> str:
    """Return a token that a server with these settings accepts. Raises InvalidToken and ConfigurationError."""
    if settings.has_public_keys:
        raise ConfigurationError(
            "signing a token for public keys needs the private key, which the server does not have: "
            "get one from the service that issues your tokens, and set UNMISSED_TOKEN"
        )
    return issue_token(
        settings.key(),
        user_id=user_id,
        expires_in=expires_in,
        scope=scope,
        topics=topics,
        algorithm=settings.jwt_algorithm,
        audience=next(iter(settings.jwt_audience), None),
        issuer=next(iter(settings.jwt_issuer), None),
    )


def issue_token(
    key: str,
    *,
    user_id: str,
    expires_in: float,
    scope: str = "",
    topics: Iterable[str] = (),
    algorithm: str = "HS256",
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """Return a signed token for this user, valid for at least ``expires_in`` seconds from now.

    ``exp`` is rounded up to a whole second. ``iat`` is the exact time, so that a token issued right after a logout is
    distinguished from those before it.
    ``topics`` are the names that the user may follow, or prefixes with a ``*`` at their end. Raises InvalidToken for
    what no server accepts.
    """
    if not isinstance(scope, str):
        raise InvalidToken('the scope is one string: write " ".join(scopes)')
    if not math.isfinite(expires_in):
        raise InvalidToken("expires_in is a number of seconds, such as 3600")
    identity = checked_identity(user_id, scopes=scope.split(), topics=topics if isinstance(topics, str) else [*topics])
    if len(identity.topics) > MAX_TOPICS:
        raise InvalidToken(f"a token has at most {MAX_TOPICS} topics, and this one {len(identity.topics)}")
    now = time.time()
    claims = {
        "sub": user_id,
        "iat": now,
        "exp": math.ceil(now + expires_in),
        "scope": scope,
        "topics": sorted(identity.topics),
        "aud": audience,
        "iss": issuer,
    }
    return jwt.encode({name: value for name, value in claims.items() if value}, key, algorithm=algorithm)
