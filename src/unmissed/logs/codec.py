"""How logs store messages: lines of text, of which the first has the keys of the audience."""

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.messages import Draft, Message, rfc3339

_YEAR_10000_MS = 253_402_300_800_000


def encode_draft(draft: Draft) -> bytes:
    """Return a draft as bytes: its audience, and the JSON around the stamp. JSON escapes line breaks."""
    return b"%b\n%b\n%b%b" % (_encode_audience(draft.audience), draft.head, draft.trace, draft.tail)


def decode_draft(stored: bytes) -> Draft:
    """Return the draft that was encoded. Raises ValueError for other bytes."""
    keys, head, tail = stored.split(b"\n")
    if not head.startswith(b'{"type":'):
        raise ValueError("it is no message with a type")
    return Draft(head, tail, _decode_audience(keys))


def encode_message(message: Message) -> bytes:
    """Return the audience and the payload of a message as bytes."""
    return b"%b\n%b" % (_encode_audience(message.audience), message.payload)


def decode_message(stored: bytes, *, number: int, unix_ms: int, appended_at: float) -> Message:
    """Return the message that was encoded, stamped at ``unix_ms``. Raises ValueError for other bytes."""
    keys, payload = stored.split(b"\n")
    if b'"sequence_number":%d,' % number not in payload:
        raise ValueError("it has another number, or none")
    return Message(number, rfc3339(unix_ms / 1000), payload, _decode_audience(keys), appended_at)


def decode_ms(text: bytes) -> int:
    """Return a time in Unix milliseconds. Raises ValueError for what is no time of the years 1970 to 9999."""
    unix_ms = int(text)
    if not 0 <= unix_ms < _YEAR_10000_MS:
        raise ValueError(f"{unix_ms} is no time in Unix milliseconds")
    return unix_ms


def _encode_audience(audience: Audience) -> bytes:
    return b"" if audience.keys is None else encode_json(sorted(audience.keys))


def _decode_audience(stored: bytes) -> Audience:
    if not stored:
        return EVERYONE
    try:
        return Audience(frozenset(decode_json(stored)))
    except TypeError:
        raise ValueError("an audience is a list of keys") from None
