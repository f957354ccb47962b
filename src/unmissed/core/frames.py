"""WebSocket frames as a server writes them (RFC 6455 section 5.2)."""

from collections.abc import Iterable

_FIN_TEXT = 0x81


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
