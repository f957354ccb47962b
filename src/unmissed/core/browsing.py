"""The log read backwards, for operators: filtered, and a bounded number of messages at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from unmissed.core.audience import topic_key, user_key
from unmissed.core.encoding import encode_json
from unmissed.core.messages import Message
from unmissed.core.window import PAGE_BYTES, SCAN, Window

SCAN_BYTES = 8_388_608
"""The most bytes of messages that are searched for one page: about 20 ms of work."""


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """What the messages that are shown have in common. All that is given must hold.

    ``topic`` and ``user_id`` are what a message is addressed to: messages for everyone match neither. ``search`` is a
    part of the JSON of a message, or of one of its texts. Upper and lower case make no difference.
    """

    type: str | None = None
    topic: str | None = None
    user_id: str | None = None
    search: str = ""
    _beginning: bytes | None = field(init=False, compare=False, repr=False)
    _parts: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Messages are not decoded: in their JSON, the type comes first, and the number after it.
        beginning = None if self.type is None else b'{"type":%b,"sequence_number":' % encode_json(self.type)
        object.__setattr__(self, "_beginning", beginning)
        # As it is written, and as it is inside of a text, where quotes are escaped.
        text = self.search.casefold()
        object.__setattr__(self, "_parts", (text, encode_json(text).decode()[1:-1]) if text else ())

    def matches(self, message: Message) -> bool:
        """Return whether a message is shown."""
        keys = message.audience.keys
        if keys is not None and not keys:
            # It fills the number of a message that was never published.
            return False
        if self.topic is not None and (keys is None or topic_key(self.topic) not in keys):
            return False
        if self.user_id is not None and (keys is None or user_key(self.user_id) not in keys):
            return False
        if self._beginning is not None and not message.payload.startswith(self._beginning):
            return False
        return not self._parts or self._contains(message.payload.decode().casefold())

    def _contains(self, text: str) -> bool:
        return any(part in text for part in self._parts)


@dataclass(frozen=True, slots=True)
class Examined:
    """One step of reading: a message that was looked at, and whether it is shown."""

    message: Message
    shown: bool


def read_backwards(window: Window, before: int, wanted: MessageFilter, *, limit: int) -> Iterator[Examined]:
    """Yield the messages below the number ``before`` from the newest on, until ``limit`` of them are shown.

    It also ends when SCAN messages, or SCAN_BYTES of them, were examined, and when those that are shown have 1 MiB. The
    window may change between two of them.
    """
    examined = shown = shown_bytes = 0
    for message in window.messages_before(before, most=SCAN):
        examined += message.size_in_log
        matches = wanted.matches(message)
        if matches and shown and shown_bytes + message.size_in_log > PAGE_BYTES:
            return
        shown += matches
        shown_bytes += message.size_in_log if matches else 0
        yield Examined(message, matches)
        if shown == limit or examined > SCAN_BYTES:
            return
