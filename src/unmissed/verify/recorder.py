"""Collects the events of a run, and the faults that were caused meanwhile."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from unmissed.verify.events import Event, Joined, Reader


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault that was caused, such as a cut connection or a killed process. ``at`` is in monotonic seconds."""

    at: float
    kind: str
    target: str = ""


class Recorder:
    """The history of a run, in the order in which it was observed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.events: list[Event] = []
        self.incidents: list[Incident] = []
        self.readers: dict[str, Reader] = {}
        self.counts: Counter[str] = Counter()
        """Events by the names of their classes, and ``reconnects``, ``gaps`` and ``resets``."""
        self.clock = clock

    def introduce(self, reader: Reader) -> None:
        """Add a client, whose history will be checked."""
        self.readers[reader.name] = reader

    def add(self, event: Event) -> None:
        """Add what was observed."""
        self.events.append(event)
        self.counts[type(event).__name__] += 1
        if isinstance(event, Joined):
            self.counts["reconnects"] += event.since is not None
            self.counts[f"{event.outcome}s"] += 1

    def note(self, kind: str, target: str = "") -> None:
        """Add a fault that was caused now."""
        self.incidents.append(Incident(self.clock(), kind, target))
