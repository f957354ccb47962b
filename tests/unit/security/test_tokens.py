"""Hostile tokens, built by hand, and honest ones."""

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from unmissed.core.audience import PUBLISH_SCOPE, Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
from unmissed.security.claims import TokenRules
from unmissed.security.tokens import MAX_TOKEN_BYTES, JwtVerifier, issue_token
from unmissed.testing import SECRET, ManualClock

IN_AN_HOUR = int(time.time()) + 3600

rsa_key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: str, claims: str, sign: Callable[[bytes], bytes]) -> str:
    """Return a token of exactly these texts, which need not be JSON, with whatever signature."""
    signing_input = f"{base64url(header.encode())}.{base64url(claims.encode())}"
    return f"{signing_input}.{base64url(sign(signing_input.encode()))}"


def hs256(signing_input: bytes, key: bytes = SECRET.encode()) -> bytes:
    return hmac.digest(key, signing_input, hashlib.sha256)


def rs256(signing_input: bytes) -> bytes:
    return rsa_key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())


def signing_with(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def token_of(claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> str:
    return signed(json.dumps(header or {"alg": "HS256", "typ": "JWT"}), json.dumps(claims), hs256)


def token_with(**claims: object) -> str:
    return token_of({"sub": "alice", "exp": IN_AN_HOUR, **claims})


def token_without(claim: str) -> str:
    return token_of({name: value for name, value in {"sub": "alice", "exp": IN_AN_HOUR}.items() if name != claim})


def token_under(header: str, *, sign: Callable[[bytes], bytes] = hs256) -> str:
    return signed(header, json.dumps({"sub": "alice", "exp": IN_AN_HOUR}), sign)


def token_of_text(claims: str) -> str:
    return signed('{"alg":"HS256"}', claims, hs256)


NESTED = '{"alg":"HS256","x":' + "[" * 2_000 + "]" * 2_000 + "}"

HOSTILE = {
    "empty": "",
    "garbage": "garbage",
    "two dots": "..",
    "not base64": "!!!.???.###",
    "no signature": token_with().rpartition(".")[0],
    "empty signature": token_with().rpartition(".")[0] + ".",
    "four parts": token_with() + ".x",
    "with bearer": "Bearer " + token_with(),
    "line break": token_with() + "\nx",
    "non-ASCII": "é" + token_with(),
    "lone surrogate": "\udc80" + token_with(),
    "full-width": "\uff45yJ" + token_with()[3:],
    "over 8 kB": token_with(padding="x" * MAX_TOKEN_BYTES),
    "8 kB of dots": "." * MAX_TOKEN_BYTES,
    "8 kB of letters": "A" * MAX_TOKEN_BYTES,
    "another key": signed('{"alg":"HS256"}', '{"sub":"alice","exp":9999999999}', lambda text: hs256(text, b"other")),
    "empty key": signed('{"alg":"HS256"}', '{"sub":"alice","exp":9999999999}', lambda text: hs256(text, b"")),
    "other claims": ".".join(
        [token_with().split(".")[0], base64url(b'{"sub":"root","exp":9999999999}'), token_with().split(".")[2]]
    ),
    "alg none": token_under('{"alg":"none"}', sign=lambda _: b""),
    "alg none, signed": token_under('{"alg":"none"}'),
    "alg None": token_under('{"alg":"None"}', sign=lambda _: b""),
    "alg empty": token_under('{"alg":""}'),
    "alg null": token_under('{"alg":null}'),
    "alg missing": token_under('{"typ":"JWT"}'),
    "alg a list": token_under('{"alg":["HS256"]}'),
    "alg hs256": token_under('{"alg":"hs256"}'),
    "alg HS512": token_under('{"alg":"HS512"}', sign=lambda text: hmac.digest(SECRET.encode(), text, hashlib.sha512)),
    "alg HS384": token_under('{"alg":"HS384"}', sign=lambda text: hmac.digest(SECRET.encode(), text, hashlib.sha384)),
    "alg RS256": token_under('{"alg":"RS256"}', sign=rs256),
    "nested header, not signed": f"{base64url(NESTED.encode())}..",
    "header a list": token_under("[]"),
    "header a number": token_under("1"),
    "header not JSON": token_under("{"),
    "header not UTF-8": f"{base64url(bytes([0xFF, 0xFE]))}.{token_with().partition('.')[2]}",
    "claims a list": token_of_text("[]"),
    "claims a string": token_of_text('"alice"'),
    "claims null": token_of_text("null"),
    "claims not JSON": token_of_text("{"),
    "crit": token_of({"sub": "alice", "exp": IN_AN_HOUR}, header={"alg": "HS256", "crit": ["b64"], "b64": False}),
    "crit empty": token_of({"sub": "alice", "exp": IN_AN_HOUR}, header={"alg": "HS256", "crit": []}),
    "crit null": token_of({"sub": "alice", "exp": IN_AN_HOUR}, header={"alg": "HS256", "crit": None}),
    "expired": token_with(exp=int(time.time()) - 1),
    "expired at zero": token_with(exp=0),
    "exp negative": token_with(exp=-1),
    "exp missing": token_without("exp"),
    "exp null": token_with(exp=None),
    "exp digits": token_with(exp=str(IN_AN_HOUR)),
    "exp true": token_with(exp=True),
    "exp a list": token_with(exp=[IN_AN_HOUR]),
    "exp 1e300": token_of_text('{"sub":"alice","exp":1e300}'),
    "exp 300 digits": token_of_text('{"sub":"alice","exp":' + "9" * 300 + "}"),
    "exp 400 digits": token_of_text('{"sub":"alice","exp":' + "9" * 400 + "}"),
    "exp -400 digits": token_of_text('{"sub":"alice","exp":-' + "9" * 400 + "}"),
    "exp 5000 digits": token_of_text('{"sub":"alice","exp":' + "9" * 5_000 + "}"),
    "exp 1e999": token_of_text('{"sub":"alice","exp":1e999}'),
    "exp Infinity": token_of_text('{"sub":"alice","exp":Infinity}'),
    "exp NaN": token_of_text('{"sub":"alice","exp":NaN}'),
    "exp 2**53": token_with(exp=2**53),
    "sub missing": token_without("sub"),
    "sub empty": token_with(sub=""),
    "sub null": token_with(sub=None),
    "sub a number": token_with(sub=1),
    "sub true": token_with(sub=True),
    "sub a list": token_with(sub=["alice"]),
    "sub a lone surrogate": token_with(sub="alice\ud800"),
    "scope a lone surrogate": token_with(scope=f"{PUBLISH_SCOPE} \udfff"),
    "scope a list of numbers": token_with(scope=[PUBLISH_SCOPE, 1]),
    "scope an object": token_with(scope={PUBLISH_SCOPE: True}),
    "scope null": token_with(scope=None),
    "nbf 400 digits": token_of_text('{"sub":"alice","exp":9999999999,"nbf":' + "9" * 400 + "}"),
    "nbf in an hour": token_with(nbf=IN_AN_HOUR),
    "nbf null": token_with(nbf=None),
    "nbf Infinity": token_of_text('{"sub":"alice","exp":9999999999,"nbf":Infinity}'),
    "iat a list": token_with(iat=[]),
    "topics a string": token_with(topics="news"),
    "topics null": token_with(topics=None),
    "topics with a number": token_with(topics=[1]),
    "topics with a name that none can have": token_with(topics=["a b"]),
    "topics with a star inside": token_with(topics=["a*b"]),
    "topics too many": token_with(topics=[str(number) for number in range(1_001)]),
}


def error_of(verifier: JwtVerifier, token: str) -> str:
    with pytest.raises(InvalidToken) as refused:
        verifier.verify(token)
    return str(refused.value)


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_token_is_refused_without_a_word_of_it(token: str) -> None:
    error = error_of(JwtVerifier(SECRET), token)

    pieces = {piece for piece in token.replace(".", " ").split() if len(piece) > 7}
    assert not [piece for piece in pieces if piece in error]
    assert "alice" not in error


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_reason_of_a_refusal_is_not_shown_in_a_traceback(token: str) -> None:
    """A library's own error may repeat what it could not read."""
    with pytest.raises(InvalidToken) as refused:
        JwtVerifier(SECRET).verify(token)

    assert None is refused.value.__cause__
    assert None is refused.value.__context__ or refused.value.__suppress_context__


def test_a_hand_made_token_is_accepted() -> None:
    """The hostile ones are made in the same way, so none of them is refused for how it is made."""
    identity = JwtVerifier(SECRET).verify(token_with(scope="a b"))

    assert Identity("alice", frozenset({"a", "b"}), float(IN_AN_HOUR)) == identity


@pytest.mark.parametrize("junk", ["\x00", "\n", " ", "!", "\x7f"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_characters_outside_base64url_are_refused(junk: str, part: int) -> None:
    """RFC 7515 section 2 allows none; a decoder that skips them gives one token many texts."""
    parts = token_with().split(".")
    parts[part] += junk

    assert "the token is invalid or expired" == error_of(JwtVerifier(SECRET), ".".join(parts))


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def other_spellings(token: str) -> list[str]:
    """Return texts that a lenient decoder reads as the same token."""
    last = ALPHABET.index(token[-1])
    return [f"{token}!!!!", f"{token}=", f"{token}====", f"{token[:-1]}\n{token[-1]}", token[:-1] + ALPHABET[last ^ 1]]


@pytest.mark.parametrize("number", range(5))
def test_a_token_has_exactly_one_spelling(number: int) -> None:
    token = token_with()
    verifier = JwtVerifier(SECRET)
    assert "alice" == verifier.verify(token).user_id

    assert "the token is invalid or expired" == error_of(verifier, other_spellings(token)[number])


def test_a_token_of_just_8_kb_is_accepted() -> None:
    shorter = next(
        token for size in range(MAX_TOKEN_BYTES, 0, -1) if len(token := token_with(x="x" * size)) <= MAX_TOKEN_BYTES
    )

    assert len(shorter) >= MAX_TOKEN_BYTES - 2
    assert "alice" == JwtVerifier(SECRET).verify(shorter).user_id


def test_an_expiry_with_a_fraction_is_accepted() -> None:
    assert JwtVerifier(SECRET).verify(token_with(exp=IN_AN_HOUR + 0.5)).expires_at == IN_AN_HOUR + 0.5


def test_a_token_without_a_scope_has_none() -> None:
    assert frozenset() == JwtVerifier(SECRET).verify(token_with()).scopes


def test_a_scope_is_split_at_every_space() -> None:
    assert frozenset({"a", "b"}) == JwtVerifier(SECRET).verify(token_with(scope="  a  b a ")).scopes


def test_topics_are_names_and_prefixes() -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=60.0, topics=["news", "rooms.*", "news"])

    assert frozenset({"news", "rooms.*"}) == JwtVerifier(SECRET).verify(token).topics
    assert frozenset() == JwtVerifier(SECRET).verify(token_with()).topics


def test_no_token_is_issued_for_a_topic_that_none_can_be() -> None:
    with pytest.raises(InvalidToken, match="the token's topics are invalid"):
        issue_token(SECRET, user_id="alice", expires_in=60.0, topics=["a b"])


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"user_id": 42}, r"str\(user.id\)"),
        ({"user_id": ""}, "non-empty string"),
        ({"user_id": "alice\ud800"}, "not text"),
        ({"topics": "orders.42"}, r"write topics=\['orders.42'\]"),
        ({"topics": [42]}, "a topic is"),
        ({"topics": [f"orders.{number}" for number in range(1_001)]}, "at most 1000 topics"),
        ({"scope": [PUBLISH_SCOPE]}, "one string"),
        ({"expires_in": float("inf")}, "seconds"),
        ({"expires_in": float("nan")}, "seconds"),
    ],
    ids=str,
)
def test_no_token_is_issued_that_no_server_accepts(arguments: dict[str, Any], fix: str) -> None:
    with pytest.raises(InvalidToken, match=fix):
        issue_token(SECRET, **{"user_id": "alice", "expires_in": 60.0, **arguments})


