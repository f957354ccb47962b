"""What a run knows about transactions: the messages of those that were committed, of no others, and in which order."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from unmissed.lab.verify.facts import Acknowledged, Delivered, Fact, Witness, Written
from unmissed.lab.verify.numbering import conflicts, overtaken
from unmissed.lab.verify.promises import Promise, Rules, Violation
from unmissed.lab.verify.stretches import Stretch

Right = tuple[Witness, Stretch]
"""A client, and a part of its history."""


def numbered(facts: Sequence[Fact]) -> list[Acknowledged]:
    """Return the messages of committed transactions that clients saw, as if each COMMIT had returned their numbers."""
    written = {fact.message_id: fact for fact in facts if isinstance(fact, Written) and fact.committed}
    found: dict[tuple[str, str], Acknowledged] = {}
    for fact in facts:
        if isinstance(fact, Delivered) and fact.message_id in written:
            known = written[fact.message_id]
            seen = Acknowledged(
                known.at,
                known.submitted_at,
                known.message_id,
                fact.epoch,
                fact.number,
                known.content,
                known.addressees,
            )
            found.setdefault((fact.epoch, known.message_id), seen)
    return [*found.values()]


def check_transactions(
    facts: Sequence[Fact], *, numbered: Sequence[Acknowledged], rights: Sequence[Right], rules: Rules
) -> Iterator[Violation]:
    """Yield how the messages of transactions differ from what was committed.

    ``numbered`` are those that have a number, and ``rights`` the stretches of the clients that lose nothing on purpose.
    """
    written = {fact.message_id: fact for fact in facts if isinstance(fact, Written)}
    delivered = [fact for fact in facts if isinstance(fact, Delivered) and fact.message_id in written]
    acknowledged = [*(fact for fact in facts if isinstance(fact, Acknowledged)), *numbered]
    yield from _false(written, delivered)
    yield from _twice(delivered)
    yield from _overtaken(written, acknowledged)
    yield from _disordered(written, numbered)
    yield from _missing(written, acknowledged, rights, rules)


def _false(written: dict[str, Written], delivered: Iterable[Delivered]) -> Iterator[Violation]:
    """Yield messages that do not exist, and those that differ from what was published, once each."""
    reported: set[str] = set()
    for fact in delivered:
        known = written[fact.message_id or ""]
        if known.message_id in reported or (known.committed and known.content == fact.content):
            continue
        reported.add(known.message_id)
        if known.committed:
            promise, text = Promise.SAME_BYTES, f"{fact.number} is not what {known.transaction} published"
        else:
            promise, text = Promise.TRANSACTIONS, f"{fact.number} was published by {known.transaction} and rolled back"
        yield Violation(promise, text, fact.client, (fact.number,), (known, fact))


def _twice(delivered: Iterable[Delivered]) -> Iterator[Violation]:
    same = conflicts(delivered, of=lambda fact: (fact.epoch, fact.message_id), differ_in=lambda fact: fact.number)
    for one, other in same:
        text = f"{one.message_id} was published once, and came as {one.number} and {other.number}"
        yield Violation(Promise.TRANSACTIONS, text, other.client, (one.number, other.number), (one, other))


def _overtaken(written: dict[str, Written], acknowledged: Sequence[Acknowledged]) -> Iterator[Violation]:
    """Yield messages whose number is below that of a message that was committed before they were published."""
    for before, after in overtaken(acknowledged):
        if before.message_id in written or after.message_id in written:
            text = f"{after.number} was published after {before.number} was committed"
            yield Violation(Promise.TRANSACTIONS, text, numbers=(before.number, after.number), excerpt=(before, after))


def _disordered(written: dict[str, Written], numbered: Iterable[Acknowledged]) -> Iterator[Violation]:
    """Yield pairs of messages of one transaction whose numbers do not ascend."""
    messages: dict[tuple[str, str], list[Acknowledged]] = defaultdict(list)
    for fact in numbered:
        messages[fact.epoch, written[fact.message_id].transaction].append(fact)
    for own in messages.values():
        own.sort(key=lambda fact: written[fact.message_id].place)
        for before, after in pairwise(own):
            if before.number > after.number:
                text = f"{after.number} was published after {before.number} in one transaction"
                excerpt = (before, after)
                yield Violation(Promise.TRANSACTIONS, text, numbers=(before.number, after.number), excerpt=excerpt)


def _missing(
    written: dict[str, Written], acknowledged: Sequence[Acknowledged], rights: Sequence[Right], rules: Rules
) -> Iterator[Violation]:
    """Yield committed messages that nobody received, although some client had everything around their number."""
    received = {fact.message_id for fact in acknowledged}
    epochs: dict[str, list[Acknowledged]] = defaultdict(list)
    for each in acknowledged:
        epochs[each.epoch].append(each)
    surroundings = [_Surroundings.of(epoch, known) for epoch, known in epochs.items()]
    for fact in written.values():
        if not fact.committed or fact.message_id in received:
            continue
        if rules.retention.rule_of(fact.addressees.audience.first) is not None:
            # Its rule may have removed it before anybody could see it, and without a number it is not known when.
            continue
        entitled = [stretch for witness, stretch in rights if fact.addressees.include(witness)]
        if any(around.are_complete_in(stretch, fact) for stretch in entitled for around in surroundings):
            text = f"{fact.message_id} was committed, and no client received it"
            yield Violation(Promise.TRANSACTIONS, text, excerpt=(fact,))


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Between which numbers of an epoch a message must be, by the time when it was published."""

    epoch: str
    answered: Sequence[float]
    highest: Sequence[int]
    """For each time in ``answered``, the highest number that was known by then."""
    submitted: Sequence[float]
    lowest: Sequence[int]
    """For each time in ``submitted``, the lowest number that was given to what was published from then on."""

    @classmethod
    def of(cls, epoch: str, known: Sequence[Acknowledged]) -> "_Surroundings":
        """Return them for the messages of an epoch."""
        by_answer = sorted(known, key=lambda fact: fact.at)
        by_submission = sorted(known, key=lambda fact: fact.submitted_at)
        lowest = [*accumulate((fact.number for fact in reversed(by_submission)), min)]
        return cls(
            epoch,
            [fact.at for fact in by_answer],
            [*accumulate((fact.number for fact in by_answer), max)],
            [fact.submitted_at for fact in by_submission],
            lowest[::-1],
        )

    def are_complete_in(self, stretch: Stretch, fact: Written) -> bool:
        """Return whether a client had a right to the message, whatever its number is, and no gap excuses its loss."""
        before = bisect_left(self.answered, fact.submitted_at) - 1
        after = bisect_right(self.submitted, fact.at)
        if stretch.epoch != self.epoch or before < 0 or after == len(self.submitted):
            return False
        return stretch.is_whole_between(self.highest[before], self.lowest[after])
