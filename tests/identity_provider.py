"""An identity provider on a local port: it signs tokens, and publishes its public keys as a JWK Set."""

import base64
import json
import threading
import time
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jwt
from jose.backends.base import Key

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(name: str, algorithm: str = "RS256") -> PrivateKey:
    """Return the key with this name and of the type for this algorithm: each time the same one."""
    # The cache would take an argument that is left out for another one than its default.
    return _made(name, "RSA" if algorithm.startswith("RS") else algorithm)


@cache
def _made(name: str, kind: str) -> PrivateKey:
    """Make a key. An RSA key takes a tenth of a second."""
    assert name
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return ec.generate_private_key(_CURVES[kind])


def pem_of(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem_of(key: PrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def jwk_of(name: str, algorithm: str = "RS256", **others: object) -> dict[str, Any]:
    """Return the public key with this name, whose ``kid`` it is, as a JWK. Others that are None are left out."""
    numbers = private_key(name, algorithm).public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        material = {"kty": "RSA", "n": _base64(numbers.n), "e": _base64(numbers.e)}
    else:
        size = (numbers.curve.key_size + 7) // 8
        curve = {256: "P-256", 384: "P-384", 521: "P-521"}[numbers.curve.key_size]
        material = {"kty": "EC", "crv": curve, "x": _base64(numbers.x, size), "y": _base64(numbers.y, size)}
    described = {"kid": name, "use": "sig", "alg": algorithm, **material, **others}
    return {name: value for name, value in described.items() if value is not None}


def set_of(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token_by(name: str, algorithm: str = "RS256", *, headers: Mapping[str, Any] | None = None, **claims: object) -> str:
    """Return a token that the key with this name has signed."""
    payload = {"sub": "alice", "exp": int(time.time()) + 3_600, **claims}
    named = {"kid": name} if headers is None else dict(headers)
    return jwt.encode(payload, _signing_key(name, algorithm), algorithm=algorithm, headers=named)


@cache
def _signing_key(name: str, algorithm: str) -> Key:
    """Return the key that signs. Reading it from its text takes a tenth of a second."""
    return jwk.construct(pem_of(private_key(name, algorithm)), algorithm)


def _base64(number: int, size: int | None = None) -> str:
    encoded = number.to_bytes(size or (number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()


class IdentityProvider:
    """Publishes ``body`` with ``status`` and ``headers``, once ``answering`` is set."""

    def __init__(self) -> None:
        self.body = set_of(jwk_of("first"))
        self.status = HTTPStatus.OK
        self.headers: dict[str, str] = {}
        self.answering = threading.Event()
        self.answering.set()
        self.asked = 0
        """How often it was asked."""
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/.well-known/jwks.json"

    def publish(self, *keys: object) -> None:
        """Publish these keys from now on."""
        self.body = set_of(*keys)

    def start(self) -> None:
        """Listen, on the same port as before."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answering.wait(30)
                self.send_response(provider.status)
                for name, value in {"Content-Length": str(len(provider.body)), **provider.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *_: object) -> None: ...

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections."""
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
