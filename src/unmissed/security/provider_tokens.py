"""Verifies the tokens of an identity provider, whose keys are loaded, and may change."""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

from jose import jwt

from unmissed.core.audience import Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
from unmissed.security.claims import Claims, TokenRules
from unmissed.security.jwks import Jwks
from unmissed.security.keys import PUBLIC_KEY_ALGORITHMS, UNSUPPORTED_ALGORITHMS, ProviderKey
from unmissed.security.tokens import INVALID, JwtVerifier, VerifiedTokens, claims_of, compact
from unmissed.settings import Settings

_MAX_KEY_ID = 256


class JwksVerifier:
    """Verifies JWTs with the public keys of an identity provider, which it loads from its JWK Set (RFC 7517).

    ``source`` is the URL of the set, or the path of a file with it. Each key verifies the algorithms that are its own,
    among ``algorithms``, and none of them is for a shared secret. Keys are found by the ``kid`` of the token; its other
    headers, such as ``jku``, are ignored. Raises ConfigurationError.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        algorithms: Collection[str] = PUBLIC_KEY_ALGORITHMS,
        rules: TokenRules | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._jwks = Jwks.at(source, algorithms=algorithms, removed=self._forget)
        self._rules = rules or TokenRules()
        self._wall_clock = wall_clock
        self._verified = VerifiedTokens()

    @classmethod
    def of(cls, settings: Settings, *, identity: Callable[[Claims], Identity] | None = None) -> Self:
        """Return a verifier with these settings. Raises ConfigurationError."""
        source, chosen = settings.jwks_source(), settings.jwt_algorithm
        if source is None:
            raise ConfigurationError("UNMISSED_JWKS_URL is not set, nor is UNMISSED_JWKS_FILE")
        return cls(
            source,
            # The default algorithm is one of a secret, which no key of a provider is for.
            algorithms=PUBLIC_KEY_ALGORITHMS if chosen.startswith("HS") else (chosen,),
            rules=TokenRules.of(settings, identity=identity),
        )

    @property
    def problem(self) -> str | None:
        """Why no token can be verified, as a public text, or None."""
        return self._jwks.problem

    def verify(self, token: str) -> Identity | Awaitable[Identity]:
        """Return the identity of a valid token, at once if the key is known, or else after the keys were loaded again.

        Raises InvalidToken for every other token, and ProviderUnavailable while the provider is needed and away.
        """
        self._jwks.refresh_if_old()
        now = self._wall_clock()
        identity = self._verified.find(token, now=now - self._rules.leeway)
        if identity is not None:
            return identity
        key_id, algorithm = _header_of(compact(token))
        keys = self._jwks.find(key_id)
        if keys is None:
            return self._verify_later(token, key_id=key_id, algorithm=algorithm)
        return self._verify(token, keys=keys, algorithm=algorithm)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return a context that loads the keys at its start, and keeps them fresh until its end."""
        return self._jwks.kept_fresh()

    async def load(self) -> str:
        """Load the keys now, and return a line about them. Raises ConfigurationError."""
        return await self._jwks.load()

    async def _verify_later(self, token: str, *, key_id: str | None, algorithm: str) -> Identity:
        return self._verify(token, keys=await self._jwks.look_up(key_id), algorithm=algorithm)

    def _verify(self, token: str, *, keys: Sequence[ProviderKey], algorithm: str) -> Identity:
        # A key has only the algorithms that it is for, whatever the header says.
        fitting = [each.by_algorithm[algorithm] for each in keys if algorithm in each.by_algorithm]
        if not fitting:
            raise InvalidToken("the token is signed with an algorithm that its key is not for")
        now = self._wall_clock()
        identity = self._rules.identity_of(claims_of(token, keys=fitting, algorithm=algorithm), now=now)
        self._verified.keep(token, identity)
        return identity

    def _forget(self) -> None:
        """Verify every token again: a key that the provider has removed verifies none."""
        self._verified = VerifiedTokens()


def verifier_of(
    settings: Settings, *, identity: Callable[[Claims], Identity] | None = None
) -> JwtVerifier | JwksVerifier:
    """Return the verifier that these settings configure. Raises ConfigurationError."""
    if settings.jwks_source() is None:
        return JwtVerifier.of(settings, identity=identity)
    return JwksVerifier.of(settings, identity=identity)


def _header_of(token: str) -> tuple[str | None, str]:
    """Return ``kid`` and ``alg`` of a token that is not verified yet. Raises InvalidToken."""
    try:
        header = jwt.get_unverified_header(token)
    except Exception:  # noqa: BLE001  # as above
        raise InvalidToken(INVALID) from None
    key_id, algorithm = header.get("kid"), header.get("alg")
    if isinstance(algorithm, str) and algorithm in UNSUPPORTED_ALGORITHMS:
        raise InvalidToken(
            f"the token is signed with {algorithm}, which python-jose does not have: let the provider use one of "
            + ", ".join(PUBLIC_KEY_ALGORITHMS)
        )
    if algorithm not in PUBLIC_KEY_ALGORITHMS or not isinstance(key_id, str | None) or len(key_id or "") > _MAX_KEY_ID:
        raise InvalidToken(INVALID)
    return key_id, algorithm
