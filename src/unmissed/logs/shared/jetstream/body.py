"""The body of a stored message: its time, the receipt if it is the last one of its publish, and its draft."""

from dataclasses import dataclass

from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft, encode_draft
from unmissed.logs.writer import Write

LINE_BYTES = 160
"""Upper bound of the line before the draft."""


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """The receipt of a publish, on its last message, which the stream discards last.

    All messages of a publish have the same ``unix_ms``.
    """

    unix_ms: int
    count: int
    fingerprint: str
    write_id: str

    @classmethod
    def of(cls, body: bytes) -> "StoredReceipt | None":
        """Return the receipt in a body, or None if the message is not the last one of its publish."""
        unix_ms, *receipt = body.partition(b"\n")[0].decode().split(" ")
        if not receipt:
            return None
        count, fingerprint, write_id = receipt
        return cls(int(unix_ms), int(count), fingerprint, write_id)


def encode_body(draft: Draft, *, unix_ms: int, receipt: bytes = b"") -> bytes:
    """Return a body. There are no headers of our own, because nats-py takes long to read them."""
    return b"%d%b\n%b" % (unix_ms, receipt, encode_draft(draft))


def encode_receipt(write: Write) -> bytes:
    """Return what the last body of a write has after its time."""
    return f" {len(write.drafts)} {fingerprint(write)} {write.id}".encode()


def fingerprint(write: Write) -> str:
    """Return what tells the drafts apart from others, as text. Without a key, the id of the write does."""
    return write.fingerprint.hex() or "-"


def decode_body(body: bytes) -> tuple[int, Draft]:
    """Return the time in Unix milliseconds, and the draft. Raises ValueError for other bytes."""
    line, _, draft = body.partition(b"\n")
    return int(line.partition(b" ")[0]), decode_draft(draft)
