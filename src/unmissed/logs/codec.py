"""How logs store messages: lines of text, of which the first has the keys of the audience, and the key of a value."""

from collections.abc import Sequence

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.messages import Draft, Message, Value, rfc3339

_YEAR_10000_MS = 253_402_300_800_000


def encode_draft(draft: Draft) -> bytes:
    """Return a draft as bytes: its audience, and the JSON around the stamp. JSON escapes line breaks."""
    return b"%b\n%b\n%b%b" % (_encode_head(draft), draft.head, draft.trace, draft.tail)


def decode_draft(stored: bytes) -> Draft:
    """Return the draft that was encoded. Raises ValueError for other bytes."""
    first, head, tail = stored.split(b"\n")
    if not head.startswith(b'{"type":'):
        raise ValueError("it is no message with a type")
    audience, value = decode_head(first)
    return Draft(head, tail, audience, value=value)


def encode_message(message: Message) -> bytes:
    """Return the audience and the payload of a message as bytes."""
    return b"%b\n%b" % (_encode_head(message), message.payload)


def decode_message(stored: bytes, *, number: int, unix_ms: int, appended_at: float) -> Message:
    """Return the message that was encoded, stamped at ``unix_ms``. Raises ValueError for other bytes."""
    first, payload = stored.split(b"\n")
    if b'"sequence_number":%d,' % number not in payload:
        raise ValueError("it has another number, or none")
    audience, value = decode_head(first)
    return Message(number, rfc3339(unix_ms / 1000), payload, audience, appended_at, value)


def decode_head(stored: bytes) -> tuple[Audience, Value | None]:
    """Return the audience and the value that the first line of an encoded message says. Raises ValueError."""
    if not stored:
        return EVERYONE, None
    match decode_json(stored):
        case {"keys": keys, "key": str(key), "append": bool(append), "deleted": bool(deleted)}:
            return _audience(keys), Value(key, append, deleted)
        case keys:
            return _audience(keys), None


def decode_keys(stored: bytes) -> Sequence[str] | None:
    """Return the keys of the audience of an encoded draft or message; None for everyone. Raises ValueError."""
    head, separator, _ = stored.partition(b"\n")
    if not head and separator:
        return None
    found = decode_json(head)
    keys = found.get("keys") if isinstance(found, dict) else found
    return None if keys is None else _checked_keys(keys)


def decode_ms(text: bytes) -> int:
    """Return a time in Unix milliseconds. Raises ValueError for what is no time of the years 1970 to 9999."""
    unix_ms = int(text)
    if not 0 <= unix_ms < _YEAR_10000_MS:
        raise ValueError(f"{unix_ms} is no time in Unix milliseconds")
    return unix_ms


def _encode_head(message: Draft | Message) -> bytes:
    """Return the keys of the audience as a list, nothing for everyone; with a value, both in an object."""
    audience, value = message.audience, message.value
    keys = None if audience.keys is None else audience.keys_in_order
    if value is None:
        return b"" if keys is None else encode_json(keys)
    return encode_json({"keys": keys, "key": value.key, "append": value.append, "deleted": value.deleted})


def _audience(keys: object) -> Audience:
    if keys is None:
        return EVERYONE
    return Audience.with_keys(_checked_keys(keys))


def _checked_keys(keys: object) -> list[str]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("an audience is a list of keys")
    return keys
