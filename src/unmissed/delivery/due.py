"""What is due on one connection besides the messages after its position."""

from collections.abc import Sequence

from unmissed.core.server_frames import HeartbeatFrame
from unmissed.delivery.past import Past

FRAME_OVERHEAD = 192
"""Bytes that a frame takes besides its payload: up to 33 for the bytes, 96 for its number, and a slot in a list."""


class Due:
    """Frames to be sent before and after the messages, the past of topics, and a heartbeat."""

    __slots__ = ("_after", "_before", "heartbeat", "past", "size")

    def __init__(self) -> None:
        self.past: Past | None = None
        """Messages of topics that are followed now. No others are sent until it is complete."""
        self.heartbeat = False
        """Whether a heartbeat is due when no messages are left."""
        self.size = 0
        """Bytes that the waiting frames take."""
        self._before: list[bytes] = []
        self._after: list[tuple[int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._before or self._after or self.heartbeat or self.past is not None)

    def begin_past(self, past: Past) -> None:
        """Send the past of topics before all other messages."""
        self.past = past

    def add(self, payload: bytes) -> None:
        """Send a frame as soon as the socket accepts data."""
        self._before.append(payload)
        self.size += len(payload) + FRAME_OVERHEAD

    def add_after(self, number: int, payload: bytes) -> None:
        """Send a frame with this sequence number when all messages up to that number have been sent."""
        self._after.append((number, payload))
        self.size += len(payload) + FRAME_OVERHEAD

    def take_before(self) -> list[bytes]:
        """Return the frames that come before the messages, and forget them."""
        taken, self._before = self._before, []
        self.size -= _size(taken)
        return taken

    def take_after(self, position: int, *, last: bool) -> list[bytes]:
        """Return the frames that may be sent at this position, and forget them.

        Clients take the number of the last frame as their position. After a lower number, and when no messages are
        left and a heartbeat is due, a heartbeat tells them the right one.
        """
        ready = [(number, payload) for number, payload in self._after if number <= position]
        self._after = [(number, payload) for number, payload in self._after if number > position]
        taken = [payload for _, payload in ready]
        self.size -= _size(taken)
        if any(number < position for number, _ in ready) or (self.heartbeat and last):
            taken.append(HeartbeatFrame(sequence_number=position).encode())
            self.heartbeat = False
        return taken

    def discard_waiting(self) -> None:
        """Forget the frames whose messages will not be sent."""
        self.size -= _size([payload for _, payload in self._after])
        self._after.clear()


def _size(payloads: Sequence[bytes]) -> int:
    return sum(map(len, payloads)) + FRAME_OVERHEAD * len(payloads)
