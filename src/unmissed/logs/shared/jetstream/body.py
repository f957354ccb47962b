"""The body of a stored message: its time, its place in its publish, the receipt on the last one, and its draft."""

from typing import NamedTuple

from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft, decode_ms, encode_draft
from unmissed.logs.writer import Write

LINE_BYTES = 160
"""Upper bound of the line before the draft."""


class Body(NamedTuple):
    """What a body has. All messages of a publish have the same ``unix_ms`` and ``log_ms``.

    The last message has the receipt, since the stream discards it last: there, ``place`` is how many there are.
    """

    unix_ms: int
    log_ms: int
    place: int
    """The place of the message in its publish, from 1."""
    fingerprint: str | None
    """Identifies the drafts; None before the last message."""
    write_id: str | None
    draft: Draft

    @property
    def is_last(self) -> bool:
        """Whether this is the last message of its publish, or the only one."""
        return self.write_id is not None


def encode_body(draft: Draft, *, unix_ms: int, log_ms: int, place: int, receipt: bytes = b"") -> bytes:
    """Return a body. There are no headers of our own, because nats-py takes long to read them."""
    return b"%d %d %d%b\n%b" % (unix_ms, log_ms, place, receipt, encode_draft(draft))


def encode_receipt(write: Write) -> bytes:
    """Return what the line of the last message of a write has after its place."""
    return f" {fingerprint(write)} {write.id}".encode()


def fingerprint(write: Write) -> str:
    """Return what tells the drafts apart from others, as text. Without a key, the id of the write does."""
    return write.fingerprint.hex() or "-"


def decode_body(body: bytes) -> Body:
    """Return what a body has. Raises ValueError for other bytes."""
    line, _, draft = body.partition(b"\n")
    unix_ms, log_ms, place, *receipt = line.split(b" ")
    if int(place) < 1 or len(receipt) not in (0, 2):
        raise ValueError("the line before the draft is not one of unmissed")
    fingerprint, write_id = (part.decode() for part in receipt) if receipt else (None, None)
    return Body(decode_ms(unix_ms), decode_ms(log_ms), int(place), fingerprint, write_id, decode_draft(draft))
