"""Checks the history of one client, event by event."""

from collections.abc import Iterator, Sequence

from unmissed.verify.events import ClientEvent, Delivered, Ended, GapDeclared, Joined, Reached, Reader
from unmissed.verify.lives import Life
from unmissed.verify.numbers import Numbers
from unmissed.verify.promises import Promise, Rules, Violation

_BEFORE = 4
_AFTER = 2
_SHOWN = 5


class Reading:
    """The history of one client, with what is wrong with it."""

    def __init__(self, reader: Reader, events: Sequence[ClientEvent], *, numbers: Numbers, rules: Rules) -> None:
        self.reader = reader
        self.lives: list[Life] = []
        self.violations: list[Violation] = []
        self._events = events
        self._numbers = numbers
        self._rules = rules
        for index, event in enumerate(events):
            self._take(index, event)
        self.violations += self._losses()
        if events and not isinstance(events[-1], Ended):
            self._violate(Promise.NO_SILENT_LOSS, "the client did not get everything in time", len(events) - 1)

    def owed(self, life: Life) -> Iterator[int]:
        """Yield the numbers that the client must have received within a life, or have been told that they are lost."""
        for number, audience in self._numbers.between(life.epoch, life.floor, life.position):
            if audience.includes(self.reader):
                yield number

    def _take(self, index: int, event: ClientEvent) -> None:
        match event:
            case Joined():
                self._join(index, event)
            case Delivered():
                self._deliver(index, event)
            case GapDeclared():
                self._declare(index, event, event.first, event.last)
            case Reached() | Ended():
                self.lives[-1].reach(event.number)

    def _join(self, index: int, event: Joined) -> None:
        life = self.lives[-1] if self.lives else None
        if life is None or event.since is None:
            self._begin(event)
        elif event.outcome == "reset":
            if event.epoch == life.epoch:
                self._violate(Promise.HONEST_RESETS, "a reset, and the epoch is still the same", index)
            self._begin(event)
        elif event.epoch != life.epoch:
            self._violate(Promise.HONEST_RESETS, f"the epoch {event.epoch} is new, and there is no reset", index)
            self._begin(event)
        else:
            life.reach(event.since)
            if event.outcome == "gap":
                self._declare(index, event, event.since + 1, event.position)
            life.reach(event.position)

    def _begin(self, event: Joined) -> None:
        self.lives.append(Life(event.epoch, event.position))

    def _deliver(self, index: int, event: Delivered) -> None:
        life = self.lives[-1]
        if event.number in life.seen:
            self._violate(Promise.NO_DUPLICATES, f"{event.number} came twice", index, event.number)
        elif event.number <= life.position:
            self._violate(Promise.ORDER, f"{event.number} came after {life.position}", index, event.number)
        life.seen.add(event.number)
        life.reach(event.number)
        audience = self._numbers.audience_of(event.message_id)
        if audience is not None and not audience.includes(self.reader):
            self._violate(Promise.PRIVACY, f"{event.number} is for others", index, event.number)

    def _declare(self, index: int, event: Joined | GapDeclared, first: int, last: int) -> None:
        life = self.lives[-1]
        if self._must_retain(event, first):
            self._violate(Promise.NO_FALSE_GAP, f"{first} to {last} must still have been retained", index, first)
        life.gaps.append((first, last))
        life.reach(last)

    def _must_retain(self, event: Joined | GapDeclared, first: int) -> bool:
        """Return whether the server had no reason to evict a number, by its own words or by those of its settings."""
        rules, numbers = self._rules, self._numbers
        latest = numbers.latest_at(event.epoch, event.at + rules.margin)
        if isinstance(event, Joined):
            if first >= event.oldest:
                return True
            latest = min(latest, event.latest)
        given_after = numbers.given_after(event.epoch, first)
        young = given_after is not None and event.at - given_after < rules.max_age - rules.margin
        return young and latest - first < rules.max_messages

    def _losses(self) -> Iterator[Violation]:
        for life in self.lives:
            lost = [number for number in self.owed(life) if not life.accounts_for(number)]
            if lost:
                shown = ", ".join(map(str, lost[:_SHOWN])) + (", ..." if len(lost) > _SHOWN else "")
                text = f"{len(lost)} lost: {shown}"
                index = self._index_after(life.epoch, lost[0])
                yield Violation(
                    Promise.NO_SILENT_LOSS, text, self.reader.name, numbers=tuple(lost), excerpt=self._around(index)
                )

    def _index_after(self, epoch: str, number: int) -> int:
        """Return the index of the first event by which the client had passed a number."""
        for index, event in enumerate(self._events):
            if event.epoch == epoch and _number_of(event) > number:
                return index
        return len(self._events) - 1

    def _violate(self, promise: Promise, text: str, index: int, *numbers: int) -> None:
        self.violations.append(Violation(promise, text, self.reader.name, numbers=numbers, excerpt=self._around(index)))

    def _around(self, index: int) -> tuple[ClientEvent, ...]:
        return tuple(self._events[max(0, index - _BEFORE) : index + _AFTER])


def _number_of(event: ClientEvent) -> int:
    match event:
        case Joined():
            return event.position
        case GapDeclared():
            return event.last
        case _:
            return event.number
