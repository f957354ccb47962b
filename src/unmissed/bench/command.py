"""Runs the scenarios on one or two servers in turn, so that ratios come from one run."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from unmissed.bench.figures import Figure, as_json, plot, table
from unmissed.bench.scenarios import Load, measure
from unmissed.bench.server import Target, load_on_other_cores, started


def bench(
    load: Load,
    *,
    target: Target | None,
    compare: str | None,
    json_file: Path | None,
    plot_file: Path | None,
    show: Callable[[str], None],
) -> None:
    """Measure ``target``, or else a new server and ``compare``; show, save and plot the figures."""
    runs: dict[str, Sequence[Figure]] = {}
    with load_on_other_cores() as core:
        if target is not None:
            runs[target.name] = _run(target, load, show=show)
        else:
            for name in ("unmissed", *([compare] if compare else [])):
                with started(name, core=core) as own:
                    runs[name] = _run(own, load, show=show)
    show(f"\n{table(runs)}")
    if json_file is not None:
        json_file.write_text(as_json(runs))
    if plot_file is not None:
        plot(runs, plot_file)


def _run(target: Target, load: Load, *, show: Callable[[str], None]) -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(target, load, show=show))
