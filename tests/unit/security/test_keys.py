"""Keys of providers: which of a JWK Set are used, and for which algorithms."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from identity_provider import jwk_of, private_key, public_pem_of
from unmissed.core.errors import ConfigurationError
from unmissed.security.keys import MAX_KEYS, PUBLIC_KEY_ALGORITHMS, KeySet, keys_of

RSA = ["RS256", "RS384", "RS512"]


def algorithms_of(described: object, *, algorithms: Any = PUBLIC_KEY_ALGORITHMS) -> list[list[str]]:
    found = KeySet.of({"keys": [described]}, algorithms=algorithms)
    assert len(found.keys) + len(found.ignored) == 1
    return [[*key.by_algorithm] for key in found.keys]


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_a_key_is_for_the_algorithm_that_it_names(algorithm: str) -> None:
    assert [[algorithm]] == algorithms_of(jwk_of("named", algorithm))


@pytest.mark.parametrize(("algorithm", "expected"), [("RS256", RSA), ("ES256", ["ES256"]), ("ES512", ["ES512"])])
def test_a_key_that_names_none_is_for_those_of_its_type(algorithm: str, expected: list[str]) -> None:
    assert [expected] == algorithms_of(jwk_of("named", algorithm, alg=None))


def test_only_accepted_algorithms_count() -> None:
    assert [["RS384"]] == algorithms_of(jwk_of("first", alg=None), algorithms=["RS384", "ES256"])
    assert [] == algorithms_of(jwk_of("first"), algorithms=["RS384", "ES256"])


@pytest.mark.parametrize("others", [{"use": None}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"]}])
def test_a_key_need_not_say_what_it_is_for(others: dict[str, Any]) -> None:
    assert [["RS256"]] == algorithms_of(jwk_of("first", **others))


@pytest.mark.parametrize(
    "described",
    [
        pytest.param(jwk_of("first", use="enc"), id="for encryption"),
        pytest.param(jwk_of("first", use=["sig"]), id="use of another type"),
        pytest.param(jwk_of("first", use=None, key_ops=["encrypt"]), id="other operations"),
        pytest.param(jwk_of("first", alg="HS256"), id="an RSA key for a secret's algorithm"),
        pytest.param(jwk_of("first", alg="none"), id="an RSA key for none"),
        pytest.param(jwk_of("first", alg="PS256"), id="PS256"),
        pytest.param(jwk_of("first", alg="ES256"), id="an RSA key for ES256"),
        pytest.param(jwk_of("curve", "ES256", alg="ES384"), id="another curve"),
        pytest.param(jwk_of("curve", "ES256", alg="RS256"), id="an EC key for RS256"),
        pytest.param(jwk_of("curve", "ES256", x=jwk_of("other", "ES256")["x"]), id="not on the curve"),
        pytest.param(jwk_of("curve", "ES256", alg=None, crv="secp256k1"), id="an unknown curve"),
        pytest.param(jwk_of("first", kid=7), id="kid a number"),
        pytest.param(jwk_of("first", n=None), id="no modulus"),
        pytest.param(jwk_of("first", n="AQAB"), id="a short modulus"),
        pytest.param(jwk_of("first", n="_" * 200_000), id="a long modulus"),
        pytest.param(jwk_of("first", n="!" * 342), id="no base64"),
        pytest.param(jwk_of("first", e=65_537), id="an exponent that is a number"),
        pytest.param(jwk_of("first", e="AA"), id="the exponent 0"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "a"}, id="a secret"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "alg": "EdDSA"}, id="EdDSA"),
        pytest.param({"kty": ["RSA"]}, id="kty a list"),
        pytest.param({}, id="empty"),
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
    ],
)
def test_a_key_that_cannot_be_used_is_ignored(described: object) -> None:
    found = KeySet.of({"keys": [described, jwk_of("second")]}, algorithms=PUBLIC_KEY_ALGORITHMS)

    assert ["second"] == [key.id for key in found.keys]
    assert ["key 1"] == [reason.partition(":")[0] for reason in found.ignored]


def test_of_a_private_key_only_the_public_numbers_are_kept() -> None:
    numbers = private_key("first").private_numbers()
    assert isinstance(numbers, rsa.RSAPrivateNumbers)
    secret = base64.urlsafe_b64encode(numbers.d.to_bytes(256)).decode()

    [key] = KeySet.of({"keys": [jwk_of("first", d=secret)]}, algorithms=PUBLIC_KEY_ALGORITHMS).keys

    assert "d" not in key.by_algorithm["RS256"].to_dict()


@pytest.mark.parametrize("document", [[], None, "keys", {}, {"keys": None}, {"keys": {}}, jwk_of("first")])
def test_another_document_is_no_set(document: object) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        KeySet.of(document, algorithms=PUBLIC_KEY_ALGORITHMS)


def test_the_number_of_keys_is_bounded() -> None:
    many = [jwk_of("curve", "ES256", kid=str(number)) for number in range(MAX_KEYS + 5)]

    found = KeySet.of({"keys": many}, algorithms=PUBLIC_KEY_ALGORITHMS)

    assert MAX_KEYS == len(found.keys)
    assert (f"5 keys after the first {MAX_KEYS}",) == found.ignored


def test_a_key_is_equal_to_itself_in_a_later_answer() -> None:
    answer = json.dumps({"keys": [jwk_of("first"), jwk_of("curve", "ES256", alg=None)]})

    before, after = (KeySet.of(json.loads(answer), algorithms=PUBLIC_KEY_ALGORITHMS) for _ in range(2))

    assert [(key.id, key.material) for key in before.keys] == [(key.id, key.material) for key in after.keys]


def test_each_public_key_in_a_text_is_one_key() -> None:
    text = "\n".join(public_pem_of(private_key(name)) for name in ("first", "second"))

    assert 2 == len(keys_of(f"# comment\n{text}\n", algorithm="RS256"))


def test_an_error_names_the_setting_that_the_key_came_from() -> None:
    with pytest.raises(ConfigurationError, match=r"^UNMISSED_JWT_PREVIOUS_SECRET is a private key"):
        keys_of("-----BEGIN PRIVATE KEY-----", algorithm="RS256", name="UNMISSED_JWT_PREVIOUS_SECRET")
