"""What the server owes to its clients: what its rules retain, what was replaced, and the values of a state."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from unmissed.core.retention import Rule
from unmissed.lab.verify.facts import Acknowledged, Delivered, Fact, Joined, SentLive, Witness
from unmissed.lab.verify.numbering import Numbers
from unmissed.lab.verify.promises import Rules

_LARGEST_BYTES = 2_048
"""More than any message of a run takes in the log."""

_KeyedAudience = tuple[frozenset[str] | None, str]
_Columns = tuple[Sequence[int], Sequence[float]]
_Topic = tuple[str, Rule, str]


class Obligations:
    """What is owed according to the acknowledgements of a run and the rules of the server."""

    def __init__(self, facts: Sequence[Fact], *, numbers: Numbers, rules: Rules) -> None:
        self.live: dict[str, SentLive] = {}
        """The ephemeral messages by their ids."""
        self._numbers = numbers
        self.rules = rules
        self._known: dict[tuple[str, int], Acknowledged] = {}
        self._values: dict[str, dict[_KeyedAudience, list[Acknowledged]]] = defaultdict(lambda: defaultdict(list))
        self._counted: dict[_Topic, list[int]] = defaultdict(list)
        for fact in facts:
            if isinstance(fact, SentLive):
                self.live[fact.message_id] = fact
            elif isinstance(fact, Acknowledged):
                self._add(fact)
        self._replacements: dict[tuple[str, _KeyedAudience], _Columns] = {}
        """The numbers that replace a value in an epoch, and for each the earliest time that it or a later one has."""
        for epoch, values in self._values.items():
            for identity, parts in values.items():
                parts.sort(key=lambda fact: fact.number)
                full = [part for part in parts if part.value is not None and not part.value.append]
                times = accumulate((part.submitted_at for part in reversed(full)), min)
                self._replacements[epoch, identity] = [part.number for part in full], [*times][::-1]
        for counted in self._counted.values():
            counted.sort()
        self._elsewhere = _acknowledged_elsewhere(facts, margin=rules.margin)
        self._bytes_suffice = self._most_retained() * _LARGEST_BYTES <= rules.retention.max_bytes

    def acknowledged(self, epoch: str, number: int) -> Acknowledged | None:
        """Return the message of this run with a number, if it was acknowledged."""
        return self._known.get((epoch, number))

    def is_ordinary(self, epoch: str, number: int) -> bool:
        """Return whether a number is of a message of this run without a key and without a rule."""
        fact = self.acknowledged(epoch, number)
        return fact is not None and fact.value is None and self._rule_of(fact) is None

    def replaced(self, epoch: str, number: int, *, before: float) -> bool:
        """Return whether a later message for the same key was published before this time, which replaces this one."""
        fact = self.acknowledged(epoch, number)
        if fact is None or fact.value is None:
            return False
        identity = _identity(fact)
        numbers, earliest = self._replacements.get((epoch, identity), ((), ()))
        place = bisect_right(numbers, number)
        return (place < len(numbers) and earliest[place] < before) or any(
            other.value is not None and not other.value.append and _identity(other) == identity
            for other in self._unseen(fact, before=before)
        )

    def must_retain(self, epoch: str, number: int, *, at: float, latest: int | None = None) -> bool:
        """Return whether the server must have this message at a time, by its settings.

        ``latest`` is the highest number that it may have had by then. A message without a rule counts for nothing after
        as many numbers of any kind: this is what all logs retain over a restart.
        """
        fact = self.acknowledged(epoch, number)
        if fact is None or self.replaced(epoch, number, before=at + self.rules.margin):
            return False
        newest = self._numbers.latest_at(epoch, at + self.rules.margin)
        unseen = [*self._unseen(fact, before=at + self.rules.margin)]
        newest = newest + len(unseen) if latest is None else min(newest + len(unseen), latest)
        return self._is_young(fact, at=at) and self._fits(fact, newest, unseen)

    def _unseen(self, fact: Acknowledged, *, before: float) -> Iterator[Acknowledged]:
        """Yield what may have followed a message in its epoch before a time, although nobody saw it there.

        Its node was killed before it answered, and then the message was published again.
        """
        for other in self._elsewhere.get(fact.epoch, ()):
            if other.at > fact.at and other.submitted_at < before:
                yield other

    def _is_young(self, fact: Acknowledged, *, at: float) -> bool:
        rule = self._rule_of(fact)
        max_age = self.rules.retention.max_age if rule is None else rule.max_age
        given_after = self._numbers.given_after(fact.epoch, fact.number)
        return given_after is not None and at - given_after < max_age - self.rules.margin

    def _fits(self, fact: Acknowledged, newest: int, unseen: Iterable[Acknowledged]) -> bool:
        """Return whether the counts of the rule, and the bytes of all messages, leave room for a message."""
        rule = self._rule_of(fact)
        if rule is None and newest - fact.number < self.rules.max_messages:
            return True
        if not self._bytes_suffice or (fact.value is not None and fact.value.is_full):
            return self._bytes_suffice
        if rule is None:
            return False
        first = fact.addressees.audience.first
        counted = self._counted[fact.epoch, rule, first or ""]
        later = bisect_right(counted, newest) - bisect_right(counted, fact.number)
        return later + sum(other.addressees.audience.first == first for other in unseen) < rule.max_messages

    def must_show(self, epoch: str, parts: Sequence[int], *, at: float) -> bool:
        """Return whether a state must have the value with these parts at a time.

        A node that was started again may not know whether there were other pieces, and leaves the value out then. So
        does one that had earlier parts, which are unknown here.
        """
        first = self.acknowledged(epoch, parts[0])
        if first is None or first.value is None:
            return False
        # With the pieces after the state: if one of them is evicted, the value is left out of it, too.
        known = self._values[epoch][_identity(first)]
        later = [part.number for part in known if part.number > parts[-1] and part.submitted_at < at]
        everything = [*parts, *later]
        if self.rules.restarts and not (first.value.is_full and len(everything) == 1):
            return False
        if self.rules.has_past and not first.value.is_full:
            return False
        if any(other.value and _identity(other) == _identity(first) for other in self._unseen(first, before=at)):
            return False
        return all(self.must_retain(epoch, part, at=at) for part in everything)

    def state(self, epoch: str, witness: Witness, *, through: int) -> list[list[int]]:
        """Return the numbers of the parts of each value that a client sees, at a number."""
        found: list[list[int]] = []
        for parts in self._values[epoch].values():
            if not parts[0].addressees.include(witness):
                continue
            value: list[int] = []
            for part in parts:
                if part.value is None or part.number > through:
                    break
                value = [*value, part.number] if part.value.append else [] if part.value.deleted else [part.number]
            if value:
                found.append(value)
        return found

    def _add(self, fact: Acknowledged) -> None:
        self._known[fact.epoch, fact.number] = fact
        audience = fact.addressees.audience
        if fact.value is not None:
            self._values[fact.epoch][_identity(fact)].append(fact)
        rule = self._rule_of(fact)
        if rule is not None and not (fact.value is not None and fact.value.is_full):
            self._counted[fact.epoch, rule, audience.first or ""].append(fact.number)

    def _rule_of(self, fact: Acknowledged) -> Rule | None:
        return self.rules.retention.rule_of(fact.addressees.audience.first)

    def _most_retained(self) -> int:
        """Return how many messages of this run the server retains at most."""
        values = sum(map(len, self._values.values()))
        return self.rules.max_messages + values + sum(rule.max_messages for _, rule, _ in self._counted)


def _acknowledged_elsewhere(facts: Iterable[Fact], *, margin: float) -> dict[str, list[Acknowledged]]:
    """Return for each epoch what may have been published in it, unseen, before it was acknowledged in another one."""
    observed: dict[str, tuple[float, float]] = {}
    messages: dict[str, set[str | None]] = defaultdict(set)
    answered: list[Acknowledged] = []
    for fact in facts:
        if isinstance(fact, Joined | Delivered):
            first, last = observed.get(fact.epoch, (fact.at, fact.at))
            observed[fact.epoch] = min(first, fact.at), max(last, fact.at)
        if isinstance(fact, Acknowledged):
            answered.append(fact)
            messages[fact.epoch].add(fact.message_id)
    return {
        epoch: [
            each
            for each in answered
            if each.message_id not in messages[epoch] and each.submitted_at < last + margin and each.at > first
        ]
        for epoch, (first, last) in observed.items()
    }


def _identity(fact: Acknowledged) -> _KeyedAudience:
    return fact.addressees.audience.keys, fact.value.key if fact.value else ""
