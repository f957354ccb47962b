"""Shelves: the retained messages by the rule that decides how long each of them stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unmissed.core.audience import Audience
from unmissed.core.messages import Draft, Message
from unmissed.core.ordered import Groups, Ordered, Shelf
from unmissed.core.retention import Retention, Rule

_MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class ShelfFacts:
    """What one rule retains; ``pattern`` is None for the messages without a rule, which count as one topic."""

    pattern: str | None
    max_messages: int
    max_age: float
    messages: int
    values: int
    """How many of the messages are values by key, which do not count for ``max_messages``."""
    topics: int
    bytes: int


class RuleShelf(Shelf):
    """The retained messages of one rule: it counts those of each first topic, or recipient, apart."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(max_messages=rule.max_messages, max_age=rule.max_age)
        self.pattern = rule.pattern
        self._by_topic = Groups()

    @property
    def topics(self) -> int:
        """How many topics have messages that count."""
        return len(self._by_topic)

    def add(self, message: Message, *, size: int) -> None:
        """Add a message with a higher number than all others."""
        super().add(message, size=size)
        if message.value is None or not message.value.is_full:
            self._by_topic.add(message.audience.first or "", message)

    def remove(self, message: Message, *, size: int) -> None:
        """Remove a message."""
        super().remove(message, size=size)
        if message.value is None or not message.value.is_full:
            self._by_topic.remove(message.audience.first or "", message)

    def overdue(self, audience: Audience, now: float) -> Message | None:
        """Return a message to evict after one was added: one that is too old, or the oldest of its topic."""
        topic = audience.first or ""
        if self._by_topic.size(topic) > self.max_messages:
            return self._by_topic.first(topic)
        return self.too_old(now)

    def count_after(self, position: int, audience: Audience) -> int:
        """Return how many messages above a position count for the first topic, or a higher number."""
        return self._by_topic.count_after(audience.first or "", position, limit=self.max_messages)


class Shelves:
    """All shelves of a window, whose messages in order are ``messages``."""

    def __init__(self, retention: Retention, messages: Ordered) -> None:
        self._retention = retention
        self.has_rules = bool(retention.rules)
        """Otherwise the shelf ``others`` has all messages."""
        self.others = Shelf(
            max_messages=retention.max_messages,
            max_age=retention.max_age,
            order=None if self.has_rules else messages,
        )
        """The shelf of messages without a rule."""
        self._rules = {rule: RuleShelf(rule) for rule in retention.rules}
        self.least = min([retention.max_messages, *(rule.max_messages for rule in retention.rules)])
        """The fewest messages that any rule keeps."""
        self._of_topic: dict[str, Shelf] = {}
        """The shelves of topics and recipients that were looked up, since comparing with each pattern takes longer."""

    def __iter__(self) -> Iterator[Shelf]:
        """Iterate over the shelf of messages without a rule, then over those of the rules."""
        yield self.others
        yield from self._rules.values()

    def of(self, audience: Audience) -> Shelf:
        """Return the shelf of messages for this audience."""
        first = audience.first
        if first is None:
            return self.others
        found = self._of_topic.get(first)
        if found is None:
            if len(self._of_topic) >= _MAX_REMEMBERED:
                self._of_topic.clear()
            rule = self._retention.rule_of(first)
            found = self._of_topic[first] = self.others if rule is None else self._rules[rule]
        return found

    def largest(self) -> Shelf:
        """Return the shelf that takes the most bytes: it makes room for all others."""
        return max(self, key=lambda shelf: shelf.size)

    def room(self, drafts: Sequence[Draft | Message], *, after: int, share: int) -> bool:
        """Return whether the drafts, with what was appended after a number, stay within 1/``share`` of each count."""
        adding: dict[tuple[Shelf, str | None], int] = {}
        for draft in drafts:
            if draft.value is not None and draft.value.is_full:
                continue
            shelf = self.of(draft.audience)
            place = shelf, draft.audience.first if isinstance(shelf, RuleShelf) else None
            adding[place] = found = adding.get(place, shelf.count_after(after, draft.audience)) + 1
            if found > max(1, shelf.max_messages // share):
                return False
        return True

    def facts(self) -> list[ShelfFacts]:
        """Return what each shelf retains, the messages without a rule first."""
        return [
            ShelfFacts(
                each.pattern, each.max_messages, each.max_age, each.order.count, each.values, each.topics, each.size
            )
            for each in self
        ]