def test_a_leeway_accepts_a_token_that_has_just_expired() -> None:
    clock = ManualClock(IN_AN_HOUR + 4)
    verifier = JwtVerifier(SECRET, rules=TokenRules(leeway=5.0), wall_clock=clock)

    assert "alice" == verifier.verify(token_with()).user_id
    clock.advance(1.0)
    error_of(verifier, token_with())


def test_a_token_expires_by_the_clock_that_was_given() -> None:
    clock = ManualClock(IN_AN_HOUR - 1)
    verifier = JwtVerifier(SECRET, wall_clock=clock)
    before = verifier.verify(token_with())
    clock.advance(1.0)

    assert "alice" == before.user_id
    assert "the token has expired, or its exp is not a valid date" == error_of(verifier, token_with())


def test_a_clock_in_the_past_accepts_what_has_expired_since() -> None:
    """The clock that was given decides alone, not together with that of the machine."""
    verifier = JwtVerifier(SECRET, wall_clock=ManualClock(1_000.0))

    assert 1_001.0 == verifier.verify(token_with(exp=1_001)).expires_at


@pytest.mark.parametrize("audience", ["chat", ["chat"], ["mail", "chat"]])
def test_the_configured_audience_is_accepted(audience: object) -> None:
    assert "alice" == JwtVerifier(SECRET, rules=TokenRules(audiences=["chat"])).verify(token_with(aud=audience)).user_id


