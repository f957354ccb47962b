"""The benchmark, small: every scenario runs and counts what it should."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from unmissed.cli.app import app
from unmissed.core.errors import ConfigurationError
from unmissed.lab.bench.load import body_of
from unmissed.lab.bench.target import Target
from unmissed.testing import LiveServer

SMALL = ["bench", "--connections", "20", "--messages", "10"]


@pytest.mark.long
def test_both_servers_are_measured_in_one_run(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    result = CliRunner().invoke(app, [*SMALL, "--compare", "tutorial", "--json", str(file)])

    assert 0 == result.exit_code, result.output
    assert "unmissed / tutorial" in result.output
    figures = json.loads(file.read_text())
    assert {"unmissed", "tutorial"} == set(figures)
    scenarios = {figure["scenario"] for figure in figures["unmissed"]}
    assert {
        "memory",
        "one at a time",
        "64 at a time",
        "event streams, one at a time",
        "event streams, 64 at a time",
        "connect",
        "reconnect storm",
        "recovery of 500",
        "recovery of 10",
    } == scenarios
    assert all(figure["value"] >= 0 for run in figures.values() for figure in run)


@pytest.mark.long
def test_a_server_elsewhere_is_measured_without_its_cpu(server: LiveServer) -> None:
    result = CliRunner().invoke(app, [*SMALL, "--url", server.url, "--token", server.token()])

    assert 0 == result.exit_code, result.output
    assert "rate of delivery" in result.output
    assert "CPU of a" not in result.output
    assert 10 + 10 + 10 + 500 < server.manager.window.latest
    assert 500 == len(httpx.get(f"{server.url}/websocket/messages", headers=server.headers()).json()["messages"])


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8000", "http://127.0.0.1"])
def test_an_address_that_cannot_be_measured_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://127"):
        Target.at(url, "token")


def test_a_message_says_when_it_was_sent_and_has_its_size() -> None:
    assert body_of(100).startswith(b'{"type":"bench","data":{"t":')
    assert 100 == body_of(100).count(b"x")
