"""The state of one client: the retained values by key that it sees, cut at one number and read in bounded steps."""

from dataclasses import dataclass

from unmissed.core.messages import Message
from unmissed.core.window import Window


def is_of_state(message: Message, window: Window) -> bool:
    """Return whether a message is a value, or a piece of one of which all parts are retained.

    A tombstone is neither: where a value has ended, a state has none.
    """
    return message.value is not None and not message.value.deleted and window.is_whole(message)


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
            if is_of_state(message, window):
                room -= len(message.payload)
                self.full = room < 0 and (bool(found) or not whatever)
                if self.full:
                    self.position = message.sequence_number - 1
                    return found
                found.append(message)
        self.position = min(through, self.until)
        return found
