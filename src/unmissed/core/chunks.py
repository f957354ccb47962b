"""Chunks: payloads that are framed and written together, encoded once and shared by all connections at one position."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from unmissed.core.audience import EVERYONE, visible
from unmissed.core.close_codes import CloseCode
from unmissed.core.encoding import decode_json
from unmissed.core.messages import Message
from unmissed.core.server_frames import ConnectedFrame, ErrorFrame
from unmissed.core.window import Window

COMMENT = b":\n\n"
"""Clients ignore it. Their acknowledgement shows that the connection works."""

LAST_HTTP_CHUNK = b"0\r\n\r\n"
"""The end of a chunked HTTP body."""

_FIN_TEXT = 0x81


# WebSocket frames (RFC 6455 section 5.2)


def text_header(length: int) -> bytes:
    """Return the header of a final, unmasked text frame whose payload has ``length`` bytes."""
    # RFC 6455 requires the shortest form of a length; 126 and 127 announce one of 2 and of 8 bytes.
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
    return b"".join([event(payload, _number_of(decode_json(payload))) for payload in payloads])


def _number_of(frame: Mapping[str, Any]) -> int | None:
    """Return the id of the event for a frame, if it has one.

    ``connected`` has none if a state follows: a browser that is cut before its end repeats the id from before.
    """
    return None if frame.get("type") == ConnectedFrame.type and frame.get("state") else frame.get("sequence_number")


def last_event(code: int, reason: str) -> bytes:
    """Return the event before the end of a stream: the ``error`` frame in place of a WebSocket's close frame.

    A restart is not reported: when a stream ends, clients reconnect anyway.
    """
    return b"" if code == CloseCode.SERVICE_RESTART else event(ErrorFrame(code=code, detail=reason).encode(), None)


def http_chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked HTTP body (RFC 9112 section 7.1). Without data, nothing: that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


CHUNK_BYTES = 65_536
"""Payload bytes in one write. For a slow client at most one chunk is buffered, not the whole log."""

_CACHED_CHUNKS = 64


class Chunk:
    """Payloads to be written together. A socket sends one of their forms; each is encoded when it is first needed."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads = payloads

    @cached_property
    def frames(self) -> bytes:
        """The payloads as WebSocket text frames, joined."""
        return text_frames(self.payloads)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The payloads as text, one for each WebSocket message."""
        return tuple(payload.decode() for payload in self.payloads)

    @cached_property
    def events(self) -> bytes:
        """The payloads as Server-Sent Events, joined."""
        return self._events()

    @cached_property
    def http_chunk(self) -> bytes:
        """The events as one chunk of an HTTP body. They are not kept in both forms, which are large."""
        return http_chunk(self._events())

    def _events(self) -> bytes:
        return events(self.payloads)


class JoinedChunk(Chunk):
    """Several chunks that are sent to one connection in one write."""

    def __init__(self, *parts: Chunk) -> None:
        super().__init__(*(payload for part in parts for payload in part.payloads))
        self.parts = parts

    @cached_property
    def frames(self) -> bytes:
        """The frames of the parts, which other connections may share."""
        return b"".join([part.frames for part in self.parts])

    @cached_property
    def http_chunk(self) -> bytes:
        """The chunks of the parts, which other connections may share."""
        return b"".join([part.http_chunk for part in self.parts])

    def _events(self) -> bytes:
        return b"".join([part.events for part in self.parts])


class MessageChunk(Chunk):
    """Consecutive messages of the log, which may be none. ``last`` is the position after them."""

    def __init__(self, messages: tuple[Message, ...], *, last: int) -> None:
        super().__init__(*(message.payload for message in messages))
        self.messages = messages
        self.last = last
        self.for_everyone = all(message.audience is EVERYONE for message in messages)

    def visible_to(self, keys: frozenset[str]) -> "MessageChunk":
        """Return a chunk of the messages that are visible with these keys, or this chunk if all of them are."""
        seen = tuple(message for message in self.messages if visible(message.audience, keys))
        return self if len(seen) == len(self.messages) else MessageChunk(seen, last=self.last)

    def through(self, last: int) -> "MessageChunk":
        """Return a chunk of the messages up to ``last``."""
        return MessageChunk(tuple(each for each in self.messages if each.sequence_number <= last), last=last)

    def _events(self) -> bytes:
        return b"".join([event(message.payload, message.sequence_number) for message in self.messages])


class Chunks:
    """The chunk after each position, built once for all connections at that position."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.flushed_through = window.latest
        """The number through which every connection that is up to date has been served."""
        self._changes = window.changes
        self._cache: dict[int, MessageChunk] = {}

    def after(self, position: int) -> MessageChunk:
        """Return up to CHUNK_BYTES of messages, but at least one if any is retained after the position.

        The position must be below ``latest``, which is where a chunk without further messages ends.
        """
        # A chunk from before the latest append may lack messages that still fit into it, and one from before a removal
        # would deliver what was replaced.
        if self._changes != self.window.changes or len(self._cache) >= _CACHED_CHUNKS:
            self._changes = self.window.changes
            self._cache.clear()
        found = self._cache.get(position)
        if found is None:
            found = self._cache[position] = self._build(position)
        return found

    def visible_after(self, position: int, keys: frozenset[str], *, last: int) -> MessageChunk:
        """Return up to CHUNK_BYTES of the next messages through ``last`` that these keys make visible, if any are."""
        messages: list[Message] = []
        size = 0
        through, visible = self.window.next_visible(position, keys)
        for message in visible:
            if message.sequence_number > last:
                break
            size += len(message.payload)
            if messages and size > CHUNK_BYTES:
                return MessageChunk(tuple(messages), last=messages[-1].sequence_number)
            messages.append(message)
        # Not the number of the last message: those between it and ``through`` are not visible, and count as passed.
        return MessageChunk(tuple(messages), last=min(through, last))

    def _build(self, position: int) -> MessageChunk:
        messages: list[Message] = []
        size = 0
        for message in self.window.messages_after(position):
            size += len(message.payload)
            if messages and size > CHUNK_BYTES:
                return MessageChunk(tuple(messages), last=messages[-1].sequence_number)
            messages.append(message)
        # Not the number of the last message: what had the numbers up to ``latest`` is no longer retained.
        return MessageChunk(tuple(messages), last=self.window.latest)
