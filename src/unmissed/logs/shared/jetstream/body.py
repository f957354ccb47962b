"""The body of a stored message: its time, its place in its publish, the receipt on the last one, and its draft."""

from typing import NamedTuple

from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft, decode_ms, encode_draft
from unmissed.logs.writer import Write

LINE_BYTES = 160
"""Upper bound of the line before the draft."""


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
    """Return what tells the drafts apart from others, as text. Without a key, the id of the write does."""
    return write.fingerprint.hex() or "-"


def decode_body(body: bytes) -> Body:
    """Return the parts of a body. Raises ValueError for other bytes."""
    line, _, draft = body.partition(b"\n")
    unix_ms, log_ms, place, *receipt = line.split(b" ", 3)
    decoded = Body(decode_ms(unix_ms), int(log_ms), int(place), receipt[0] if receipt else None, decode_draft(draft))
    if decoded.place < 1:
        raise ValueError("places begin with 1")
    return decoded
