"""Row 12: a bad request head, for a WebSocket or not, is answered with a status and closed."""

from typing import Any

import pytest

from raw_client import RawClient, authorization
from support import native_only
from unmissed.testing import LiveServer

pytestmark = native_only


@pytest.mark.parametrize(
    ("lines", "request_line", "status"),
    [
        pytest.param((), {"path": "/ws?" + "x" * 9_000}, 414, id="URL over 8 kB"),
        pytest.param(("X-Large: " + "x" * 70_000,), {}, 431, id="head over 64 kB"),
        pytest.param(("X-Large: " + "x" * 9_000,), {}, 431, id="header over 8 kB"),
        pytest.param(tuple(f"X-{number}: y" for number in range(200)), {}, 431, id="200 headers"),
        pytest.param((), {"method": "POST"}, 405, id="POST"),
        pytest.param(("Content-Length: 5",), {"body": b"hello"}, 400, id="body"),
        pytest.param(("Content-Length: 5",), {"method": "POST", "body": b"hello"}, 400, id="POST with body"),
        pytest.param(("Sec-WebSocket-Version: 12",), {}, 426, id="version 12"),
        pytest.param(("Sec-WebSocket-Version:",), {}, 400, id="no version"),
        pytest.param(("Sec-WebSocket-Key:",), {}, 400, id="no key"),
        pytest.param(("Sec-WebSocket-Key: short",), {}, 400, id="short key"),
        pytest.param(("Host:",), {}, 400, id="no Host"),
        pytest.param(("X-Second: 1\r\nHost: test",), {}, 400, id="two Hosts"),
    ],
)
def test_a_bad_handshake_is_answered_and_closed(
    server: LiveServer, lines: tuple[str, ...], request_line: dict[str, Any], status: int
) -> None:
    with RawClient(server.url) as client:
        client.request(*lines, **request_line)

        assert client.rest().startswith(f"HTTP/1.1 {status} ".encode())


def test_the_answer_to_another_version_names_the_right_one(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.request("Sec-WebSocket-Version: 12")

        assert b"\r\nSec-WebSocket-Version: 13\r\n" in client.rest()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /livez?" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414, id="URL over 8 kB"),
        pytest.param(b"\x16\x03\x01 hello\r\n\r\n", 400, id="not HTTP"),
    ],
)
def test_a_bad_request_is_answered_and_closed(server: LiveServer, head: bytes, status: int) -> None:
    with RawClient(server.url) as client:
        client.send(head)

        assert client.rest().startswith(f"HTTP/1.1 {status} ".encode())


def test_an_endless_head_is_answered_with_431(server: LiveServer) -> None:
    with RawClient(server.url) as client:
        client.send(b"GET /livez HTTP/1.1\r\n")
        client.send_until_answered(b"X-Line: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20, seconds_between=0.002)

        assert client.rest().startswith(b"HTTP/1.1 431 ")


def test_a_large_body_with_a_part_of_the_next_head_is_not_taken_for_a_large_head(server: LiveServer) -> None:
    message = b'{"type":"large","data":"%b"}' % (b"x" * 50_000)
    body = b"[%b,%b]" % (message, message)
    head = (
        f"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{authorization(server)}\r\n\r\n"
    )
    with RawClient(server.url) as client:
        client.send(head.encode() + body + b"GET /livez HTTP/1.1\r\nHo")
        published, _ = client.answer()
        client.send(b"st: test\r\n\r\n")
        alive, _ = client.answer()

    assert [201, 200] == [published, alive]
