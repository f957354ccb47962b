"""The picture of a run: deliveries a second, with the faults and the recoveries at their times."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unmissed.core.errors import ConfigurationError
from unmissed.verify.chaos import ProcessFault
from unmissed.verify.events import Delivered, Joined
from unmissed.verify.recorder import Recorder

_BLOWS = frozenset(map(str, ProcessFault))


def require_matplotlib() -> None:
    """Raise ConfigurationError without matplotlib: before a run, and not after it."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  # an optional dependency, slow to import
    except ImportError:
        raise ConfigurationError("--plot needs matplotlib: pip install 'unmissed[plot]'") from None


def plot(recorder: Recorder, file: Path) -> None:
    """Write a timeline as PNG. Raises ConfigurationError without matplotlib."""
    require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415

    start = recorder.events[0].at
    canvas = Figure(figsize=(12, 6), layout="constrained")
    flow, marks = canvas.subplots(2, height_ratios=(2, 1), sharex=True)
    flow.stairs(*_per_second(event.at - start for event in recorder.events if isinstance(event, Delivered)), fill=True)
    flow.set_ylabel("deliveries per second")
    rows = {
        "faults": [each.at - start for each in recorder.incidents if each.kind not in _BLOWS],
        "processes killed or suspended": [each.at - start for each in recorder.incidents if each.kind in _BLOWS],
        **{outcome: _joins(recorder, outcome, start) for outcome in ("complete", "gap", "reset")},
    }
    marks.eventplot(list(rows.values()), colors=["gray", "red", "green", "orange", "purple"], linelengths=0.8)
    marks.set_yticks(range(len(rows)), [f"{name} ({len(times):,})" for name, times in rows.items()])
    marks.set_xlabel("seconds")
    for time in rows["processes killed or suspended"]:
        flow.axvline(time, color="red", linewidth=0.8)
    canvas.savefig(file, dpi=120)


def _joins(recorder: Recorder, outcome: str, start: float) -> list[float]:
    return [each.at - start for each in recorder.events if isinstance(each, Joined) and each.outcome == outcome]


def _per_second(times: Iterable[float]) -> tuple[list[int], list[int]]:
    """Return how many times lie in each second, and the bounds of the seconds."""
    counts = Counter(int(time) for time in times)
    last = max(counts, default=0)
    return [counts[second] for second in range(last + 1)], [*range(last + 2)]
