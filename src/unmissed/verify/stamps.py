"""Checks of the numbers themselves, whichever client saw them: one message each, the same bytes, in order."""

from collections.abc import Iterable, Iterator, Sequence

from unmissed.verify.events import Acknowledged, Delivered, Event, Joined
from unmissed.verify.promises import Promise, Rules, Violation

Stamped = Acknowledged | Delivered


def check_stamps(events: Sequence[Event], rules: Rules) -> Iterator[Violation]:
    """Yield what is wrong with numbers, bytes and epochs."""
    stamped = [event for event in events if isinstance(event, Stamped)]
    acknowledged = [event for event in stamped if isinstance(event, Acknowledged)]
    yield from _reused(stamped)
    yield from _published_twice(stamped)
    yield from _used_in_two_epochs(stamped)
    yield from _different_bytes(stamped)
    yield from _changed_contents(stamped)
    yield from _out_of_order(acknowledged)
    if not rules.epoch_may_change:
        yield from _new_epochs(events)


def _reused(stamped: Iterable[Stamped]) -> Iterator[Violation]:
    first: dict[tuple[str, int], Stamped] = {}
    reported: set[tuple[str, int, str]] = set()
    for event in stamped:
        if event.message_id is None:
            continue
        other = first.setdefault((event.epoch, event.number), event)
        found = (event.epoch, event.number, event.message_id)
        if other.message_id != event.message_id and found not in reported:
            reported.add(found)
            text = f"{event.number} is the number of {other.message_id} and of {event.message_id}"
            yield _violation(Promise.HONEST_RESETS, text, other, event)


def _published_twice(stamped: Iterable[Stamped]) -> Iterator[Violation]:
    first: dict[tuple[str, str], Stamped] = {}
    reported: set[tuple[str, str, int]] = set()
    for event in stamped:
        if event.message_id is None:
            continue
        other = first.setdefault((event.epoch, event.message_id), event)
        found = (event.epoch, event.message_id, event.number)
        if other.number != event.number and found not in reported:
            reported.add(found)
            text = f"{event.message_id} has the numbers {other.number} and {event.number}"
            yield _violation(Promise.NO_DUPLICATES, text, other, event)


def _used_in_two_epochs(stamped: Iterable[Stamped]) -> Iterator[Violation]:
    first: dict[int, Stamped] = {}
    reported: set[tuple[str, str]] = set()
    for event in stamped:
        other = first.setdefault(event.number, event)
        found = (other.epoch, event.epoch)
        if other.epoch != event.epoch and found not in reported:
            reported.add(found)
            text = f"{event.number} is used in the epochs {other.epoch} and {event.epoch}"
            yield _violation(Promise.HONEST_RESETS, text, other, event)


def _different_bytes(stamped: Iterable[Stamped]) -> Iterator[Violation]:
    first: dict[tuple[str, int], Delivered] = {}
    for event in stamped:
        if not isinstance(event, Delivered):
            continue
        other = first.setdefault((event.epoch, event.number), event)
        if other.digest != event.digest and other.message_id == event.message_id:
            text = f"{event.number} has other bytes for {event.client} than for {other.client}"
            yield _violation(Promise.SAME_BYTES, text, other, event)


def _changed_contents(stamped: Sequence[Stamped]) -> Iterator[Violation]:
    sent = {event.message_id: event for event in stamped if isinstance(event, Acknowledged)}
    for event in stamped:
        known = sent.get(event.message_id or "")
        if known is not None and known.content != event.content:
            text = f"{event.number} is not what its publisher sent"
            yield _violation(Promise.SAME_BYTES, text, known, event)


def _out_of_order(acknowledged: Sequence[Acknowledged]) -> Iterator[Violation]:
    """Yield messages whose number is below that of one that was acknowledged before they were first submitted."""
    answered = sorted(acknowledged, key=lambda event: event.at)
    highest: dict[str, Acknowledged] = {}
    done = 0
    for event in sorted(acknowledged, key=lambda event: event.submitted_at):
        while answered[done].at < event.submitted_at:
            earlier = answered[done]
            known = highest.setdefault(earlier.epoch, earlier)
            if earlier.number > known.number:
                highest[earlier.epoch] = earlier
            done += 1
        before = highest.get(event.epoch)
        if before is not None and before.number > event.number:
            text = f"{event.number} was published after {before.number} was acknowledged"
            yield _violation(Promise.ORDER, text, before, event)


def _new_epochs(events: Iterable[Event]) -> Iterator[Violation]:
    known: dict[str, Event] = {}
    for event in events:
        if isinstance(event, Joined) and event.epoch not in known:
            if known:
                first = next(iter(known.values()))
                text = f"the log was lost: it has the new epoch {event.epoch}"
                yield Violation(Promise.HONEST_RESETS, text, excerpt=(first, event))
            known[event.epoch] = event


def _violation(promise: Promise, text: str, *events: Stamped) -> Violation:
    return Violation(promise, text, numbers=tuple(event.number for event in events), excerpt=events)
