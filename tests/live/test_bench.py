"""The benchmark, small: every scenario runs and counts what it should."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from engines import skip_without
from support import FIRST
from unmissed.cli.app import app
from unmissed.core.errors import ConfigurationError
from unmissed.lab.bench.load import body_of
from unmissed.lab.bench.target import Target
from unmissed.lab.engine_servers import NatsServer, RedisServer
from unmissed.lab.postgres_servers import PostgresServer
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
        "publish to a user who is away",
        "publish, one at a time",
        "publish, 64 at a time",
        "publish, batches of 100",
        "event streams, one at a time",
        "event streams, 64 at a time",
        "connect",
        "reconnect storm",
        "recovery of 500",
        "recovery of 10",
    } == scenarios
    assert all(figure["value"] >= 0 for run in figures.values() for figure in run)


@pytest.mark.long
def test_the_logs_are_measured_in_the_same_run(tmp_path: Path) -> None:
    for engine in (RedisServer, NatsServer, PostgresServer):
        skip_without(engine)
    file = tmp_path / "figures.md"

    result = CliRunner().invoke(app, [*SMALL, "--logs", "--markdown", str(file)])

    assert 0 == result.exit_code, result.output
    servers, logs = file.read_text().split("\n\n")
    assert servers.startswith("|  | unmissed |\n|---|---|\n| memory: idle connection, kB |")
    assert logs.startswith("|  | memory | SQLite | SQLite normal | PostgreSQL | Redis | NATS |\n")
    assert "| 20 messages a second to 100 clients: CPU of a delivery, us |" in logs


@pytest.mark.long
def test_a_server_elsewhere_is_measured_without_its_cpu(server: LiveServer) -> None:
    result = CliRunner().invoke(app, [*SMALL, "--url", server.url, "--token", server.token()])

    assert 0 == result.exit_code, result.output
    assert "rate of delivery" in result.output
    assert "CPU of a" not in result.output
    assert 10 + 10 + 10 + 500 + 400 < server.manager.window.latest - FIRST
    assert 500 == len(httpx.get(f"{server.url}/websocket/messages", headers=server.headers()).json()["messages"])


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8000", "http://127.0.0.1"])
def test_an_address_that_cannot_be_measured_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://127"):
        Target.at(url, "token")


def test_a_message_says_when_it_was_sent_and_has_its_size() -> None:
    assert body_of(100).startswith(b'{"type":"bench","data":{"t":')
    assert 100 == body_of(100).count(b"x")


def test_a_message_may_be_for_users() -> None:
    assert ["away"] == json.loads(body_of(100, users=["away"]))["users"]
