"""Checks the history of a run: pure, and in time proportional to the deliveries."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from unmissed.verify.events import Acknowledged, ClientEvent, Event, Reader
from unmissed.verify.numbers import Numbers
from unmissed.verify.promises import Promise, Rules, Violation
from unmissed.verify.reading import Reading
from unmissed.verify.stamps import check_stamps


def check(
    events: Sequence[Event], *, readers: Iterable[Reader], rules: Rules, broken: str | None = None
) -> list[Violation]:
    """Return every violation. The events of each client are in their order; ``readers`` are all clients.

    ``broken`` is the name of a client that loses messages by itself: only its own violations tell that.
    """
    numbers = Numbers(events)
    histories: dict[str, list[ClientEvent]] = defaultdict(list)
    for event in events:
        if not isinstance(event, Acknowledged):
            histories[event.client].append(event)
    readings = [Reading(reader, histories[reader.name], numbers=numbers, rules=rules) for reader in readers]
    violations = [*check_stamps(events, rules)]
    for reading in readings:
        violations += reading.violations
    violations += _forgotten(events, [reading for reading in readings if reading.reader.name != broken])
    return violations


def _forgotten(events: Iterable[Event], readings: Iterable[Reading]) -> Iterator[Violation]:
    """Yield acknowledged messages that reached none of those who had a right to them."""
    owed: set[tuple[str, int]] = set()
    kept: set[tuple[str, int]] = set()
    for reading in readings:
        for life in reading.lives:
            for number in reading.owed(life):
                owed.add((life.epoch, number))
                if life.accounts_for(number):
                    kept.add((life.epoch, number))
    forgotten = owed - kept
    for event in events:
        if isinstance(event, Acknowledged) and (event.epoch, event.number) in forgotten:
            text = f"{event.number} was acknowledged, and nobody received it"
            yield Violation(Promise.PUBLISH, text, numbers=(event.number,), excerpt=(event,))
