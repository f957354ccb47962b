"""How logs store a draft: three lines of text, the keys of the audience, and the JSON around the stamp."""

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.messages import Draft


def encode_draft(draft: Draft) -> bytes:
    """Return a draft as bytes. Neither keys nor JSON contain a line break, which JSON escapes."""
    keys = draft.audience.keys
    return b"%b\n%b\n%b" % (b"" if keys is None else encode_json(sorted(keys)), draft.head, draft.tail)


def decode_draft(stored: bytes) -> Draft:
    """Return the draft that was encoded. Raises ValueError for other bytes."""
    keys, head, tail = stored.split(b"\n")
    return Draft(head, tail, Audience(frozenset(decode_json(keys))) if keys else EVERYONE)
