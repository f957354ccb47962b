"""Tokens of an identity provider: honest ones, and forged ones."""

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable
from http import HTTPStatus
from inspect import isawaitable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from identity_provider import IdentityProvider, jwk_of, private_key, public_pem_of, token_by
from unit.security.test_tokens import IN_AN_HOUR, signed
from unmissed.core.audience import Identity
from unmissed.core.errors import ConfigurationError, InvalidToken, ProviderUnavailable
from unmissed.security.claims import TokenRules
from unmissed.security.jwks_sources import MAX_SET_BYTES
from unmissed.security.keys import PUBLIC_KEY_ALGORITHMS
from unmissed.security.provider_tokens import JwksVerifier, verifier_of
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings
from unmissed.testing import SECRET, ManualClock


@pytest.fixture
def provider() -> Any:
    with IdentityProvider() as running:
        yield running


async def verified(verifier: JwksVerifier, token: str) -> Identity:
    found = verifier.verify(token)
    return await found if isawaitable(found) else found


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
async def test_a_token_of_the_provider_is_accepted(provider: IdentityProvider, algorithm: str) -> None:
    provider.publish(jwk_of("other", algorithm), jwk_of("key", algorithm), jwk_of("encrypting", use="enc"))

    assert "alice" == (await verified(JwksVerifier(provider.url), token_by("key", algorithm))).user_id


async def test_a_known_key_verifies_at_once_and_without_the_provider(provider: IdentityProvider) -> None:
    verifier = JwksVerifier(provider.url)
    async with verifier.running():
        provider.stop()

        identities = [verifier.verify(token_by("first", sub=str(number))) for number in range(3)]
        provider.start()

    assert ["0", "1", "2"] == [each.user_id for each in identities if isinstance(each, Identity)]
    assert 1 == provider.asked


async def test_a_rotated_key_is_found(provider: IdentityProvider) -> None:
    verifier = JwksVerifier(provider.url)
    async with verifier.running():
        provider.publish(jwk_of("second"), jwk_of("first"))

        for name in ("second", "first"):
            assert "alice" == (await verified(verifier, token_by(name))).user_id

    assert 2 == provider.asked


async def test_a_verified_token_is_refused_once_its_key_is_removed(provider: IdentityProvider) -> None:
    verifier, token = JwksVerifier(provider.url), token_by("first")
    assert "alice" == (await verified(verifier, token)).user_id

    provider.publish(jwk_of("second"), jwk_of("third"))
    await verifier.load()

    with pytest.raises(InvalidToken, match="not one of the identity provider's"):
        await verified(verifier, token)


def forged(header: dict[str, Any], *, secret: bytes) -> str:
    """Return a token with an HMAC as its signature."""
    claims = json.dumps({"sub": "root", "exp": IN_AN_HOUR})
    return signed(
        json.dumps(header), claims, lambda text: hmac.digest(secret, text, hashlib.sha256) if secret else b"x"
    )


def rsa_signed(header: dict[str, Any], *, name: str = "first") -> str:
    key = private_key(name)
    assert isinstance(key, rsa.RSAPrivateKey)
    claims = json.dumps({"sub": "root", "exp": IN_AN_HOUR})
    return signed(json.dumps(header), claims, lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256()))


PUBLIC = public_pem_of(private_key("first")).encode()
OWN_KEY = jwk_of("attacker", kid="first")
FORGED = {
    "alg none": forged({"alg": "none", "kid": "first"}, secret=SECRET.encode()),
    "alg missing": rsa_signed({"kid": "first"}),
    "alg a list": rsa_signed({"alg": ["RS256"], "kid": "first"}),
    "HS with the public key": forged(
        {"alg": "HS256", "kid": "first"}, secret=public_pem_of(private_key("first")).encode()
    ),
    "HS with the modulus": forged({"alg": "HS256", "kid": "first"}, secret=jwk_of("first")["n"].encode()),
    "HS with the key of the set": forged({"alg": "HS256", "kid": "shared"}, secret=SECRET.encode()),
    "the key of another": rsa_signed({"alg": "RS256", "kid": "first"}, name="attacker"),
    "the kid of another key": rsa_signed({"alg": "RS256", "kid": "second"}),
    "an algorithm that the key is not for": rsa_signed({"alg": "RS512", "kid": "first"}),
    "the key in the header": rsa_signed({"alg": "RS256", "kid": "first", "jwk": OWN_KEY}, name="attacker"),
    "a URL in the header": rsa_signed(
        {"alg": "RS256", "kid": "first", "jku": "https://evil.test/", "x5u": "https://evil.test/"}, name="attacker"
    ),
    "a path as kid": rsa_signed({"alg": "RS256", "kid": "../../../dev/null"}),
    "SQL as kid": rsa_signed({"alg": "RS256", "kid": "first' OR '1'='1"}),
    "a long kid": rsa_signed({"alg": "RS256", "kid": "first" + "x" * 300}),
    "kid a number": rsa_signed({"alg": "RS256", "kid": 1}),
    "kid a list": rsa_signed({"alg": "RS256", "kid": ["first"]}),
    "kid an object": rsa_signed({"alg": "RS256", "kid": {"first": 1}}),
    "kid empty": rsa_signed({"alg": "RS256", "kid": ""}),
    "no kid": rsa_signed({"alg": "RS256"}),
    "the key for encryption": rsa_signed({"alg": "RS256", "kid": "encrypting"}, name="encrypting"),
    "critical extensions": rsa_signed({"alg": "RS256", "kid": "first", "crit": ["b64"], "b64": False}),
    "expired": token_by("first", exp=int(time.time()) - 1),
    "no expiry": token_by("first", exp=None),
}


