"""What comes before the messages after a position: values by key, and the past of topics that are followed now."""

from collections.abc import Mapping
from dataclasses import dataclass

from unmissed.core.chunks import CHUNK_BYTES, Chunk
from unmissed.core.messages import Message
from unmissed.core.window import Outcome, Window


def is_of_state(message: Message) -> bool:
    """Return whether a message is a value, or a piece of one. A tombstone is not: where a value ended, none is left."""
    return message.value is not None and not message.value.deleted


@dataclass(slots=True)
class StateReading:
    """The values for ``keys`` in (position, until], in order. Broadcasts are included if ``everyone``.

    Values that are replaced while this is read have a number above ``until``, and follow as ordinary messages.
    """

    position: int
    until: int
    keys: frozenset[str]
    everyone: bool = True
    request_id: str | None = None
    """The id of the frame that requested this."""
    full: bool = False
    """Whether the last step ended before a value that did not fit."""

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until

    def step(self, window: Window, *, room: int, whatever: bool = True) -> list[Message]:
        """Return the next values, as many as fit into ``room`` bytes of JSON.

        One call looks at a bounded number of messages, so it may return none before the end. The first value is
        returned ``whatever`` it takes; without that, a step ends before a value that does not fit.
        """
        found: list[Message] = []
        through, messages = window.next_visible(self.position, self.keys, everyone=self.everyone)
        for message in messages:
            if message.sequence_number > self.until:
                break
            if is_of_state(message):
                room -= len(message.payload)
                self.full = room < 0 and (bool(found) or not whatever)
                if self.full:
                    self.position = message.sequence_number - 1
                    return found
                found.append(message)
        self.position = min(through, self.until)
        return found


@dataclass(slots=True)
class Backfill:
    """Backfill of newly followed topics: messages for ``keys`` in (position, until], except those already delivered.

    ``delivered_from[key]`` is the number after which messages for a key that was followed before were delivered.
    Without an ``outcome``, there is nothing to send but the answer.
    """

    outcome: Outcome | None
    position: int
    told: int
    """The highest number that counts as declared lost for these topics."""
    until: int
    keys: frozenset[str]
    delivered_from: Mapping[str, int]
    topics: frozenset[str]
    """The topics, for the answer that comes after their messages."""
    request_id: str | None = None
    """The id of the frame that requested this."""
    lost: tuple[int, int] | None = None
    """The range of a gap."""

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until

    def next_chunk(self, window: Window) -> Chunk:
        """Return up to CHUNK_BYTES of the next messages, if any. What was evicted in the meantime makes a gap.

        One call looks at a bounded number of messages, however many of them were delivered before.
        """
        self.note_loss(window)
        payloads: list[bytes] = []
        size = 0
        through, messages = window.next_visible(self.position, self.keys, everyone=False)
        for message in messages:
            if message.sequence_number > self.until:
                break
            if not self._was_delivered(message):
                payloads.append(message.payload)
                size += len(message.payload)
            if size >= CHUNK_BYTES:
                self.position = message.sequence_number
                return Chunk(*payloads)
        self.position = min(through, self.until)
        return Chunk(*payloads)

    def note_loss(self, window: Window) -> None:
        """Extend the gap if messages that would follow were evicted. A reset stays one: it says more than a gap."""
        known = max(self.position, self.told)
        if known < window.evicted_through and known < (lost := window.lost_through(self.keys, everyone=False)):
            self.told = lost
            if self.outcome is not None and self.outcome is not Outcome.RESET:
                self.outcome = Outcome.GAP
                self.lost = (self.position + 1 if self.lost is None else self.lost[0], lost)

    def _was_delivered(self, message: Message) -> bool:
        number = message.sequence_number
        # A key that was not followed before has no entry, and then the comparison is false.
        return any(number > self.delivered_from.get(key, number) for key in message.audience.keys or ())
