"""Judges the histories of a run: pure, and in time proportional to the deliveries."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from unmissed.lab.verify.facts import (
    Acknowledged,
    ClientFact,
    Delivered,
    Ended,
    Fact,
    GapDeclared,
    Joined,
    Reached,
    Witness,
)
from unmissed.lab.verify.numbering import Numbers, check_numbers
from unmissed.lab.verify.promises import Promise, Rules, Violation

_BEFORE = 4
_AFTER = 2
_SHOWN = 5


@dataclass(slots=True)
class Stretch:
    """A part of one client's history without a reset. The client has a right to (``floor``, ``position``]."""

    epoch: str
    floor: int
    position: int = field(init=False)
    seen: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.position = self.floor

    def reach(self, number: int) -> None:
        """Move the position, which never goes back."""
        self.position = max(self.position, number)

    def accounts_for(self, number: int) -> bool:
        """Return whether the client received this number, or a gap that covers it."""
        return number in self.seen or any(first <= number <= last for first, last in self.gaps)


class Testimony:
    """The history of one client, with what is wrong with it."""

    def __init__(self, witness: Witness, facts: Sequence[ClientFact], *, numbers: Numbers, rules: Rules) -> None:
        self.witness = witness
        self.stretches: list[Stretch] = []
        self.violations: list[Violation] = []
        self._facts = facts
        self._numbers = numbers
        self._rules = rules
        for index, fact in enumerate(facts):
            self._take(index, fact)
        self.violations += self._losses()
        if facts and not isinstance(facts[-1], Ended):
            self._violate(Promise.NO_SILENT_LOSS, "the client did not get everything in time", len(facts) - 1)

    def owed(self, stretch: Stretch) -> Iterator[int]:
        """Yield the numbers that the client must have received within a stretch, unless a gap covers them."""
        for number, addressees in self._numbers.between(stretch.epoch, stretch.floor, stretch.position):
            if addressees.include(self.witness):
                yield number

    def _take(self, index: int, fact: ClientFact) -> None:
        match fact:
            case Joined():
                self._join(index, fact)
            case Delivered():
                self._deliver(index, fact)
            case GapDeclared():
                self._declare(index, fact, fact.first, fact.last)
            case Reached() | Ended():
                self.stretches[-1].reach(fact.number)

    def _join(self, index: int, fact: Joined) -> None:
        stretch = self.stretches[-1] if self.stretches else None
        if stretch is None or fact.since is None:
            self._begin(fact)
        elif fact.outcome == "reset":
            if fact.epoch == stretch.epoch:
                self._violate(Promise.HONEST_RESETS, "a reset, and the epoch is still the same", index)
            self._begin(fact)
        elif fact.epoch != stretch.epoch:
            self._violate(Promise.HONEST_RESETS, f"the epoch {fact.epoch} is new, and no reset was declared", index)
            self._begin(fact)
        else:
            # What the client claims to have, then what the server declares lost: the gap begins after the claim.
            stretch.reach(fact.since)
            if fact.lost is not None:
                self._declare(index, fact, *fact.lost)
            stretch.reach(fact.position)

    def _begin(self, fact: Joined) -> None:
        self.stretches.append(Stretch(fact.epoch, fact.position))

    def _deliver(self, index: int, fact: Delivered) -> None:
        stretch = self.stretches[-1]
        if fact.number in stretch.seen:
            self._violate(Promise.NO_DUPLICATES, f"{fact.number} came twice", index, fact.number)
        elif fact.number <= stretch.position:
            self._violate(Promise.ORDER, f"{fact.number} came after {stretch.position}", index, fact.number)
        stretch.seen.add(fact.number)
        stretch.reach(fact.number)
        addressees = self._numbers.addressees_of(fact.message_id)
        if addressees is not None and not addressees.include(self.witness):
            self._violate(Promise.PRIVACY, f"{fact.number} is not addressed to this client", index, fact.number)

    def _declare(self, index: int, fact: Joined | GapDeclared, first: int, last: int) -> None:
        stretch = self.stretches[-1]
        if self._must_retain(fact, last):
            self._violate(Promise.NO_FALSE_GAP, f"{first} to {last}: the last must still be retained", index, last)
        stretch.gaps.append((first, last))

    def _must_retain(self, fact: Joined | GapDeclared, number: int) -> bool:
        """Return whether the server must still have this number, by its own answer or by its settings."""
        rules, numbers = self._rules, self._numbers
        latest = numbers.latest_at(fact.epoch, fact.at + rules.margin)
        if isinstance(fact, Joined):
            if number >= fact.oldest:
                return True
            latest = min(latest, fact.latest)
        given_after = numbers.given_after(fact.epoch, number)
        young = given_after is not None and fact.at - given_after < rules.max_age - rules.margin
        return young and latest - number < rules.max_messages

    def _losses(self) -> Iterator[Violation]:
        for stretch in self.stretches:
            lost = [number for number in self.owed(stretch) if not stretch.accounts_for(number)]
            if lost:
                shown = ", ".join(map(str, lost[:_SHOWN])) + (", ..." if len(lost) > _SHOWN else "")
                text = f"{len(lost)} lost: {shown}"
                index = self._index_after(stretch.epoch, lost[0])
                yield Violation(
                    Promise.NO_SILENT_LOSS, text, self.witness.name, numbers=tuple(lost), excerpt=self._around(index)
                )

    def _index_after(self, epoch: str, number: int) -> int:
        """Return the index of the first fact by which the client had passed a number."""
        for index, fact in enumerate(self._facts):
            if fact.epoch == epoch and _number_of(fact) > number:
                return index
        return len(self._facts) - 1

    def _violate(self, promise: Promise, text: str, index: int, *numbers: int) -> None:
        self.violations.append(
            Violation(promise, text, self.witness.name, numbers=numbers, excerpt=self._around(index))
        )

    def _around(self, index: int) -> tuple[ClientFact, ...]:
        return tuple(self._facts[max(0, index - _BEFORE) : index + _AFTER])


