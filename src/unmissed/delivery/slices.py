"""The payloads that are written together, joined once and shared by all connections at one position."""

from functools import cached_property

from unmissed.core.audience import visible
from unmissed.core.frames import text_frames
from unmissed.core.messages import Message
from unmissed.core.window import Window

SLICE_BYTES = 65_536
"""How much payload goes into one write: what a slow client can hold up is a slice, not the log."""

_CACHED_SLICES = 64


class Slice:
    """Payloads to be written together. Each socket takes the form that it can send."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads = payloads

    @cached_property
    def frames(self) -> bytes:
        """The payloads as WebSocket text frames, joined."""
        return text_frames(self.payloads)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The payloads as text, one for each WebSocket message."""
        return tuple(payload.decode() for payload in self.payloads)


class JoinedSlice(Slice):
    """Slices that one connection is given in one write."""

    def __init__(self, *parts: Slice) -> None:
        super().__init__(*(payload for part in parts for payload in part.payloads))
        self.parts = parts

    @cached_property
    def frames(self) -> bytes:
        """The frames of the parts, which share theirs with other connections."""
        return b"".join([part.frames for part in self.parts])


class MessageSlice(Slice):
    """Consecutive messages of the log; ``last`` is the position behind them."""

    def __init__(self, messages: tuple[Message, ...], *, last: int) -> None:
        super().__init__(*(message.payload for message in messages))
        self.messages = messages
        self.last = last
        self.for_everyone = all(message.audience.users is None for message in messages)

    def visible_to(self, user_id: str) -> "MessageSlice":
        """Return the part that this user may see, which is this very slice when that is all of it."""
        if self.for_everyone:
            return self
        seen = tuple(message for message in self.messages if visible(message.audience, user_id))
        return self if len(seen) == len(self.messages) else MessageSlice(seen, last=self.last)


class Slices:
    """The slices after each position, built once for all connections that stand there."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._latest = 0
        self._cache: dict[int, MessageSlice] = {}

    def after(self, position: int) -> MessageSlice:
        """Return about SLICE_BYTES of messages after a position that the window still holds everything after."""
        if self._latest != self.window.latest or len(self._cache) >= _CACHED_SLICES:
            self._latest = self.window.latest
            self._cache.clear()
        found = self._cache.get(position)
        if found is None:
            found = self._cache[position] = self._build(position)
        return found

    def _build(self, position: int) -> MessageSlice:
        messages: list[Message] = []
        size = 0
        for message in self.window.after(position):
            size += len(message.payload)
            if messages and size > SLICE_BYTES:
                break
            messages.append(message)
        return MessageSlice(tuple(messages), last=messages[-1].sequence_number)
