"""Which opening handshakes are plain, and how they are answered."""

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from unmissed.server.plain_handshake import MAX_BYTES, may_be_plain, plain_handshake

FIELDS = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def handshake(start: str = "GET /ws?since=1 HTTP/1.1", *, more: bytes = b"", **changed: str | None) -> bytes:
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [start, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode() + more


def test_a_plain_handshake_tells_its_target_headers_and_what_follows() -> None:
    found = plain_handshake(handshake(more=b"\x81\x80...."))

    assert found is not None
    assert b"/ws?since=1" == found.target
    assert b"dGhlIHNhbXBsZSBub25jZQ==" == found.headers[b"sec-websocket-key"]
    assert b"\x81\x80...." == found.rest


@pytest.mark.parametrize("size", range(1, len(handshake())))
def test_no_part_of_a_handshake_is_taken_for_it(size: int) -> None:
    part = handshake()[:size]

    assert not may_be_plain(part)
    assert plain_handshake(part) is None


@pytest.mark.parametrize(
    "data",
    [
        handshake("POST /ws HTTP/1.1"),
        handshake("GET /ws HTTP/1.0"),
        handshake("GET /ws HTTP/2.0"),
        handshake("GET /ws"),
        handshake(Host=None),
        handshake(Host=""),
        handshake(Host="test\r\nHost: test"),
        handshake(Upgrade=None),
        handshake(Upgrade="h2c"),
        handshake(Upgrade="websocket, h2c"),
        handshake(Connection=None),
        handshake(Connection="close"),
        handshake(Connection="keep-alive, Upgrade"),
        handshake(Sec_WebSocket_Version=None),
        handshake(Sec_WebSocket_Version="8"),
        handshake(Sec_WebSocket_Key=None),
        handshake(Sec_WebSocket_Key="short"),
        handshake(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ"),
        handshake(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ=\u00e9"),
        handshake(Content_Length="0"),
        handshake(Transfer_Encoding="chunked"),
        handshake(Expect="100-continue"),
        handshake(X_Twice="1\r\nX-Twice: 2"),
        handshake(X_Bad="a\0b"),
        handshake(X_Folded="a\r\n b\r\n c"),
        b"GET /ws?a= HTTP/1.1\r\nHost: test\r\n\r\n" + handshake(Host=None),
        b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n",
        b"\x16\x03\x01 hello\r\n\r\n",
    ],
)
def test_what_is_unusual_is_not_plain(data: bytes) -> None:
    assert plain_handshake(data) is None


@pytest.mark.parametrize("line", [b"upgrade: websocket", b"UPGRADE: WebSocket", b"Upgrade:  websocket"])
def test_names_and_tokens_are_not_case_sensitive(line: bytes) -> None:
    data = handshake(Connection="upgrade").replace(b"Upgrade: websocket", line)

    assert plain_handshake(data) is not None


def test_a_long_head_does_not_look_plain() -> None:
    assert may_be_plain(handshake())
    assert not may_be_plain(handshake(X_Large="x" * MAX_BYTES))


@pytest.mark.parametrize("subprotocol", [None, "unmissed.bearer"])
def test_the_response_is_the_one_of_websockets_without_a_date(subprotocol: str | None) -> None:
    found = plain_handshake(handshake())
    theirs = ServerProtocol()
    theirs.receive_data(handshake())
    (request,) = theirs.events_received()
    assert isinstance(request, Request)
    expected = theirs.accept(request)
    del expected.headers["Date"]
    if subprotocol:
        expected.headers["Sec-WebSocket-Protocol"] = subprotocol

    assert found is not None
    assert expected.serialize() == found.response(subprotocol)
