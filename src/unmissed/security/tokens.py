"""Verifies and issues JSON Web Tokens. The only module that uses python-jose."""

import base64
import binascii
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self, TypeGuard

from jose import jwk, jwt
from jose.backends.base import Key
from jose.utils import base64_to_long

from unmissed.core.audience import MAX_TOPICS, Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
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
CLOCK_SKEW_SECONDS = 5.0
"""How far the clock of a token's issuer may be ahead, if ``leeway`` is not more."""

_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.(?P<signature>[\w-]+)", re.ASCII)
_LATEST = 2**53
_MIN_RSA_BITS = 2_048
_INVALID = "the token is invalid or expired"
_KEY_TYPES = {"HS": "oct", "RS": "RSA", "ES": "EC"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class TokenVerifier(Protocol):
    """Verifies bearer tokens."""

    def verify(self, token: str) -> Identity:
        """Return the identity of a valid token. Raises InvalidToken."""
        ...


class JwtVerifier:
    """Verifies JWTs (RFC 7519) signed with exactly one algorithm. The key is parsed once.

    ``exp`` and ``sub`` are required; ``aud`` and ``iss`` when they are configured. A token with an ``aud`` is for
    another service when none is configured (RFC 7519 section 4.1.3), unless ``ignore_audience`` accepts it. A ``scope``
    claim is a space-separated list (RFC 8693 section 4.2), and a ``topics`` claim a list of names, or prefixes with a
    ``*`` at their end. ``leeway`` is the number of seconds that a token is accepted after it has expired, and, if it is
    more than 5, before its ``nbf`` and ``iat``. Raises ConfigurationError for a key that cannot work.
    """

    def __init__(
        self,
        key: str,
        *,
        algorithm: str = "HS256",
        audience: str | None = None,
        issuer: str | None = None,
        ignore_audience: bool = False,
        leeway: float = 0.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = _key(key, algorithm)
        self._algorithm = algorithm
        self._audience = audience
        self._issuer = issuer
        self._any_audience = ignore_audience
        self._leeway = leeway
        self._skew = max(leeway, CLOCK_SKEW_SECONDS)
        self._wall_clock = wall_clock
        self._verified = VerifiedTokens()
        self._options = {
            "require_sub": True,
            "require_aud": audience is not None,
            "require_iss": issuer is not None,
            "verify_aud": audience is not None,
            "verify_at_hash": False,
            # Compared here, with the clock of this verifier.
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        }

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return a verifier with these settings. Raises ConfigurationError."""
        return cls(
            settings.key(),
            algorithm=settings.jwt_algorithm,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            ignore_audience=settings.jwt_ignore_audience,
            leeway=settings.token_leeway,
        )

    def verify(self, token: str) -> Identity:
        """Return the identity of a valid token. Raises InvalidToken for every other token."""
        # A token in the cache is only checked for its expiry: clients reconnect, and poll, with the same token.
        identity = self._verified.find(token, now=self._now())
        if identity is None:
            identity = self._identity(self._claims(_compact(token)))
            self._verified.keep(token, identity)
        return identity

    def _now(self) -> float:
        """Return the time at which tokens must not have expired."""
        return self._wall_clock() - self._leeway

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                self._key,
                # Never the one in the header: a public key must not become an HMAC secret (RFC 8725 section 2.1).
                algorithms=[self._algorithm],
                options=self._options,
                audience=self._audience,
                issuer=self._issuer,
            )
        except Exception:  # noqa: BLE001  # python-jose lets RecursionError, OverflowError and TypeError escape
            raise InvalidToken(_INVALID) from None
        # python-jose ignores extensions that it must understand (RFC 7515 section 4.1.11).
        if "crit" in header:
            raise InvalidToken("the token has critical extensions that are not supported")
        if "aud" in claims and self._audience is None and not self._any_audience:
            raise InvalidToken("the token has an aud: set UNMISSED_JWT_AUDIENCE to it, or UNMISSED_JWT_IGNORE_AUDIENCE")
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        user_id, scope, topics = claims["sub"], claims.get("scope", ""), claims.get("topics", [])
        if not _is_text(user_id) or not user_id:
            raise InvalidToken("the token's sub must be a user id, which is a non-empty string")
        if not _is_text(scope):
            raise InvalidToken("the token's scope must be a string of space-separated scopes")
        if not isinstance(topics, list) or len(topics) > MAX_TOPICS:
            raise InvalidToken(f"the token's topics must be a list of at most {MAX_TOPICS} names")
        expires_at, issued_at = _seconds(claims, "exp"), _seconds(claims, "iat")
        if expires_at is None:
            raise InvalidToken("the token's exp is missing")
        # Not only after it: a token must not be accepted "on or after" its exp (RFC 7519 section 4.1.4).
        if expires_at <= self._now():
            raise InvalidToken("the token has expired, or its exp is not a valid date")
        for name, seconds in (("iat", issued_at), ("nbf", _seconds(claims, "nbf"))):
            if seconds is not None and seconds > self._wall_clock() + self._skew:
                raise InvalidToken(f"the token's {name} is in the future: check the clocks of issuer and server")
        return _checked(user_id, scope=scope, topics=topics, expires_at=expires_at, issued_at=issued_at)


def _checked(
    user_id: str,
    *,
    scope: str,
    topics: Iterable[str],
    expires_at: float | None = None,
    issued_at: float | None = None,
) -> Identity:
    """Return the identity that these claims describe. Raises InvalidToken."""
    try:
        return Identity(user_id, frozenset(scope.split()), expires_at, topics, issued_at)  # type: ignore[arg-type]  # Identity checks the topics
    except ConfigurationError as error:
        raise InvalidToken(f"the token's {error}") from None


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    """Return a time of the token in Unix seconds, or None without one. Raises InvalidToken."""
    if name not in claims:
        return None
    seconds = claims[name]
    # Comparisons are exact for integers of any size, and false for NaN. Conversions to float can fail.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _LATEST:
        raise InvalidToken(f"the token's {name} must be a number of seconds since 1970")
    return float(seconds)


def _is_text(value: object) -> TypeGuard[str]:
    """Return whether this is a string that UTF-8 can encode. JSON escapes can give lone surrogates, which it cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(key: str, algorithm: str) -> Key:
    """Return the key that verifies this algorithm. Raises ConfigurationError, whose text names the fix."""
    if "PRIVATE KEY" in key:
        raise ConfigurationError(
            "UNMISSED_JWT_SECRET is a private key, and verifying needs the public one only: "
            "create it with: openssl pkey -in private.pem -pubout"
        )
    if key.count("-----BEGIN ") > 1:
        raise ConfigurationError(
            "UNMISSED_JWT_SECRET has several keys or certificates, and only the first would count: give the one whose "
            "tokens are accepted"
        )
    try:
        built = jwk.construct(key, algorithm)
        facts = built.to_dict()
        fits = _KEY_TYPES[algorithm[:2]] == facts["kty"] and facts.get("crv") == _CURVES.get(algorithm)
    except Exception as error:  # noqa: BLE001  # python-jose and cryptography raise various types
        raise ConfigurationError(f"the key does not fit {algorithm}: {error}") from None
    if not fits:
        raise ConfigurationError(f"the key does not fit {algorithm}: it is of another type")
    if facts["kty"] == "RSA" and (bits := base64_to_long(facts["n"]).bit_length()) < _MIN_RSA_BITS:
        raise ConfigurationError(
            f"UNMISSED_JWT_SECRET is an RSA key of {bits} bits and needs at least {_MIN_RSA_BITS} (RFC 7518 section "
            f"3.3): create one with: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{_MIN_RSA_BITS}"
        )
    return built


def _compact(token: str) -> str:
    """Return the token if it is the one spelling of a compact JWS (RFC 7515 section 7.1). Raises InvalidToken.

    The signature protects the text of the header and the claims, but not its own: python-jose skips characters outside
    the alphabet, and unused bits at its end.
    """
    if not token.isascii() or len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(f"a token must be ASCII text of at most {MAX_TOKEN_BYTES} bytes")
    match = _COMPACT.fullmatch(token)
    if match is None or not _is_canonical(match["signature"]):
        raise InvalidToken(_INVALID)
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
    if not settings.jwt_algorithm.startswith("HS"):
        raise ConfigurationError(
            f"signing a token with {settings.jwt_algorithm} needs the private key, which the server does not have: "
            "get one from the service that issues your tokens, and set UNMISSED_TOKEN"
        )
    return issue_token(
        settings.key(),
        user_id=user_id,
        expires_in=expires_in,
        scope=scope,
        topics=topics,
        algorithm=settings.jwt_algorithm,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
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
    identity = _checked(user_id, scope=scope, topics=topics if isinstance(topics, str) else [*topics])
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