@pytest.mark.parametrize(
    "claims",
    [{}, {"aud": "mail"}, {"aud": ["mail"]}, {"aud": []}, {"aud": None}, {"aud": ""}, {"aud": "chats"}, {"aud": 1}],
)
def test_another_audience_or_none_is_refused_when_one_is_configured(claims: dict[str, Any]) -> None:
    error = error_of(JwtVerifier(SECRET, rules=TokenRules(audiences=["chat"])), token_with(**claims))

    assert "see UNMISSED_JWT_AUDIENCE" in error


@pytest.mark.parametrize("audience", ["mail", ["mail"], [], "", None])
def test_a_token_with_an_audience_is_refused_when_none_is_configured(audience: object) -> None:
    error = error_of(JwtVerifier(SECRET), token_with(aud=audience))

    assert "set UNMISSED_JWT_AUDIENCE to it, or UNMISSED_JWT_IGNORE_AUDIENCE" in error


@pytest.mark.parametrize("audience", ["mail", ["mail", "chat"]])
def test_any_audience_is_accepted_when_it_is_ignored(audience: object) -> None:
    assert (
        "alice" == JwtVerifier(SECRET, rules=TokenRules(ignore_audience=True)).verify(token_with(aud=audience)).user_id
    )


def test_a_configured_audience_is_never_ignored() -> None:
    verifier = JwtVerifier(SECRET, rules=TokenRules(audiences=["chat"], ignore_audience=True))

    assert "see UNMISSED_JWT_AUDIENCE" in error_of(verifier, token_with(aud="mail"))