def check(
    facts: Sequence[Fact], *, witnesses: Iterable[Witness], rules: Rules, broken: str | None = None
) -> list[Violation]:
    """Return every violation. The facts of each client are in their order; ``witnesses`` are all clients.

    ``broken`` is the name of a client that loses messages on purpose: its losses alone make no message forgotten.
    """
    numbers = Numbers(facts)
    histories: dict[str, list[ClientFact]] = defaultdict(list)
    for fact in facts:
        if not isinstance(fact, Acknowledged):
            histories[fact.client].append(fact)
    testimonies = [Testimony(witness, histories[witness.name], numbers=numbers, rules=rules) for witness in witnesses]
    violations = [*check_numbers(facts, rules)]
    for testimony in testimonies:
        violations += testimony.violations
    violations += _forgotten(facts, [testimony for testimony in testimonies if testimony.witness.name != broken])
    return violations


def _forgotten(facts: Iterable[Fact], testimonies: Iterable[Testimony]) -> Iterator[Violation]:
    """Yield acknowledged messages that were received by none of the clients with a right to them."""
    owed: set[tuple[str, int]] = set()
    kept: set[tuple[str, int]] = set()
    for testimony in testimonies:
        for stretch in testimony.stretches:
            for number in testimony.owed(stretch):
                owed.add((stretch.epoch, number))
                if stretch.accounts_for(number):
                    kept.add((stretch.epoch, number))
    forgotten = owed - kept
    for fact in facts:
        if isinstance(fact, Acknowledged) and (fact.epoch, fact.number) in forgotten:
            text = f"{fact.number} was acknowledged, and no client received it"
            yield Violation(Promise.PUBLISH, text, numbers=(fact.number,), excerpt=(fact,))


def _number_of(fact: ClientFact) -> int:
    match fact:
        case Joined():
            return fact.position
        case GapDeclared():
            return fact.first - 1
        case _:
            return fact.number
