"""What a run knows about numbers, whichever client saw them: one message each, the same bytes, in order."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from unmissed.lab.verify.facts import Acknowledged, Addressees, Delivered, Fact, Joined
from unmissed.lab.verify.promises import Promise, Rules, Violation

Stamped = Acknowledged | Delivered
_Stamp = TypeVar("_Stamp", Acknowledged | Delivered, Delivered)


class Numbers:
    """The numbers of a run, collected from acknowledgements and from the deliveries of all clients."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._addressees: dict[str, Addressees] = {}
        messages: dict[str, dict[int, str]] = defaultdict(dict)
        submitted: dict[str, list[tuple[int, float]]] = defaultdict(list)
        observed: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for fact in facts:
            match fact:
                case Acknowledged():
                    self._addressees[fact.message_id] = fact.addressees
                    messages[fact.epoch][fact.number] = fact.message_id
                    submitted[fact.epoch].append((fact.number, fact.submitted_at))
                    observed[fact.epoch].append((fact.submitted_at, fact.number))
                case Delivered():
                    if fact.message_id is not None:
                        messages[fact.epoch].setdefault(fact.number, fact.message_id)
                    observed[fact.epoch].append((fact.at, fact.number))
                case Joined():
                    observed[fact.epoch].append((fact.at, fact.latest))
        self._known = {epoch: self._with_addressees(found) for epoch, found in messages.items()}
        self._submitted = {epoch: _columns(sorted(pairs)) for epoch, pairs in submitted.items()}
        self._latest = {epoch: _highest_by_time(pairs) for epoch, pairs in observed.items()}

    def addressees_of(self, message_id: str | None) -> Addressees | None:
        """Return to whom a message is addressed, or None if it was not acknowledged in this run."""
        return None if message_id is None else self._addressees.get(message_id)

    def between(self, epoch: str, floor: int, ceiling: int) -> Iterator[tuple[int, Addressees]]:
        """Yield the numbers above ``floor``, up to ``ceiling``, whose addressees are known, in order."""
        numbers, addressees = self._known.get(epoch, ([], []))
        start, end = bisect_right(numbers, floor), bisect_right(numbers, ceiling)
        yield from zip(numbers[start:end], addressees[start:end], strict=True)

    def latest_at(self, epoch: str, at: float) -> int:
        """Return a number that is not below any that the server had given at this time.

        Every number was submitted before it existed, or is of another publisher and was seen by a client since.
        """
        times, highest = self._latest[epoch]
        return highest[max(bisect_right(times, at) - 1, 0)]

    def given_after(self, epoch: str, number: int) -> float | None:
        """Return a time before which this number was not given, or None if no such time is known."""
        numbers, times = self._submitted.get(epoch, ([], []))
        index = bisect_right(numbers, number) - 1
        return times[index] if index >= 0 else None

    def _with_addressees(self, messages: dict[int, str]) -> tuple[list[int], list[Addressees]]:
        known = sorted((number, each) for number, each in messages.items() if each in self._addressees)
        return [number for number, _ in known], [self._addressees[message_id] for _, message_id in known]


def unanswered(facts: Sequence[Fact]) -> list[Acknowledged]:
    """Return the messages that only clients saw in an epoch, as if acknowledged when they were submitted.

    Their node was killed before it answered, so that their publishers received numbers of another epoch.
    """
    acknowledged = {fact.message_id: fact for fact in facts if isinstance(fact, Acknowledged)}
    answered = {(fact.epoch, fact.message_id) for fact in acknowledged.values()}
    found: dict[tuple[str, str], Acknowledged] = {}
    for fact in facts:
        if isinstance(fact, Delivered) and fact.message_id in acknowledged:
            place, known = (fact.epoch, fact.message_id), acknowledged[fact.message_id]
            if place not in answered and place not in found:
                found[place] = replace(known, at=known.submitted_at, epoch=fact.epoch, number=fact.number, node="")
    return [*found.values()]


