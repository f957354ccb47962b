"""The results of a benchmark: figures with units, formatted as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_COMPARED = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, such as "CPU of a delivery" (``name``) in the scenario "one at a time"."""

    scenario: str
    name: str
    unit: str
    value: float

    @property
    def label(self) -> str:
        """What it measures, in one line."""
        return f"{self.scenario}: {self.name}"


def table(runs: dict[str, Sequence[Figure]]) -> str:
    """Return the figures of servers or logs side by side; of two, also the ratio of the first to the second."""
    rows = _rows(runs)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(runs: dict[str, Sequence[Figure]]) -> str:
    """Return the same table for a Markdown page."""
    head, *rows = (f"| {' | '.join(cells)} |" for cells in _rows(runs))
    return "\n".join([head, f"|{'---|' * (head.count('|') - 1)}", *rows]) + "\n"


def as_json(runs: dict[str, Sequence[Figure]]) -> str:
    """Return the figures as JSON: a list for each server."""
    return json.dumps({server: [asdict(figure) for figure in figures] for server, figures in runs.items()}, indent=2)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile at ``share``, which is between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def shortened(value: float) -> str:
    """Format a number: as an integer from 100 on, else with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rows(runs: dict[str, Sequence[Figure]]) -> list[list[str]]:
    servers = list(runs)
    rows = [["", *servers, *([f"{servers[0]} / {servers[1]}"] if len(servers) == _COMPARED else [])]]
    for first in runs[servers[0]]:
        values = [_value(runs[server], first) for server in servers]
        cells = ["-" if value is None else shortened(value) for value in values]
        if len(values) == _COMPARED:
            cells.append(f"{values[0] / values[1]:.2f}" if values[0] is not None and values[1] else "-")
        rows.append([f"{first.label}, {first.unit}", *cells])
    return rows


def _value(figures: Sequence[Figure], wanted: Figure) -> float | None:
    for figure in figures:
        if (figure.scenario, figure.name) == (wanted.scenario, wanted.name):
            return figure.value
    return None
