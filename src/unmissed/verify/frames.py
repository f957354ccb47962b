"""Reads frames and pages as a client sees them, and reduces messages to digests."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from unmissed.core.encoding import decode_json

_DECODER = json.JSONDecoder()
_START_OF_MESSAGES = '"messages":['
_DIGEST_BYTES = 8
_SEPARATOR = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message: its number, the digest of its bytes, and, if this run published it, its id and content."""

    number: int
    digest: str
    message_id: str | None
    content: str | None


@dataclass(frozen=True, slots=True)
class ReceivedPage:
    """The answer to a request for what was missed."""

    epoch: str
    oldest: int
    latest: int
    outcome: str
    has_more: bool
    messages: tuple[ReceivedMessage, ...]


def decoded(raw: bytes) -> dict[str, Any]:
    """Return the object in a frame. Raises ValueError."""
    frame = decode_json(raw)
    if not isinstance(frame, dict):
        raise ValueError("a frame is not an object")  # noqa: TRY004  # what the server sent is wrong, not a type here
    return frame


def message_of(raw: bytes, frame: dict[str, Any]) -> ReceivedMessage:
    """Return the message in a frame, which is both the bytes ``raw`` and the object ``frame``."""
    match frame:
        case {"data": {"id": str(message_id)}}:
            return ReceivedMessage(frame["sequence_number"], _digest(raw), message_id, content_of(frame))
        case _:
            return ReceivedMessage(frame["sequence_number"], _digest(raw), None, None)


def content_of(message: dict[str, Any]) -> str:
    """Return a digest of what the publisher of a message chose and its readers see."""
    return _digest(json.dumps([message["type"], message["data"], message.get("topics")], sort_keys=True).encode())


def page_of(text: str) -> ReceivedPage:
    """Return the page in a response, with digests of the exact bytes of its messages. Raises ValueError."""
    page = json.loads(text)
    return ReceivedPage(
        epoch=page["epoch"],
        oldest=page["oldest"],
        latest=page["latest"],
        outcome=page["outcome"],
        has_more=page["has_more"],
        messages=tuple(_messages(text, count=len(page["messages"]))),
    )


def _messages(text: str, *, count: int) -> list[ReceivedMessage]:
    messages = []
    place = text.index(_START_OF_MESSAGES) + len(_START_OF_MESSAGES)
    for _ in range(count):
        separator = _SEPARATOR.match(text, place)
        start = separator.end() if separator else place
        frame, place = _DECODER.raw_decode(text, start)
        messages.append(message_of(text[start:place].encode(), frame))
    return messages


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()
