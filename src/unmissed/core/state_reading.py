"""The state of one client: the retained values by key that it sees, cut at one number and read in bounded steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from unmissed.core.messages import Message
from unmissed.core.window import Window


@dataclass(slots=True)
class StateReading:
    """The values for ``keys`` with their last part in (position, until], in the order of these parts.

    The parts of a value come together: its pieces could be evicted between two steps, and half of it is no value.
    Broadcasts are included if ``everyone``. Values that are replaced while this is read have a number above ``until``,
    and follow as ordinary messages. Tombstones are left out: where a value has ended, a state has none.
    """

    position: int
    until: int
    keys: frozenset[str]
    everyone: bool = True
    request_id: str | None = None
    """The id of the frame that requested this."""
    full: bool = False
    """Whether the last step ended before a value that did not fit."""
    begun: Sequence[Message] = ()
    """The rest of a value that was returned in part."""

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until and not self.begun

    def step(self, window: Window, *, room: int, whatever: bool = True) -> list[Message]:
        """Return the next parts of values, as many as fit into ``room`` bytes of JSON, at least the rest of one begun.

        One call looks at a bounded number of messages, so it may return none before the end. The first value begins
        ``whatever`` it takes; without that, a step ends before a value that does not fit.
        """
        found, self.full = list[Message](), False
        room = self._take(found, room)
        through = self.position
        if not self.begun:
            through, messages = window.next_visible(self.position, self.keys, everyone=self.everyone)
            for message in messages:
                if message.sequence_number > self.until:
                    break
                parts = window.value_ending_with(message, through=self.until)
                self.full = sum(len(part.payload) for part in parts) > room and (bool(found) or not whatever)
                if self.full:
                    self.position = message.sequence_number - 1
                    return found
                self.begun = parts
                room = self._take(found, room)
                if self.begun:
                    self.position = message.sequence_number
                    return found
        self.position = min(through, self.until)
        return found

    def _take(self, found: list[Message], room: int) -> int:
        """Move parts of the value that was begun to ``found``, at least one, and return the room that is left."""
        count = 0
        for part in self.begun:
            if count and len(part.payload) > room:
                break
            room -= len(part.payload)
            count += 1
        found += self.begun[:count]
        self.begun = self.begun[count:]
        return room
