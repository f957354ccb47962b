"""The results of a benchmark: figures with units, formatted as a table, as JSON or as a chart."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unmissed.core.errors import ConfigurationError

_BAR = 0.4
"""Height of a bar in rows."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, such as "CPU of a delivery" (``name``) in the scenario "one at a time"."""

    scenario: str
    name: str
    unit: str
    value: float


def table(runs: dict[str, Sequence[Figure]]) -> str:
    """Return the figures of one or two servers side by side, with the ratio of the first to the second."""
    servers = list(runs)
    rows = [["", *servers, *([f"{servers[0]} / {servers[1]}"] if len(servers) > 1 else [])]]
    for first in runs[servers[0]]:
        values = [_value(runs[server], first) for server in servers]
        cells = ["-" if value is None else _text(value) for value in values]
        if len(values) > 1:
            cells.append(f"{values[0] / values[1]:.2f}" if values[0] is not None and values[1] else "-")
        rows.append([f"{first.scenario}: {first.name}, {first.unit}", *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_json(runs: dict[str, Sequence[Figure]]) -> str:
    """Return the figures as JSON: a list for each server."""
    return json.dumps({server: [asdict(figure) for figure in figures] for server, figures in runs.items()}, indent=2)


def plot(runs: dict[str, Sequence[Figure]], file: Path) -> None:
    """Write a bar chart for each unit as PNG. Raises ConfigurationError without matplotlib."""
    try:
        from matplotlib.figure import Figure as Canvas  # noqa: PLC0415  # an optional dependency, slow to import
    except ImportError:
        raise ConfigurationError("--plot needs matplotlib: pip install 'unmissed[plot]'") from None
    everything = [figure for figures in runs.values() for figure in figures]
    units = list(dict.fromkeys(figure.unit for figure in everything))
    canvas = Canvas(figsize=(10, 2.4 * len(units)), layout="constrained")
    for axes, unit in zip(canvas.subplots(len(units), squeeze=False).flat, units, strict=True):
        rows = list(dict.fromkeys(_label(figure) for figure in everything if figure.unit == unit))
        for index, (server, figures) in enumerate(runs.items()):
            shown = {_label(figure): figure.value for figure in figures if figure.unit == unit}
            places = [rows.index(label) + index * _BAR for label in shown]
            bars = axes.barh(places, list(shown.values()), height=_BAR, label=server)
            axes.bar_label(bars, fmt=_text, padding=3)
        axes.set_yticks([row + _BAR * (len(runs) - 1) / 2 for row in range(len(rows))], rows)
        axes.set_xlabel(unit)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.axes[0].legend()
    canvas.savefig(file, dpi=120)


def _text(value: float) -> str:
    """Format a number: as an integer from 100 on, else with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _label(figure: Figure) -> str:
    return f"{figure.scenario}: {figure.name}"


def _value(figures: Sequence[Figure], wanted: Figure) -> float | None:
    for figure in figures:
        if (figure.scenario, figure.name) == (wanted.scenario, wanted.name):
            return figure.value
    return None
