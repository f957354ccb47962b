"""The figures of a benchmark, as a table, as JSON, as a picture."""

import json
import sys
from pathlib import Path

import pytest

from unmissed.bench.figures import Figure, as_json, plot, table
from unmissed.core.errors import ConfigurationError

OURS = [Figure("fan-out", "CPU of a delivery", "us", 2.0), Figure("recovery", "rate", "1/s", 4_000.0)]
THEIRS = [Figure("fan-out", "CPU of a delivery", "us", 8.0)]


def test_one_server_is_a_column() -> None:
    lines = table({"unmissed": OURS}).splitlines()

    assert ["unmissed"] == lines[0].split()
    assert lines[1].endswith("    2")
    assert lines[2].endswith("4,000")


def test_two_servers_are_two_columns_and_their_ratio() -> None:
    lines = table({"unmissed": OURS, "tutorial": THEIRS}).splitlines()

    assert ["2", "8", "0.25"] == lines[1].split()[-3:]
    assert ["4,000", "-", "-"] == lines[2].split()[-3:]


def test_json_holds_every_figure_with_its_unit() -> None:
    decoded = json.loads(as_json({"unmissed": OURS, "tutorial": THEIRS}))

    assert {"scenario": "fan-out", "name": "CPU of a delivery", "unit": "us", "value": 2.0} == decoded["unmissed"][0]
    assert 1 == len(decoded["tutorial"])


@pytest.mark.long
@pytest.mark.live
def test_the_picture_is_a_png(tmp_path: Path) -> None:
    plot({"unmissed": OURS, "tutorial": THEIRS}, tmp_path / "figures.png")

    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_picture_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'unmissed\[plot\]'"):
        plot({"unmissed": OURS}, tmp_path / "figures.png")