def test_the_configured_issuer_is_accepted() -> None:
    assert "alice" == JwtVerifier(SECRET, rules=TokenRules(issuers=["login"])).verify(token_with(iss="login")).user_id


@pytest.mark.parametrize(
    "claims", [{}, {"iss": "evil"}, {"iss": ""}, {"iss": None}, {"iss": ["login"]}, {"iss": "log"}, {"iss": 1}]
)
def test_another_issuer_or_none_is_refused_when_one_is_configured(claims: dict[str, Any]) -> None:
    error = error_of(JwtVerifier(SECRET, rules=TokenRules(issuers=["login"])), token_with(**claims))

    assert "see UNMISSED_JWT_ISSUER" in error


def test_any_issuer_is_accepted_when_none_is_configured() -> None:
    assert "alice" == JwtVerifier(SECRET).verify(token_with(iss="evil")).user_id


def test_an_issued_token_comes_back_as_its_identity() -> None:
    before = time.time()
    token = issue_token(SECRET, user_id="alice", expires_in=60.0, scope=f"{PUBLISH_SCOPE} other")

    identity = JwtVerifier(SECRET).verify(token)

    assert "alice" == identity.user_id
    assert frozenset({PUBLISH_SCOPE, "other"}) == identity.scopes
    assert before + 60 <= (identity.expires_at or 0) < time.time() + 61


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_an_issued_token_passes_with_everything_configured(algorithm: str) -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=60.0, algorithm=algorithm, audience="chat", issuer="login")

    rules = TokenRules(audiences=["chat"], issuers=["login"])
    assert "alice" == JwtVerifier(SECRET, algorithm=algorithm, rules=rules).verify(token).user_id


def test_an_issued_token_that_has_expired_is_refused() -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=-60.0)

    assert "the token has expired, or its exp is not a valid date" == error_of(JwtVerifier(SECRET), token)


def test_a_public_key_verifies_what_the_private_key_signed() -> None:
    verifier = JwtVerifier(pem(rsa_key), algorithm="RS256")

    assert "alice" == verifier.verify(token_under('{"alg":"RS256"}', sign=rs256)).user_id


def test_an_elliptic_curve_key_verifies_what_its_private_key_signed() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    token = issue_token(private.decode(), user_id="alice", expires_in=60.0, algorithm="ES256")

    assert "alice" == JwtVerifier(pem(key), algorithm="ES256").verify(token).user_id


