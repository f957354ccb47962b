"""What a run knows about the numbers of an epoch: which messages have them, and when they were given."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate

from unmissed.verify.events import Acknowledged, Audience, Delivered, Event, Joined


class Numbers:
    """The numbers of a run, collected from acknowledgements and from the deliveries of all clients."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._audiences: dict[str, Audience] = {}
        messages: dict[str, dict[int, str]] = defaultdict(dict)
        submitted: dict[str, list[tuple[int, float]]] = defaultdict(list)
        observed: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for event in events:
            match event:
                case Acknowledged():
                    self._audiences[event.message_id] = event.audience
                    messages[event.epoch][event.number] = event.message_id
                    submitted[event.epoch].append((event.number, event.submitted_at))
                    observed[event.epoch].append((event.submitted_at, event.number))
                case Delivered():
                    if event.message_id is not None:
                        messages[event.epoch].setdefault(event.number, event.message_id)
                    observed[event.epoch].append((event.at, event.number))
                case Joined():
                    observed[event.epoch].append((event.at, event.latest))
        self._known = {epoch: self._with_audiences(found) for epoch, found in messages.items()}
        self._submitted = {epoch: _columns(sorted(pairs)) for epoch, pairs in submitted.items()}
        self._latest = {epoch: _highest_by_time(pairs) for epoch, pairs in observed.items()}

    def audience_of(self, message_id: str | None) -> Audience | None:
        """Return to whom a message is addressed, or None if it was not acknowledged in this run."""
        return None if message_id is None else self._audiences.get(message_id)

    def between(self, epoch: str, floor: int, ceiling: int) -> Iterator[tuple[int, Audience]]:
        """Yield the numbers above ``floor``, up to ``ceiling``, whose audience is known, in order."""
        numbers, audiences = self._known.get(epoch, ([], []))
        start, end = bisect_right(numbers, floor), bisect_right(numbers, ceiling)
        yield from zip(numbers[start:end], audiences[start:end], strict=True)

    def latest_at(self, epoch: str, at: float) -> int:
        """Return a number that is not below any that the server had given at this time.

        Every number that exists was submitted before, or is that of another publisher and was seen by somebody since.
        """
        times, highest = self._latest[epoch]
        return highest[max(bisect_right(times, at) - 1, 0)]

    def given_after(self, epoch: str, number: int) -> float | None:
        """Return a time before which this number was not given, or None if no such time is known."""
        numbers, times = self._submitted.get(epoch, ([], []))
        index = bisect_right(numbers, number) - 1
        return times[index] if index >= 0 else None

    def _with_audiences(self, messages: dict[int, str]) -> tuple[list[int], list[Audience]]:
        known = sorted((number, message_id) for number, message_id in messages.items() if message_id in self._audiences)
        return [number for number, _ in known], [self._audiences[message_id] for _, message_id in known]


def _columns(pairs: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    numbers, times = zip(*pairs, strict=True)
    return list(numbers), list(times)


def _highest_by_time(pairs: Iterable[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Return the times in order, and the highest number up to each of them."""
    times, numbers = zip(*sorted(pairs), strict=True)
    return list(times), list(accumulate(numbers, max))
