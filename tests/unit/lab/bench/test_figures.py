"""The figures of a benchmark, as a table and as JSON."""

import json

from unmissed.lab.bench.figures import Figure, as_json, as_markdown, percentile, table

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


def test_more_than_two_have_no_ratio() -> None:
    lines = table({"memory": OURS, "redis": THEIRS, "nats": THEIRS}).splitlines()

    assert ["2", "8", "8"] == lines[1].split()[-3:]


def test_markdown_is_the_same_table() -> None:
    lines = as_markdown({"unmissed": OURS, "tutorial": THEIRS}).splitlines()

    assert "|  | unmissed | tutorial | unmissed / tutorial |" == lines[0]
    assert "|---|---|---|---|" == lines[1]
    assert "| fan-out: CPU of a delivery, us | 2 | 8 | 0.25 |" == lines[2]


def test_json_holds_every_figure_with_its_unit() -> None:
    decoded = json.loads(as_json({"unmissed": OURS, "tutorial": THEIRS}))

    assert {"scenario": "fan-out", "name": "CPU of a delivery", "unit": "us", "value": 2.0} == decoded["unmissed"][0]
    assert 1 == len(decoded["tutorial"])


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [1, 2, 3] == [percentile([3, 1, 2], share) for share in (0.0, 0.5, 1.0)]
