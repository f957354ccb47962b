"""The past of topics that a connection has begun to follow."""

from dataclasses import dataclass

from unmissed.core.audience import visible
from unmissed.core.window import Outcome, Window
from unmissed.delivery.chunks import CHUNK_BYTES, Chunk


@dataclass(slots=True)
class Past:
    """Messages after ``position`` and up to ``until`` that are visible with ``keys``, and were not with ``old_keys``.

    They are read from the window in chunks, when the socket accepts data.
    """

    outcome: Outcome
    position: int
    until: int
    keys: frozenset[str]
    old_keys: frozenset[str]

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until

    def next_chunk(self, window: Window) -> Chunk:
        """Return the next CHUNK_BYTES, or less at the end. What was evicted meanwhile makes the outcome a gap."""
        if self.position < window.lost_through(self.keys):
            self.outcome = Outcome.GAP
        payloads: list[bytes] = []
        size = 0
        for message in window.messages_after(max(self.position, window.evicted_through)):
            if message.sequence_number > self.until:
                break
            if visible(message.audience, self.keys) and not visible(message.audience, self.old_keys):
                payloads.append(message.payload)
                size += len(message.payload)
            if size >= CHUNK_BYTES:
                self.position = message.sequence_number
                return Chunk(*payloads)
        self.position = self.until
        return Chunk(*payloads)
