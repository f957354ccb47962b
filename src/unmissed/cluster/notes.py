"""How notes between nodes become bytes: JSON, compressed if it is long, in parts that are authenticated one by one."""

import hmac
import secrets
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from unmissed.core.encoding import decode_json, encode_json

PART_BYTES = 500_000
"""The most bytes of a note that are sent together. NATS carries at most 1 MB by default."""

MAX_NOTE_BYTES = 16_777_216
"""The most bytes of JSON in one note."""

MAX_INCOMPLETE_BYTES = 2 * MAX_NOTE_BYTES
"""The most bytes of notes whose other parts have not arrived. Beyond that, the oldest notes are dropped."""

MAX_NODES = 1_000
"""The most nodes whose note numbers are remembered. Beyond that, those heard longest ago are forgotten."""

_COMPRESSED_BYTES = 10_000
_WINDOW = 1_024
"""Notes that one node sends at the same time may overtake each other, but not by as many."""
_MAX_PARTS = -(-MAX_NOTE_BYTES // PART_BYTES)
_CODE_BYTES = 32


def encoded(note: dict[str, Any], *, key: bytes) -> Iterator[bytes]:
    """Yield the parts of a note: each a code (HMAC-SHA256), a line of JSON with its number, and bytes.

    Most notes have one part. Raises ValueError for a note that no node would accept.
    """
    text = encode_json(note)
    if len(text) > MAX_NOTE_BYTES:
        raise ValueError(f"a note has {len(text)} bytes, and nodes accept {MAX_NOTE_BYTES}")
    if len(text) >= _COMPRESSED_BYTES:
        text = zlib.compress(text, level=1)
    starts = range(0, len(text), PART_BYTES)
    note_id = secrets.token_urlsafe(9)
    for index, start in enumerate(starts):
        head = {"id": note_id, "part": index, "parts": len(starts)}
        # Each part has its own code, so that nodes hold no parts of unknown senders.
        part = encode_json(head) + b"\n" + text[start : start + PART_BYTES]
        yield _code(part, key) + part


def authentic(sealed: bytes, *, keys: Iterable[bytes]) -> bytes | None:
    """Return the part of a note without its code, or None if it was not sent by a node that has one of these keys."""
    code, part = sealed[:_CODE_BYTES], sealed[_CODE_BYTES:]
    # In constant time, since the time of a plain comparison shows how many bytes of a forged code are right.
    return part if any(hmac.compare_digest(code, _code(part, key)) for key in keys) else None


def _code(part: bytes, key: bytes) -> bytes:
    return hmac.digest(key, part, "sha256")


class Assembly:
    """Joins the parts of notes, in any order."""

    def __init__(self, *, max_incomplete_bytes: int = MAX_INCOMPLETE_BYTES) -> None:
        self._max_incomplete_bytes = max_incomplete_bytes
        self._incomplete_bytes = 0
        self._incomplete: dict[str, dict[int, bytes]] = {}

    def take(self, part: bytes) -> dict[str, Any] | None:
        """Return the note that is complete with this part, or None.

        Raises ValueError for other bytes, and when incomplete notes were dropped to make room for this part.
        """
        head_line, _, content = part.partition(b"\n")
        note_id, index, count = _read_head(decode_json(head_line))
        found = self._incomplete.setdefault(note_id, {})
        self._incomplete_bytes += len(content) - len(found.get(index, b""))
        found[index] = content
        if len(found) == count:
            self._forget(note_id)
            return _note(b"".join(found[index] for index in range(count)))
        if dropped := self._drop_oldest():
            raise ValueError(f"{dropped} incomplete notes were dropped")
        return None

    def _drop_oldest(self) -> int:
        """Drop notes until the rest is within the limit, and return how many."""
        dropped = 0
        while self._incomplete_bytes > self._max_incomplete_bytes:
            self._forget(next(iter(self._incomplete)))
            dropped += 1
        return dropped

    def _forget(self, note_id: str) -> None:
        self._incomplete_bytes -= sum(map(len, self._incomplete.pop(note_id).values()))


class Replays:
    """Recognizes notes that were received before, by their numbers, which ascend for each node.

    Like IPsec (RFC 4303 section 3.4.3), it keeps the highest number of a node, and one bit for each number below it.
    """

    def __init__(self, *, max_nodes: int = MAX_NODES) -> None:
        self._max_nodes = max_nodes
        self._received: dict[str, tuple[int, int]] = {}

    def is_new(self, node: str, number: int) -> bool:
        """Record the number of a note, and return whether this node has not used it before."""
        # Removed and added again below: the first of the nodes is always the one that was heard longest ago.
        highest, bits = self._received.pop(node, (number, 0))
        if number > highest:
            bits = bits << min(number - highest, _WINDOW) & ((1 << _WINDOW) - 1)
            highest = number
        mark = 1 << min(highest - number, _WINDOW)
        new = not bits & mark and mark < 1 << _WINDOW
        self._received[node] = highest, bits | (mark if new else 0)
        if len(self._received) > self._max_nodes:
            del self._received[next(iter(self._received))]
        return new


def _read_head(head: dict[str, Any]) -> tuple[str, int, int]:
    """Return the id of a note, the index of its part, and how many parts it has. Raises ValueError."""
    match head:
        case {"id": str(note_id), "part": int(index), "parts": int(count)} if 0 <= index < count <= _MAX_PARTS:
            return note_id, index, count
    raise ValueError("the part of a note has an invalid head")


def _note(text: bytes) -> dict[str, Any]:
    # JSON of an object begins with a brace, and compressed data with 0x78 (RFC 1950 section 2.2).
    if not text.startswith(b"{"):
        text = _decompressed(text)
    note: dict[str, Any] = decode_json(text)
    return note


def _decompressed(text: bytes) -> bytes:
    """Decompress no more than a note may have. Raises ValueError."""
    decompressor = zlib.decompressobj()
    try:
        found = decompressor.decompress(text, MAX_NOTE_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"a note cannot be decompressed: {error}") from None
    if not decompressor.eof or len(found) > MAX_NOTE_BYTES:
        raise ValueError(f"a note is incomplete, or has more than {MAX_NOTE_BYTES} bytes")
    return found
