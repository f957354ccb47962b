"""What a log with rules and values retains, and what each client must have of it: a plain list."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from support import nth
from unmissed.core.audience import visible
from unmissed.core.messages import Message
from unmissed.core.retention import Retention, Rule

Identity = tuple[frozenset[str] | None, str]


class Fate(Enum):
    """What became of a message."""

    RETAINED = auto()
    EVICTED = auto()
    REPLACED = auto()


@dataclass
class Model:
    """All messages in order, and what became of each."""

    retention: Retention
    fates: dict[int, Fate] = field(default_factory=dict[int, Fate])
    messages: dict[int, Message] = field(default_factory=dict[int, Message])

    def append(self, message: Message) -> None:
        if message.value is not None and not message.value.append:
            for each in self.retained():
                if identity_of(each) == identity_of(message):
                    self.fates[each.sequence_number] = Fate.REPLACED
        self.messages[message.sequence_number] = message
        self.fates[message.sequence_number] = Fate.RETAINED
        rule = self.rule_of(message)
        self.expire(message.appended_at, rules=[rule])
        counted = [each for each in self.retained() if self._place(each) == self._place(message) and not is_full(each)]
        limit = self.retention.max_messages if rule is None else rule.max_messages
        self._evict(counted[: max(0, len(counted) - limit)])
        while sum(each.size_in_log for each in self.retained()) > self.retention.max_bytes:
            self._evict([self._of_largest_rule()[0]])

    def expire(self, now: float, *, rules: Iterable[Rule | None] | None = None) -> None:
        for each in self.retained():
            rule = self.rule_of(each)
            age = self.retention.max_age if rule is None else rule.max_age
            if now - each.appended_at >= age and (rules is None or rule in rules):
                self._evict([each])

    def retained(self) -> list[Message]:
        return [self.messages[number] for number, fate in self.fates.items() if fate is Fate.RETAINED]

    def seen_after(self, position: int, keys: frozenset[str], *fates: Fate) -> list[Message]:
        return [
            each
            for number, each in self.messages.items()
            if number > position and self.fates[number] in fates and visible(each.audience, keys)
        ]

    def superseded(self, number: int) -> bool:
        """Return whether a later message has replaced this one, or would have if it had been retained."""
        identity = identity_of(self.messages[number])
        later = (each for each in self.messages.values() if each.sequence_number > number)
        return identity is not None and any(
            identity_of(each) == identity and each.value is not None and not each.value.append for each in later
        )

    def lost_through(self, keys: frozenset[str]) -> int:
        return max((each.sequence_number for each in self.seen_after(0, keys, Fate.EVICTED)), default=nth(0))

    def rule_of(self, message: Message) -> Rule | None:
        return self.retention.rule_of(message.audience.first)

    def _place(self, message: Message) -> tuple[Rule | None, str | None]:
        rule = self.rule_of(message)
        return rule, None if rule is None else message.audience.first

    def _of_largest_rule(self) -> list[Message]:
        retained = self.retained()
        rules = [None, *self.retention.rules]
        by_rule = [[each for each in retained if self.rule_of(each) == rule] for rule in rules]
        return max(by_rule, key=lambda found: sum(each.size_in_log for each in found))

    def _evict(self, messages: Iterable[Message]) -> None:
        for each in messages:
            self.fates[each.sequence_number] = Fate.EVICTED


def identity_of(message: Message) -> Identity | None:
    return None if message.value is None else (message.audience.keys, message.value.key)


def is_full(message: Message) -> bool:
    return message.value is not None and message.value.is_full


def fold(messages: Iterable[Message], state: dict[Identity, list[int]] | None = None) -> dict[Identity, list[int]]:
    """Return the state that a client has after these messages: the numbers of the parts of each value.

    It is changed in place if one is given.
    """
    state = {} if state is None else state
    for each in messages:
        identity = identity_of(each)
        if identity is None or each.value is None:
            continue
        if each.value.append:
            state.setdefault(identity, []).append(each.sequence_number)
        elif each.value.deleted:
            state.pop(identity, None)
        else:
            state[identity] = [each.sequence_number]
    return state
