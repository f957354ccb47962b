"""How payloads are framed: WebSocket text frames, and Server-Sent Events in the chunks of an HTTP body."""

from collections.abc import Iterable

from unmissed.core.close_codes import CloseCode
from unmissed.core.encoding import decode_json
from unmissed.core.server_frames import ErrorFrame

EVENTS_TRANSPORT = "events"
"""How operators see the connections of event streams."""

EVENTS_PATH = "/websocket/events"
"""Where servers offer event streams."""

COMMENT = b":\n\n"
"""Clients ignore it. Their acknowledgement shows that the connection works."""

LAST_HTTP_CHUNK = b"0\r\n\r\n"
"""The end of a chunked HTTP body."""

_FIN_TEXT = 0x81


# WebSocket frames (RFC 6455 section 5.2)


def text_header(length: int) -> bytes:
    """Return the header of a final, unmasked text frame whose payload has ``length`` bytes."""
    if length < 126:
        return bytes((_FIN_TEXT, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2)
    return b"\x81\x7f" + length.to_bytes(8)


def text_frames(payloads: Iterable[bytes]) -> bytes:
    """Return one text frame for each UTF-8 payload, joined."""
    return b"".join([part for payload in payloads for part in (text_header(len(payload)), payload)])


# Server-Sent Events (HTML Living Standard, section 9.2)


def event(payload: bytes, number: int | None) -> bytes:
    """Return a frame as an event. Its ``id`` is the sequence number, if it has one: a browser repeats the last id.

    JSON is one line, because it escapes line breaks. Without a name, every client gets the event.
    """
    if number is None:
        return b"data: %b\n\n" % payload
    return b"id: %d\ndata: %b\n\n" % (number, payload)


def events(payloads: Iterable[bytes]) -> bytes:
    """Return one event for each frame, joined. Frames are decoded for their sequence number."""
    return b"".join([event(payload, decode_json(payload).get("sequence_number")) for payload in payloads])


def last_event(code: int, reason: str) -> bytes:
    """Return the event before the end of a stream: the ``error`` frame in place of a WebSocket's close frame.

    A restart is not reported: when a stream ends, clients reconnect anyway.
    """
    return b"" if code == CloseCode.SERVICE_RESTART else event(ErrorFrame(code=code, detail=reason).encode(), None)


def http_chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked HTTP body (RFC 9112 section 7.1). Without data, nothing: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
