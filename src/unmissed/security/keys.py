"""The keys that verify signatures: secrets, public keys as PEM, and JSON Web Keys (RFC 7517)."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jose import jwk
from jose.backends.base import Key
from jose.utils import base64_to_long

from unmissed.core.errors import ConfigurationError

PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
"""The algorithms of public keys that python-jose has. It has neither PS256 nor EdDSA."""

UNSUPPORTED_ALGORITHMS = frozenset({"PS256", "PS384", "PS512", "EdDSA", "Ed25519", "Ed448", "ES256K"})

MAX_KEYS = 100
"""Most keys of a provider that are used."""

_MIN_RSA_BITS = 2_048
_MAX_RSA_BITS = 16_384
_KEY_TYPES = {"HS": "oct", "RS": "RSA", "ES": "EC"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_MATERIAL = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


def keys_of(text: str, *, algorithm: str, name: str = "UNMISSED_JWT_SECRET") -> list[Key]:
    """Return the keys in a secret, or in a text with one or more public keys or certificates as PEM.

    Raises ConfigurationError, whose text names the setting and the fix.
    """
    if "PRIVATE KEY" in text:
        raise ConfigurationError(
            f"{name} is a private key, and verifying needs the public one only: "
            "create it with: openssl pkey -in private.pem -pubout"
        )
    several = [match[0] for match in _PEM.finditer(text)] if text.count("-----BEGIN ") > 1 else [text]
    return [_key(each, algorithm=algorithm, name=name) for each in several]


def _key(text: str, *, algorithm: str, name: str) -> Key:
    try:
        built = jwk.construct(text, algorithm)
        facts = built.to_dict()
        fits = _KEY_TYPES[algorithm[:2]] == facts["kty"] and facts.get("crv") == _CURVES.get(algorithm)
    except Exception as error:  # noqa: BLE001  # python-jose and cryptography raise various types
        raise ConfigurationError(f"{name}: the key does not fit {algorithm}: {error}") from None
    if not fits:
        raise ConfigurationError(f"{name}: the key does not fit {algorithm}: it is of another type")
    if facts["kty"] == "RSA" and (bits := base64_to_long(facts["n"]).bit_length()) < _MIN_RSA_BITS:
        raise ConfigurationError(
            f"{name} is an RSA key of {bits} bits and needs at least {_MIN_RSA_BITS} (RFC 7518 section "
            f"3.3): create one with: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{_MIN_RSA_BITS}"
        )
    return built


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A public key of an identity provider."""

    id: str | None
    material: tuple[object, ...]
    """The public numbers, which make it equal to the same key of a later answer."""
    by_algorithm: Mapping[str, Key]
    """The key as python-jose uses it, for each algorithm that it may verify. None of them is for a shared secret."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a JWK Set, and why others in it are ignored."""

    keys: tuple[ProviderKey, ...]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, document: object, *, algorithms: Collection[str]) -> "KeySet":
        """Return the keys of a decoded document that verify one of these algorithms. Raises ValueError for no set."""
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError('it is not a JWK Set, which is an object such as {"keys": [...]}')  # noqa: TRY004  # its content is wrong
        keys, ignored = list[ProviderKey](), list[str]()
        for number, described in enumerate(listed[:MAX_KEYS]):
            try:
                keys.append(_provider_key(described, algorithms=algorithms))
            except ValueError as error:
                ignored.append(f"key {number + 1}: {error}")
        if len(listed) > MAX_KEYS:
            ignored.append(f"{len(listed) - MAX_KEYS} keys after the first {MAX_KEYS}")
        return cls(tuple(keys), tuple(ignored))


def _provider_key(described: object, *, algorithms: Collection[str]) -> ProviderKey:
    """Return the key that a JWK describes. Raises ValueError, whose text says why it cannot be used."""
    if not isinstance(described, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  # the content of a document is wrong
    key_id, use, operations = described.get("kid"), described.get("use"), described.get("key_ops")
    if use not in (None, "sig") or (isinstance(operations, list) and "verify" not in operations):
        raise ValueError("it is not for signatures")
    if key_id is not None and not isinstance(key_id, str):
        raise ValueError("its kid is not a string")
    kind = described.get("kty")
    names = _MATERIAL.get(kind) if isinstance(kind, str) else None
    if names is None:
        raise ValueError("it is neither an RSA nor an EC key, which are those that python-jose has")
    # Only the public numbers: a private key would be accepted as well, and has no place here.
    material = {name: described.get(name) for name in names}
    if not all(isinstance(value, str) for value in material.values()):
        raise ValueError("its numbers are missing")
    possible = [each for each in _possible(described) if each in algorithms]
    if not possible:
        raise ValueError("its alg is not one that is accepted")
    return ProviderKey(key_id, (*material.values(), *possible), dict(_built(material, possible)))


def _possible(described: Mapping[str, Any]) -> list[str]:
    """Return the algorithms that a key is for: the one that it names, or else all of its type."""
    if described.get("kty") == "RSA":
        fitting = [each for each in PUBLIC_KEY_ALGORITHMS if each.startswith("RS")]
    else:
        fitting = [algorithm for algorithm, curve in _CURVES.items() if curve == described.get("crv")]
    named = described.get("alg")
    return fitting if named is None else [each for each in fitting if each == named]


def _built(material: Mapping[str, Any], algorithms: Collection[str]) -> Iterator[tuple[str, Key]]:
    if material["kty"] == "RSA":
        # Verifying with a longer one takes more than a millisecond of the event loop.
        bits = base64_to_long(material["n"][:_MAX_RSA_BITS]).bit_length()
        if not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
            raise ValueError(f"it is an RSA key of {bits} bits")
    for algorithm in algorithms:
        try:
            built = jwk.construct(dict(material), algorithm)
        except Exception as error:  # noqa: BLE001  # python-jose and cryptography raise various types
            raise ValueError(f"it cannot be read: {error}") from None
        yield algorithm, built
