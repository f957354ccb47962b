"""Judges the histories of a run: pure, and in time proportional to the deliveries."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from unmissed.lab.verify.commits import check_transactions, numbered
from unmissed.lab.verify.facts import (
    Acknowledged,
    ClientFact,
    Delivered,
    DeliveredLive,
    Ended,
    Fact,
    GapDeclared,
    Joined,
    PublisherFact,
    Reached,
    StateComplete,
    StateValue,
    Witness,
)
from unmissed.lab.verify.numbering import Numbers, check_numbers, unanswered
from unmissed.lab.verify.obligations import Obligations
from unmissed.lab.verify.promises import Promise, Rules, Violation
from unmissed.lab.verify.stretches import Stretch

_BEFORE = 4
_AFTER = 2
_SHOWN = 5


class Testimony:
    """The history of one client, with what is wrong with it."""

    def __init__(self, witness: Witness, facts: Sequence[ClientFact], *, numbers: Numbers, owes: Obligations) -> None:
        self.witness = witness
        self.stretches: list[Stretch] = []
        self.violations: list[Violation] = []
        self._facts = facts
        self._numbers = numbers
        self._owes = owes
        self._told: list[int] = []
        """The last numbers of the gaps that were declared on this connection."""
        self._values: list[int] = []
        """The values of a state that is not complete yet."""
        self._live: dict[str, float] = {}
        """For each node, when the last ephemeral message that this connection brought was sent through it."""
        self._live_seen: set[str] = set()
        for index, fact in enumerate(facts):
            self._take(index, fact)
        for stretch in self.stretches:
            self._check_owed(stretch)
        if facts and not isinstance(facts[-1], Ended):
            self._violate(Promise.NO_SILENT_LOSS, "the client did not get everything in time", len(facts) - 1)

    def owed(self, stretch: Stretch) -> Iterator[int]:
        """Yield the numbers that the client must have received within a stretch, unless a gap covers them."""
        for number, addressees in self._numbers.between(stretch.epoch, stretch.floor, stretch.position):
            if addressees.include(self.witness):
                yield number

    def _take(self, index: int, fact: ClientFact) -> None:
        if not self.stretches and not isinstance(fact, Joined):
            self._violate(Promise.NO_SILENT_LOSS, "the client has no position yet: `connected` is missing", index)
            return
        match fact:
            case Joined():
                self._told, self._values, self._live = [], [], {}
                self._join(index, fact)
            case StateValue():
                self._values.append(fact.number)
                self._check_addressees(index, fact)
            case StateComplete():
                self._check_state(index, fact)
            case Delivered():
                self._deliver(index, fact)
            case DeliveredLive():
                self._deliver_live(index, fact)
            case GapDeclared():
                if fact.position >= fact.first or fact.first <= self.stretches[-1].position:
                    self._violate(Promise.NO_FALSE_GAP, f"{fact.first} to {fact.last}: it moves the position", index)
                self.stretches[-1].reach(fact.position, index)
                self._declare(index, fact, fact.first, fact.last)
            case Reached() | Ended():
                self.stretches[-1].reach(fact.number, index)

    def _join(self, index: int, fact: Joined) -> None:
        if self._owes.rules.several_nodes:
            # A client that moves may get ahead of the note that brings a message to its next node.
            self._live_seen = set()
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
            stretch.reach(fact.since, index)
            if fact.lost is not None:
                self._declare(index, fact, *fact.lost)
            stretch.reach(fact.position, index)

    def _begin(self, fact: Joined) -> None:
        stretch = Stretch(fact.epoch, fact.position)
        self.stretches.append(stretch)
        if fact.outcome == "reset":
            # Everything evicted so far counts as declared lost. What is retained follows, and is checked.
            stretch.gaps.append((fact.position + 1, fact.latest))
        elif fact.lost is not None:
            stretch.gaps.append(fact.lost)

    def _deliver(self, index: int, fact: Delivered) -> None:
        stretch = self.stretches[-1]
        if fact.number in stretch.seen:
            self._violate(Promise.NO_DUPLICATES, f"{fact.number} came twice", index, fact.number)
        elif fact.number <= stretch.position:
            self._violate(Promise.ORDER, f"{fact.number} came after {stretch.position}", index, fact.number)
        stretch.seen.add(fact.number)
        stretch.reach(fact.number, index)
        if fact.number in self._told and self._owes.is_ordinary(fact.epoch, fact.number):
            self._violate(Promise.NO_FALSE_GAP, f"{fact.number} came after it was declared lost", index, fact.number)
        self._check_addressees(index, fact)
        if fact.message_id in self._owes.live:
            self._violate(Promise.EPHEMERAL, f"{fact.message_id} has the number {fact.number}", index, fact.number)
        known = self._owes.acknowledged(fact.epoch, fact.number)
        if known is not None and known.at < self._live.get(known.node, 0.0):
            text = f"{fact.number} came after an ephemeral message that was published later"
            self._violate(Promise.EPHEMERAL, text, index, fact.number)

    def _check_addressees(self, index: int, fact: Delivered) -> None:
        addressees = self._numbers.addressees_of(fact.message_id)
        if addressees is not None and not addressees.include(self.witness):
            self._violate(Promise.PRIVACY, f"{fact.number} is not addressed to this client", index, fact.number)

    def _deliver_live(self, index: int, fact: DeliveredLive) -> None:
        sent = self._owes.live.get(fact.message_id or "")
        if sent is None:
            return
        if sent.message_id in self._live_seen:
            self._violate(Promise.EPHEMERAL, f"{sent.message_id} came twice", index)
        elif fact.begun_at > sent.at + self._owes.rules.live_seconds:
            self._violate(Promise.EPHEMERAL, f"{sent.message_id} was recovered", index)
        if sent.content != fact.content:
            self._violate(Promise.SAME_BYTES, f"{sent.message_id} is not what its publisher sent", index)
        if not sent.addressees.include(self.witness):
            self._violate(Promise.PRIVACY, f"{sent.message_id} is not addressed to this client", index)
        self._live_seen.add(sent.message_id)
        if sent.node:
            self._live[sent.node] = max(sent.submitted_at, self._live.get(sent.node, 0.0))

    def _check_state(self, index: int, fact: StateComplete) -> None:
        """Compare a state with the truth at its number. What was replaced in the meantime follows as messages."""
        got, self._values = set(self._values), []
        epoch, number = fact.epoch, fact.number
        if number != self.stretches[-1].position:
            self._violate(Promise.STATE, f"it is cut at {number}, and delivery begins elsewhere", index)
        values = self._owes.state(epoch, self.witness, through=number)
        current = {part for parts in values for part in parts}
        for each in sorted(got - current):
            if self._owes.acknowledged(epoch, each) is not None:
                self._violate(Promise.STATE, f"{each} was no value at {number}", index, each)
        for parts in values:
            has = [part for part in parts if part in got]
            if has == parts or self._owes.replaced(epoch, parts[0], before=fact.at):
                continue
            known = [self._owes.acknowledged(epoch, part) for part in parts]
            excerpt = (*(part for part in known if part is not None), *self._around(index))
            if has != parts[len(parts) - len(has) :]:
                self._violate(Promise.STATE, f"{has[0]} is only a part of its value", index, *has, excerpt=excerpt)
            elif self._owes.must_show(epoch, parts, at=fact.at):
                self._violate(Promise.STATE, f"{parts[0]} is missing", index, *parts, excerpt=excerpt)

    def _declare(self, index: int, fact: Joined | GapDeclared, first: int, last: int) -> None:
        stretch = self.stretches[-1]
        latest = fact.latest if isinstance(fact, Joined) else None
        if self._owes.must_retain(fact.epoch, last, at=fact.at, latest=latest):
            self._violate(Promise.NO_FALSE_GAP, f"{first} to {last}: the last must still be retained", index, last)
        elif any(last <= told for told in self._told):
            self._violate(Promise.NO_FALSE_GAP, f"{first} to {last}: it was declared before", index, last)
        else:
            self._told.append(last)
        stretch.gaps.append((first, last))

    def _check_owed(self, stretch: Stretch) -> None:
        """Find what has neither come nor was replaced: it must be in a gap, and then its rule must not retain it."""
        lost, retained = list[int](), list[int]()
        for number in self.owed(stretch):
            if number in stretch.seen:
                continue
            in_a_gap = stretch.is_in_a_gap(number)
            passed_at = self._facts[stretch.index_of(number)].at
            if self._owes.replaced(stretch.epoch, number, before=passed_at):
                stretch.replaced.add(number)
            elif not in_a_gap:
                lost.append(number)
            elif self._owes.must_retain(stretch.epoch, number, at=passed_at):
                retained.append(number)
        self._report(Promise.NO_SILENT_LOSS, "lost", lost, stretch)
        self._report(Promise.RULES, "declared lost, and must still be retained", retained, stretch)

    def _report(self, promise: Promise, text: str, numbers: Sequence[int], stretch: Stretch) -> None:
        if numbers:
            shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
            index = stretch.index_of(numbers[0])
            self._violate(promise, f"{len(numbers)} {text}: {shown}", index, *numbers)

    def _violate(
        self, promise: Promise, text: str, index: int, *numbers: int, excerpt: tuple[Fact, ...] | None = None
    ) -> None:
        shown = self._around(index) if excerpt is None else excerpt
        self.violations.append(Violation(promise, text, self.witness.name, numbers=numbers, excerpt=shown))

    def _around(self, index: int) -> tuple[ClientFact, ...]:
        return tuple(self._facts[max(0, index - _BEFORE) : index + _AFTER])


def check(
    facts: Sequence[Fact], *, witnesses: Iterable[Witness], rules: Rules, broken: str | None = None
) -> list[Violation]:
    """Return every violation. The facts of each client are in their order; ``witnesses`` are all clients.

    ``broken`` is the name of a client that loses messages on purpose: its losses alone make no message forgotten.
    """
    committed = numbered(facts)
    published = [*facts, *unanswered(facts), *committed]
    numbers = Numbers(published)
    owes = Obligations(published, numbers=numbers, rules=rules)
    histories: dict[str, list[ClientFact]] = defaultdict(list)
    for fact in facts:
        if not isinstance(fact, PublisherFact):
            histories[fact.client].append(fact)
    testimonies = [Testimony(witness, histories[witness.name], numbers=numbers, owes=owes) for witness in witnesses]
    violations = [*check_numbers(facts, rules)]
    for testimony in testimonies:
        violations += testimony.violations
    sound = [testimony for testimony in testimonies if testimony.witness.name != broken]
    violations += _forgotten(facts, sound)
    rights = [(testimony.witness, stretch) for testimony in sound for stretch in testimony.stretches]
    violations += check_transactions(facts, numbered=committed, rights=rights, rules=rules)
    return violations


def _forgotten(facts: Iterable[Fact], testimonies: Iterable[Testimony]) -> Iterator[Violation]:
    """Yield acknowledged messages that were received by none of the clients with a right to them."""
    owed: set[tuple[str, int]] = set()
    kept: set[tuple[str, int]] = set()
    for testimony in testimonies:
        for stretch in testimony.stretches:
            for number in testimony.owed(stretch):
                owed.add((stretch.epoch, number))
                if number in stretch.seen or number in stretch.replaced or stretch.is_in_a_gap(number):
                    kept.add((stretch.epoch, number))
    forgotten = owed - kept
    for fact in facts:
        if isinstance(fact, Acknowledged) and (fact.epoch, fact.number) in forgotten:
            text = f"{fact.number} was acknowledged, and no client received it"
            yield Violation(Promise.PUBLISH, text, numbers=(fact.number,), excerpt=(fact,))
