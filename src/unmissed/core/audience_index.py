"""The retained messages of each user and topic, for readers that see few of all messages."""

from collections.abc import Iterable
from itertools import islice

from unmissed.core.messages import Message
from unmissed.core.ordered import Groups, Ordered


class AudienceIndex:
    """The retained messages by audience key, and those for everyone. ``messages`` are all of them.

    As long as all of them are for everyone, they are their own index.
    """

    def __init__(self, messages: Ordered) -> None:
        self.is_trivial = True
        """Whether no message for some users or topics was ever added: then there is nothing to add or to remove."""
        self._all = self._for_everyone = messages
        self._by_key = Groups()

    def add(self, message: Message) -> None:
        """Add a message, before it is added to all messages."""
        keys = message.audience.keys
        if self.is_trivial and keys is not None:
            self.is_trivial, self._for_everyone = False, self._all.copy()
        if keys is None:
            if not self.is_trivial:
                self._for_everyone.append(message)
            return
        for key in keys:
            self._by_key.add(key, message)

    def remove(self, message: Message) -> None:
        """Remove a message."""
        keys = message.audience.keys
        if keys is None:
            if not self.is_trivial:
                self._for_everyone.remove(message.sequence_number)
            return
        for key in keys:
            self._by_key.remove(key, message)

    def after(self, position: int, keys: Iterable[str], *, everyone: bool, limit: int) -> list[Message] | None:
        """Return the messages above ``position`` that are addressed to ``keys``, and broadcasts if ``everyone``.

        Return None if there may be more than ``limit`` of them. The work is bounded by the keys and the limit.
        """
        found: list[Message] = []
        if everyone:
            if self._for_everyone.count_after(position, limit=limit) > limit:
                return None
            found += self._for_everyone.after(position)
        sources = int(bool(found))
        for key in keys:
            before = len(found)
            found += islice(self._by_key.after(key, position), limit + 1)
            if len(found) > limit:
                return None
            sources += len(found) > before
        if sources <= 1:
            return found
        # A message for several of the keys was found once for each of them.
        by_number = {message.sequence_number: message for message in found}
        return [by_number[number] for number in sorted(by_number)]

    def first_after(self, position: int, keys: Iterable[str], *, everyone: bool) -> Message | None:
        """Return the message with the lowest number above ``position`` that ``after`` would return, if any."""
        first = self._for_everyone.first_after(position) if everyone else None
        for key in keys:
            found = self._by_key.first_after(key, position)
            if found is not None and (first is None or found.sequence_number < first.sequence_number):
                first = found
        return first
