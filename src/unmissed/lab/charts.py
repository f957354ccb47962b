"""Pictures of what the laboratory found: bars for the figures of a benchmark, and the timeline of a verification."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from unmissed.lab.bench.figures import Figure, shortened
from unmissed.lab.faults import ProcessFault
from unmissed.lab.verify.facts import Delivered, Joined, Recorder

_BAR = 0.4
"""Height of a bar in rows."""

_BLOWS = frozenset(map(str, ProcessFault))


def plot_figures(runs: dict[str, Sequence[Figure]], file: Path) -> None:
    """Write a bar chart for each unit as PNG."""
    everything = [figure for figures in runs.values() for figure in figures]
    units = list(dict.fromkeys(figure.unit for figure in everything))
    canvas = Canvas(figsize=(10, 2.4 * len(units)), layout="constrained")
    for axes, unit in zip(canvas.subplots(len(units), squeeze=False).flat, units, strict=True):
        rows = list(dict.fromkeys(figure.label for figure in everything if figure.unit == unit))
        for index, (server, figures) in enumerate(runs.items()):
            shown = {figure.label: figure.value for figure in figures if figure.unit == unit}
            places = [rows.index(label) + index * _BAR for label in shown]
            bars = axes.barh(places, list(shown.values()), height=_BAR, label=server)
            axes.bar_label(bars, fmt=shortened, padding=3)
        axes.set_yticks([row + _BAR * (len(runs) - 1) / 2 for row in range(len(rows))], rows)
        axes.set_xlabel(unit)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.axes[0].legend()
    canvas.savefig(file, dpi=120)


def plot_run(recorder: Recorder, file: Path) -> None:
    """Write a timeline as PNG: deliveries a second, with the faults and the recoveries at their times."""
    start = recorder.facts[0].at
    canvas = Canvas(figsize=(12, 6), layout="constrained")
    flow, marks = canvas.subplots(2, height_ratios=(2, 1), sharex=True)
    flow.stairs(*_per_second(fact.at - start for fact in recorder.facts if isinstance(fact, Delivered)), fill=True)
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
    return [each.at - start for each in recorder.facts if isinstance(each, Joined) and each.outcome == outcome]


def _per_second(times: Iterable[float]) -> tuple[list[int], list[int]]:
    """Return how many times lie in each second, and the bounds of the seconds."""
    counts = Counter(int(time) for time in times)
    last = max(counts, default=0)
    return [counts[second] for second in range(last + 1)], [*range(last + 2)]
