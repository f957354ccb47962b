"""Server-Sent Events as a server writes them (HTML Living Standard, section 9.2)."""

from collections.abc import Iterable

from unmissed.core import wire
from unmissed.core.encoding import decode_json

TRANSPORT = "events"
"""How operators see the connections."""

PATH = "/websocket/events"
"""Where servers offer event streams."""

COMMENT = b":\n\n"
"""Clients ignore it. Their acknowledgement shows that they are there."""

LAST_HTTP_CHUNK = b"0\r\n\r\n"
"""The end of a chunked HTTP body."""


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

    Nothing is told before a restart: when a stream ends, clients reconnect anyway.
    """
    return b"" if code == wire.CloseCode.SERVICE_RESTART else event(wire.error(code=code, detail=reason), None)


def http_chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked HTTP body (RFC 9112 section 7.1). Without data, nothing: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