def test_a_token_of_another_private_key_is_refused() -> None:
    other = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    token = token_under('{"alg":"RS256"}', sign=lambda text: other.sign(text, padding.PKCS1v15(), hashes.SHA256()))

    assert "the token is invalid or expired" == error_of(JwtVerifier(pem(rsa_key), algorithm="RS256"), token)


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_a_public_key_is_no_secret_for_an_hmac(encoding: serialization.Encoding) -> None:
    """Everybody has it, so everybody could sign."""
    public = rsa_key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    token = token_under('{"alg":"HS256"}', sign=lambda text: hs256(text, public))

    assert "the token is invalid or expired" == error_of(JwtVerifier(pem(rsa_key), algorithm="RS256"), token)


@pytest.mark.parametrize("alg", ["none", "HS256", "RS512", "PS256", "ES256"])
def test_a_public_key_verifies_its_one_algorithm_only(alg: str) -> None:
    token = token_under(json.dumps({"alg": alg}), sign=rs256)

    assert "the token is invalid or expired" == error_of(JwtVerifier(pem(rsa_key), algorithm="RS256"), token)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (pem(rsa_key), "HS256"),
        (pem(rsa_key), "ES256"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "RS256"),
        (SECRET, "RS256"),
        (SECRET, "ES256"),
        ("", "RS256"),
        ("", "ES256"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "RS256"),
        (SECRET, "none"),
        (SECRET, "MD5"),
    ],
)
def test_a_key_that_does_not_fit_its_algorithm_is_a_configuration_error(key: str, algorithm: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the key does not fit {algorithm}: ") as refused:
        JwtVerifier(key, algorithm=algorithm)

    assert SECRET not in str(refused.value)


def test_a_public_key_of_another_curve_is_a_configuration_error() -> None:
    """Every token would be refused, and nobody told why."""
    with pytest.raises(ConfigurationError, match="the key does not fit ES256"):
        JwtVerifier(pem(ec.generate_private_key(ec.SECP384R1())), algorithm="ES256")


def test_each_of_several_public_keys_in_a_text_verifies() -> None:
    another = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    verifier = JwtVerifier(f"{pem(another)}# the older one\n{pem(rsa_key)}", algorithm="RS256")

    for key in (rsa_key, another):
        assert "alice" == verifier.verify(token_under('{"alg":"RS256"}', sign=signing_with(key))).user_id


@pytest.mark.parametrize(
    ("second", "algorithm"),
    [
        (pem(rsa_key), "HS256"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "RS256"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "RS256"),
    ],
)
def test_a_second_key_that_does_not_fit_is_a_configuration_error(second: str, algorithm: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the key does not fit {algorithm}"):
        JwtVerifier(pem(rsa_key) + second, algorithm=algorithm)


def test_a_short_rsa_key_is_a_configuration_error_that_names_the_fix() -> None:
    """RFC 7518 section 3.3 requires 2,048 bits."""
    short = rsa.generate_private_key(public_exponent=65_537, key_size=1024)  # noqa: S505  # what is tested

    with pytest.raises(ConfigurationError, match=r"1024 bits and needs at least 2048 .* rsa_keygen_bits:2048"):
        JwtVerifier(pem(short), algorithm="RS256")


@pytest.mark.parametrize(
    ("key", "algorithm"), [(rsa_key, "RS256"), (ec.generate_private_key(ec.SECP256R1()), "ES256"), (rsa_key, "HS256")]
)
@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_a_private_key_is_a_configuration_error_that_names_the_fix(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str, form: serialization.PrivateFormat
) -> None:
    """A server that only verifies needs no key that signs."""
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()

    with pytest.raises(ConfigurationError, match=r"is a private key.*openssl pkey -in private\.pem -pubout") as refused:
        JwtVerifier(private, algorithm=algorithm)

    assert private.splitlines()[1] not in str(refused.value)


def test_a_remembered_token_is_refused_once_it_has_expired() -> None:
    clock = ManualClock(time.time())
    verifier = JwtVerifier(SECRET, wall_clock=clock)
    token = issue_token(SECRET, user_id="alice", expires_in=60)
    assert "alice" == verifier.verify(token).user_id == verifier.verify(token).user_id

    clock.advance(61)

    assert "the token has expired, or its exp is not a valid date" == error_of(verifier, token)


@pytest.mark.parametrize(
    "token",
    [token_under(NESTED), token_of_text('{"sub":"alice","exp":9999999999,"x":' + "[" * 2_000 + "]" * 2_000 + "}")],
)
def test_a_signed_but_deeply_nested_token_is_read_or_refused(token: str) -> None:
    """How deep JSON may be nested depends on the version of Python."""
    with contextlib.suppress(InvalidToken):
        assert "alice" == JwtVerifier(SECRET).verify(token).user_id
