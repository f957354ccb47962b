"""The pictures of the laboratory."""

from pathlib import Path

import pytest

from unmissed.lab.bench.figures import Figure
from unmissed.lab.charts import plot_figures, plot_run
from unmissed.lab.verify.facts import Delivered, Joined, Recorder

pytestmark = pytest.mark.live

OURS = [Figure("fan-out", "CPU of a delivery", "us", 2.0), Figure("recovery", "rate", "1/s", 4_000.0)]
THEIRS = [Figure("fan-out", "CPU of a delivery", "us", 8.0)]


def test_the_figures_of_two_servers_are_a_png(tmp_path: Path) -> None:
    plot_figures({"unmissed": OURS, "tutorial": THEIRS}, tmp_path / "figures.png")

    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_the_timeline_of_a_run_is_a_png(tmp_path: Path) -> None:
    recorder = Recorder(clock=lambda: 11.0)
    recorder.add(Joined(10.0, "client-1", "e", 3, 3, "gap", 1, 9))
    recorder.add(Delivered(12.5, "client-1", "e", 9, "bytes", "x-9", "content"))
    recorder.note("kill -9 of a node", "node-0")

    plot_run(recorder, tmp_path / "run.png")

    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
