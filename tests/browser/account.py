"""What pages received, checked against what was published."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from unmissed.core.errors import UnmissedError
from unmissed.testing import LiveServer

RATE = 50
FIGURES = ("received", "recovered", "resets", "told as lost", "lost", "duplicates", "out of order")

RECORDING = """
const notes = JSON.parse(sessionStorage.notes ?? "[]");
addEventListener("pagehide", () => (sessionStorage.notes = JSON.stringify(notes)));
globalThis.record = async (token, options) => {
  const { connect } = await import("/websocket/client.js");
  const note = (...facts) => notes.push([stream.epoch, ...facts]);
  globalThis.stream = connect(location.origin, { token: async () => token, storage: sessionStorage, ...options });
  stream.on("*", ({ sequence_number, recovered }) => note("message", sequence_number, recovered));
  stream.addEventListener("gap", ({ detail }) => note("gap", detail.from, detail.to));
  stream.addEventListener("reset", () => note("reset"));
};
globalThis.takeNotes = () => notes.splice(0);
"""
"""The script of a page that notes what its stream receives, also over reloads."""


@dataclass
class Account:
    """What one page received, checked against what was published."""

    first: dict[str, int] = field(default_factory=dict)
    """For each epoch, the number after which the page must see everything."""
    seen: dict[str, list[int]] = field(default_factory=dict)
    told: dict[str, set[int]] = field(default_factory=dict)
    """The numbers that gaps told about."""
    resets: list[str] = field(default_factory=list)
    """The epochs that began with a reset."""
    recovered: int = 0

    def add(self, notes: list[list[Any]]) -> None:
        for epoch, kind, *facts in notes:
            match kind:
                case "message":
                    self.seen.setdefault(epoch, []).append(facts[0])
                    self.recovered += facts[1]
                case "gap":
                    self.told.setdefault(epoch, set()).update(range(facts[0], facts[1] + 1))
                case "reset":
                    self.resets.append(epoch)

    def figures(self, published: dict[str, list[int]]) -> Counter[str]:
        """Return the counts. A reset tells that the rest of the epochs before it is lost."""
        counts = Counter({**dict.fromkeys(FIGURES, 0), "recovered": self.recovered, "resets": len(self.resets)})
        epochs = [*published]
        for index, epoch in enumerate(epochs):
            seen = self.seen.get(epoch, [])
            missing = {number for number in published[epoch] if number > self.first.get(epoch, 0)} - set(seen)
            told = self.told.get(epoch, set())
            if set(epochs[index + 1 :]) & set(self.resets):
                told = told | {number for number in missing if number > max(seen, default=0)}
            counts["untold resets"] += bool(seen) and epoch not in {*self.first, *self.resets}
            counts["received"] += len(seen)
            counts["told as lost"] += len(missing & told)
            counts["lost"] += len(missing - told)
            counts["duplicates"] += len(seen) - len(set(seen))
            counts["out of order"] += sum(after <= before for before, after in pairwise(seen))
        return counts


class Publisher:
    """Publishes ``RATE`` messages a second in a thread, whatever the server does."""

    def __init__(self, server: LiveServer) -> None:
        self.published: dict[str, list[int]] = {}
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due += 1 / RATE
            manager = self._server.manager
            try:
                number = manager.publish_threadsafe({"type": "tick"}, timeout=5).sequence_number
                self.published.setdefault(manager.window.epoch, []).append(number)
            except (UnmissedError, TimeoutError, RuntimeError):
                continue
