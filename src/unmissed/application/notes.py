"""How notes between nodes become bytes: JSON, compressed if it is long, in parts if it is very long."""

import secrets
import zlib
from collections.abc import Iterator
from typing import Any

from unmissed.core.encoding import decode_json, encode_json

PART_BYTES = 500_000
"""The most bytes of a note that are sent together. NATS carries at most 1 MB by default."""

_COMPRESSED_BYTES = 10_000
_MAX_INCOMPLETE = 100
"""Notes of which parts are missing. The oldest ones are forgotten."""


def encoded(note: dict[str, Any]) -> Iterator[bytes]:
    """Yield the parts of a note: each a line of JSON with its number, and bytes. Most notes have one."""
    text = encode_json(note)
    if len(text) >= _COMPRESSED_BYTES:
        text = zlib.compress(text, level=1)
    parts = range(0, len(text), PART_BYTES)
    note_id = secrets.token_urlsafe(9)
    for index, start in enumerate(parts):
        head = {"id": note_id, "part": index, "parts": len(parts)}
        yield encode_json(head) + b"\n" + text[start : start + PART_BYTES]


class Assembly:
    """Puts the parts of notes together again, in whatever order they come."""

    def __init__(self) -> None:
        self._incomplete: dict[str, dict[int, bytes]] = {}

    def take(self, part: bytes) -> dict[str, Any] | None:
        """Return the note that is complete with this part, or None. Raises ValueError for other bytes."""
        head_line, _, content = part.partition(b"\n")
        head = decode_json(head_line)
        found = self._incomplete.setdefault(head["id"], {})
        found[head["part"]] = content
        if len(found) < head["parts"]:
            if len(self._incomplete) > _MAX_INCOMPLETE:
                del self._incomplete[next(iter(self._incomplete))]
            return None
        del self._incomplete[head["id"]]
        text = b"".join(found[index] for index in range(head["parts"]))
        note: dict[str, Any] = decode_json(text if text.startswith(b"{") else zlib.decompress(text))
        return note