async def test_a_token_that_is_made_by_hand_is_accepted(provider: IdentityProvider) -> None:
    """The forged ones are made in the same way, so none of them is refused for how it is made."""
    token = rsa_signed({"alg": "RS256", "kid": "first"})

    assert "root" == (await verified(JwksVerifier(provider.url), token)).user_id


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(provider: IdentityProvider, token: str) -> None:
    provider.publish(
        jwk_of("first"),
        jwk_of("second"),
        jwk_of("encrypting", use="enc"),
        {"kty": "oct", "kid": "shared", "alg": "HS256", "k": "c2VjcmV0"},
    )
    verifier = JwksVerifier(provider.url)
    assert "alice" == (await verified(verifier, token_by("first"))).user_id

    # An id that the provider may have by now is not refused for good. It is not accepted, either.
    with pytest.raises((InvalidToken, ProviderUnavailable)):
        await verified(verifier, token)


@pytest.mark.parametrize("algorithm", ["PS256", "EdDSA"])
async def test_an_algorithm_that_is_not_supported_is_named_with_those_that_are(
    provider: IdentityProvider, algorithm: str
) -> None:
    with pytest.raises(InvalidToken, match=f"signed with {algorithm}, .*RS256, .*ES512"):
        await verified(JwksVerifier(provider.url), rsa_signed({"alg": algorithm, "kid": "first"}))


async def test_a_configured_algorithm_is_the_only_one(provider: IdentityProvider) -> None:
    provider.publish(jwk_of("first"), jwk_of("curve", "ES256"))
    settings = Settings.load(jwks_url=provider.url, jwt_algorithm="ES256")
    verifier = JwksVerifier.of(settings)

    assert "alice" == (await verified(verifier, token_by("curve", "ES256"))).user_id
    with pytest.raises(InvalidToken):
        await verified(verifier, token_by("first"))


async def test_the_rules_hold_for_tokens_of_a_provider_too(provider: IdentityProvider) -> None:
    clock = ManualClock(time.time())
    rules = TokenRules(audiences=["chat"], scope_claims=["permissions"])
    verifier = JwksVerifier(provider.url, rules=rules, wall_clock=clock)
    token = token_by("first", aud=["mail", "chat"], permissions=["admin"])

    assert frozenset({"admin"}) == (await verified(verifier, token)).scopes
    with pytest.raises(InvalidToken, match="AUDIENCE"):
        await verified(verifier, token_by("first", aud="mail"))
    clock.advance(3_601)
    with pytest.raises(InvalidToken, match="expired"):
        await verified(verifier, token)


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (HTTPStatus.FOUND, {"Location": "https://evil.test/keys"}, b"", "redirects to 'https://evil.test/keys'"),
        (HTTPStatus.INTERNAL_SERVER_ERROR, {}, b"", "status 500"),
        (HTTPStatus.NOT_FOUND, {}, b"{}", "status 404"),
        (HTTPStatus.OK, {}, b"<html>", "Expecting value"),
        (HTTPStatus.OK, {}, b" " * (MAX_SET_BYTES + 1), f"more than {MAX_SET_BYTES} bytes"),
        (HTTPStatus.OK, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00", "utf-8"),
        (HTTPStatus.OK, {"Content-Length": "999"}, b"{}", "peer closed|incomplete|timed out|no answer"),
    ],
)
async def test_an_answer_that_is_no_set_is_reported_with_its_reason(
    provider: IdentityProvider, status: HTTPStatus, headers: dict[str, str], body: bytes, reason: str
) -> None:
    provider.status, provider.headers, provider.body = status, headers, body

    with pytest.raises(ConfigurationError, match=f"the keys at http://127.0.0.1:[0-9]+/.*{reason}"):
        await JwksVerifier(provider.url).load()


async def test_a_provider_that_is_away_refuses_no_token_for_good(provider: IdentityProvider) -> None:
    verifier = JwksVerifier(provider.url)
    provider.stop()
    with pytest.raises(ProviderUnavailable, match="retry shortly"):
        await verified(verifier, token_by("first"))
    provider.start()

    assert None is verifier.problem


def test_settings_choose_the_verifier(provider: IdentityProvider) -> None:
    assert isinstance(verifier_of(Settings.load(jwks_url=provider.url)), JwksVerifier)
    assert not isinstance(verifier_of(Settings.load(jwt_secret=SECRET)), JwksVerifier)
    with pytest.raises(ConfigurationError, match="UNMISSED_JWKS_URL is not set"):
        JwksVerifier.of(Settings.load(jwt_secret=SECRET))


def test_no_token_is_issued_in_the_name_of_a_provider(provider: IdentityProvider) -> None:
    with pytest.raises(ConfigurationError, match="needs the private key"):
        issue_token_under(Settings.load(jwks_url=provider.url), user_id="alice", expires_in=60)


def test_what_is_awaited_is_an_identity(provider: IdentityProvider) -> None:
    later = JwksVerifier(provider.url).verify(token_by("first"))

    assert isinstance(later, Awaitable)
    later.close()  # type: ignore[attr-defined]  # a coroutine, which would warn that it never ran