def _columns(pairs: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    numbers, times = zip(*pairs, strict=True)
    return list(numbers), list(times)


def _highest_by_time(pairs: Iterable[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Return the times in order, and the highest number up to each of them."""
    times, numbers = zip(*sorted(pairs), strict=True)
    return list(times), list(accumulate(numbers, max))


def check_numbers(facts: Sequence[Fact], rules: Rules) -> Iterator[Violation]:
    """Yield what is wrong with numbers, bytes and epochs."""
    stamped = [fact for fact in facts if isinstance(fact, Stamped)]
    delivered = [fact for fact in stamped if isinstance(fact, Delivered)]
    yield from _reused([fact for fact in stamped if fact.message_id is not None])
    yield from _used_in_two_epochs(stamped)
    yield from _different_bytes(delivered)
    yield from _changed_contents(stamped)
    for before, fact in overtaken([fact for fact in stamped if isinstance(fact, Acknowledged)]):
        text = f"{fact.number} was published after {before.number} was acknowledged"
        yield _violation(Promise.ORDER, text, before, fact)
    if not rules.epoch_may_change:
        yield from _new_epochs(facts)


def _reused(ours: Sequence[Stamped]) -> Iterator[Violation]:
    """Yield numbers of two messages, and messages with two numbers."""
    for one, other in conflicts(
        ours, of=lambda fact: (fact.epoch, fact.number), differ_in=lambda fact: fact.message_id
    ):
        text = f"{one.number} is the number of {one.message_id} and of {other.message_id}"
        yield _violation(Promise.HONEST_RESETS, text, one, other)
    for one, other in conflicts(
        ours, of=lambda fact: (fact.epoch, fact.message_id), differ_in=lambda fact: fact.number
    ):
        text = f"{one.message_id} has the numbers {one.number} and {other.number}"
        yield _violation(Promise.NO_DUPLICATES, text, one, other)


def _used_in_two_epochs(stamped: Sequence[Stamped]) -> Iterator[Violation]:
    """Yield one number for each pair of epochs that share numbers."""
    shared = conflicts(stamped, of=lambda fact: fact.number, differ_in=lambda fact: fact.epoch)
    first: dict[tuple[str, str], tuple[Stamped, Stamped]] = {}
    for one, other in shared:
        first.setdefault((one.epoch, other.epoch), (one, other))
    for one, other in first.values():
        text = f"{other.number} is used in the epochs {one.epoch} and {other.epoch}"
        yield _violation(Promise.HONEST_RESETS, text, one, other)


def _different_bytes(delivered: Sequence[Delivered]) -> Iterator[Violation]:
    same = conflicts(
        delivered, of=lambda fact: (fact.epoch, fact.number, fact.message_id), differ_in=lambda fact: fact.digest
    )
    for one, other in same:
        text = f"{other.number} has other bytes for {other.client} than for {one.client}"
        yield _violation(Promise.SAME_BYTES, text, one, other)


def conflicts(
    facts: Iterable[_Stamp], *, of: Callable[[_Stamp], Hashable], differ_in: Callable[[_Stamp], Hashable]
) -> Iterator[tuple[_Stamp, _Stamp]]:
    """Yield the first fact about each thing with each later fact that contradicts it, once for each different value."""
    first: dict[Hashable, _Stamp] = {}
    reported: set[tuple[Hashable, Hashable]] = set()
    for fact in facts:
        thing, said = of(fact), differ_in(fact)
        one = first.setdefault(thing, fact)
        if differ_in(one) != said and (thing, said) not in reported:
            reported.add((thing, said))
            yield one, fact


def _changed_contents(stamped: Sequence[Stamped]) -> Iterator[Violation]:
    sent = {fact.message_id: fact for fact in stamped if isinstance(fact, Acknowledged)}
    for fact in stamped:
        known = sent.get(fact.message_id or "")
        if known is not None and known.content != fact.content:
            text = f"{fact.number} is not what its publisher sent"
            yield _violation(Promise.SAME_BYTES, text, known, fact)


def overtaken(acknowledged: Sequence[Acknowledged]) -> Iterator[tuple[Acknowledged, Acknowledged]]:
    """Yield messages with a higher number, acknowledged before the second message was first submitted."""
    answered = sorted(acknowledged, key=lambda fact: fact.at)
    highest: dict[str, Acknowledged] = {}
    done = 0
    for fact in sorted(acknowledged, key=lambda fact: fact.submitted_at):
        while answered[done].at < fact.submitted_at:
            earlier = answered[done]
            known = highest.setdefault(earlier.epoch, earlier)
            if earlier.number > known.number:
                highest[earlier.epoch] = earlier
            done += 1
        before = highest.get(fact.epoch)
        if before is not None and before.number > fact.number:
            yield before, fact


def _new_epochs(facts: Iterable[Fact]) -> Iterator[Violation]:
    known: dict[str, Fact] = {}
    for fact in facts:
        if isinstance(fact, Joined) and fact.epoch not in known:
            if known:
                first = next(iter(known.values()))
                text = f"the log was lost: it has the new epoch {fact.epoch}"
                yield Violation(Promise.HONEST_RESETS, text, excerpt=(first, fact))
            known[fact.epoch] = fact


def _violation(promise: Promise, text: str, *facts: Stamped) -> Violation:
    return Violation(promise, text, numbers=tuple(fact.number for fact in facts), excerpt=facts)
