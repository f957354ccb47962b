"""Opening handshakes of WebSockets (RFC 6455 section 4.2): plain ones, and the ASGI scope of all."""

import asyncio
import base64
import binascii
from dataclasses import dataclass
from hashlib import sha1
from typing import Any
from urllib.parse import quote, unquote

import httptools

from unmissed.framework_names import Config, is_ssl

AsgiScope = dict[str, Any]

MAX_BYTES = 8_192
"""Most bytes of a plain handshake. Longer requests are left to the parser of requests, which has its own limits."""

# Appended to the key of each handshake (RFC 6455 section 4.2.2).
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
    """A complete request for a WebSocket with nothing unusual in it. Each header occurs once, in lower case."""

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
    """Return whether the first bytes of a connection look like a complete handshake, at next to no cost."""
    # Without its first letter, because clients write Upgrade or upgrade.
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
    # One message: requests before it need answers of their own. No header twice: what that means is not decided here.
    plain = (
        head.messages == 1
        and len(headers) == len(head.headers)
        and parser.get_method() == b"GET"
        and parser.get_http_version() == "1.1"
    )
    return Handshake(head.target, headers, rest) if plain and _is_valid(headers) else None


def _is_valid(headers: dict[bytes, bytes]) -> bool:
    # One token only: lists, such as Firefox's ``Connection: keep-alive, Upgrade``, are left to the longer way.
    return (
        headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() == b"upgrade"
        and headers.get(b"sec-websocket-version") == b"13"
        and bool(headers.get(b"host"))
        and _is_key(headers.get(b"sec-websocket-key", b""))
        # What follows the head is parsed as frames, so it must not be a body.
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


def websocket_scope(
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    config: Config,
    transport: asyncio.Transport,
    state: dict[str, Any],
    extensions: dict[str, Any],
) -> AsgiScope:
    """Return the scope (ASGI 3, spec 2.4) for a target such as ``/ws?since=1``. Names of headers are in lower case."""
    raw_path, _, query = target.partition(b"?")
    root_path = config.root_path
    # As in uvicorn, the path includes the root path, which a proxy has removed from the target.
    return {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": _address(transport, "sockname"),
        "client": _address(transport, "peername"),
        "root_path": root_path,
        "path": root_path + unquote(raw_path.decode("latin-1")),
        "raw_path": root_path.encode("ascii") + raw_path,
        "query_string": query,
        "headers": headers,
        "subprotocols": [
            protocol.strip()
            for name, value in headers
            if name == b"sec-websocket-protocol"
            for protocol in value.decode("latin-1").split(",")
        ],
        "state": state.copy(),
        "extensions": extensions,
    }


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int | None] | None:
    """Return one of the two addresses of a connection: of a Unix socket its path, if it has one.

    uvicorn's functions ask the operating system again, which takes three times as long.
    """
    match transport.get_extra_info(name):
        case (host, port, *_):
            return str(host), int(port)
        case str(path) if path:
            return path, None
        case _:
            return None


def address_and_path(scope: AsgiScope) -> tuple[str, str]:
    """Return client and path for a log line, without the query string, which may contain a token."""
    return ":".join(map(str, scope["client"] or ())), quote(scope["path"])
