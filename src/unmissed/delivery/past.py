"""The past of topics that a connection has begun to follow."""

from collections.abc import Mapping
from dataclasses import dataclass

from unmissed.core.chunks import CHUNK_BYTES, Chunk
from unmissed.core.messages import Message
from unmissed.core.window import Outcome, Window


@dataclass(slots=True)
class Past:
    """Messages after ``position`` and up to ``until`` for one of the ``keys`` that the connection has not sent before.

    It has sent those for a key in ``sent_after`` whose number is higher than the number there. They are read from the
    window in chunks, when the socket accepts data.
    """

    outcome: Outcome
    position: int
    until: int
    keys: frozenset[str]
    sent_after: Mapping[str, int]
    topics: frozenset[str]
    """The topics, for the answer that comes after their messages."""
    request_id: str | None = None
    """The id of the frame that requested this."""

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until

    def next_chunk(self, window: Window) -> Chunk:
        """Return up to CHUNK_BYTES of the next messages, if any. What was evicted in the meantime makes a gap.

        One call looks at a bounded number of messages, however many of them the connection has sent before.
        """
        if self.position < window.lost_through(self.keys, everyone=False):
            self.outcome = Outcome.GAP
        payloads: list[bytes] = []
        size = 0
        position = max(self.position, window.evicted_through)
        through, messages = window.next_visible(position, self.keys, everyone=False)
        for message in messages:
            if message.sequence_number > self.until:
                break
            if self._includes(message):
                payloads.append(message.payload)
                size += len(message.payload)
            if size >= CHUNK_BYTES:
                self.position = message.sequence_number
                return Chunk(*payloads)
        self.position = min(through, self.until)
        return Chunk(*payloads)

    def _includes(self, message: Message) -> bool:
        number = message.sequence_number
        return all(number <= self.sent_after.get(key, number) for key in message.audience.keys or ())
