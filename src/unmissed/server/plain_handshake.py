"""Plain opening handshakes of WebSockets (RFC 6455 section 4.2): complete, and with nothing unusual in them."""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha1

import httptools

MAX_BYTES = 8_192

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_BODY_HEADERS = (b"content-length", b"transfer-encoding", b"expect")
_RESPONSE = b"""\
HTTP/1.1 101 Switching Protocols\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Accept: %b\r
%b\r
"""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request for a WebSocket. Names of headers are in lower case, and each is there once."""

    target: bytes
    headers: dict[bytes, bytes]
    rest: bytes
    """What the client sent after the request, such as its first frame."""

    def response(self, subprotocol: str | None) -> bytes:
        """Return the response that opens the WebSocket."""
        accept = base64.b64encode(sha1(self.headers[b"sec-websocket-key"] + _GUID).digest())  # noqa: S324  # RFC 6455
        line = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode("latin-1")
        return _RESPONSE % (accept, line)


def may_be_plain(data: bytes) -> bool:
    """Return whether the first bytes of a connection look like a complete handshake. It costs next to nothing."""
    return data.startswith(b"GET /") and len(data) <= MAX_BYTES and b"pgrade: " in data and b"\r\n\r\n" in data


def plain_handshake(data: bytes) -> Handshake | None:
    """Return the handshake that a connection starts with, or None if it is incomplete, unusual or invalid."""
    head = _Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        rest = data[upgrade.args[0] :]
    except httptools.HttpParserError:
        return None
    else:
        return None
    headers = dict(head.headers)
    plain = (
        head.messages == 1
        and len(headers) == len(head.headers)
        and parser.get_method() == b"GET"
        and parser.get_http_version() == "1.1"
    )
    return Handshake(head.target, headers, rest) if plain and _is_valid(headers) else None


def _is_valid(headers: dict[bytes, bytes]) -> bool:
    return (
        headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() == b"upgrade"
        and headers.get(b"sec-websocket-version") == b"13"
        and bool(headers.get(b"host"))
        and _is_key(headers.get(b"sec-websocket-key", b""))
        and not any(name in headers for name in _BODY_HEADERS)
    )


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


class _Head:
    """Collects a request head from ``httptools``."""

    def __init__(self) -> None:
        self.messages = 0
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
