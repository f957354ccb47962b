"""What goes to a NATS server and comes back: requests, errors, and the bodies of stored messages."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft, decode_ms, encode_draft
from unmissed.logs.writer import Write

NO_RESPONDERS = 503
"""In place of an error code: no subscriber answers requests to this subject."""

NO_STREAM = 10059
STREAM_EXISTS = 10058
NO_MESSAGE = 10037
OTHER_LAST_NUMBER = 10071
"""A subject has another last message than the sender has expected."""

LINE_BYTES = 160
"""Upper bound of the line before the draft in a body."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A message to the server, which answers it if ``answered``."""

    subject: str
    body: bytes
    headers: dict[str, str] | None = None
    answered: bool = True


def api_request(subject: str, body: Mapping[str, Any] | None = None) -> Packet:
    """Return a request to the JetStream API, such as ``STREAM.INFO.unmissed``."""
    return Packet(f"$JS.API.{subject}", b"" if body is None else json.dumps(body).encode())


def error_code(answer: Mapping[str, Any]) -> int | None:
    """Return JetStream's number for the error that an answer reports, or None."""
    error = answer.get("error")
    return None if error is None else error.get("err_code", error.get("code", 0))


def error_text(answer: Mapping[str, Any]) -> str:
    """Return what an answer says about its error."""
    return f"JetStream: {answer['error'].get('description', 'unknown error')}"


class Body(NamedTuple):
    """The parts of a body. All messages of a publish have the same ``unix_ms`` and ``log_ms``.

    The last message has the receipt, since the stream discards it last. Its ``place`` is the number of messages.
    """

    unix_ms: int
    log_ms: int
    place: int
    """The place of the message in its publish, from 1."""
    receipt: bytes | None
    """The fingerprint of the drafts and the id of the write; None before the last message."""
    draft: Draft

    @property
    def is_last(self) -> bool:
        """Whether this is the last message of its publish, or the only one."""
        return self.receipt is not None

    def is_of(self, write: Write) -> bool:
        """Return whether this is the last message of this very write."""
        return self.receipt == encode_receipt(write)

    def has_drafts_of(self, write: Write) -> bool:
        """Return whether this is the last message of a publish of the same drafts."""
        return self.receipt is not None and self.receipt.startswith(f"{fingerprint(write)} ".encode())


def encode_body(draft: Draft, *, unix_ms: int, log_ms: int, place: int, receipt: bytes | None = None) -> bytes:
    """Return a body. It has no headers of our own, because nats-py is slow to parse them."""
    line = (
        b"%d %d %d" % (unix_ms, log_ms, place)
        if receipt is None
        else b"%d %d %d %b" % (unix_ms, log_ms, place, receipt)
    )
    return b"%b\n%b" % (line, encode_draft(draft))


def encode_receipt(write: Write) -> bytes:
    """Return the receipt of a write: the end of the first line of its last message."""
    return f"{fingerprint(write)} {write.id}".encode()


def fingerprint(write: Write) -> str:
    """Return a digest of the drafts as text. Without a key, there is none: the id of the write is unique."""
    return write.fingerprint.hex() or "-"


def decode_body(body: bytes) -> Body:
    """Return the parts of a body. Raises ValueError for other bytes."""
    line, _, draft = body.partition(b"\n")
    # Three times only: a receipt has a space in it.
    unix_ms, log_ms, place, *receipt = line.split(b" ", 3)
    decoded = Body(decode_ms(unix_ms), int(log_ms), int(place), receipt[0] if receipt else None, decode_draft(draft))
    if decoded.place < 1:
        raise ValueError("places begin with 1")
    return decoded


def stored_bytes(message: Mapping[str, Any]) -> bytes:
    """Return what the message in an answer to ``STREAM.MSG.GET`` contains."""
    return b64decode(message.get("data", ""))


def stored_body(message: Mapping[str, Any]) -> Body | None:
    """Return the body in an answer to ``STREAM.MSG.GET``, or None if it is not one of unmissed."""
    try:
        return decode_body(stored_bytes(message))
    except ValueError:
        return None
