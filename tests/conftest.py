"""Fixtures that all tests share."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if sys.dont_write_bytecode:
    # Each program that a test starts would compile all that it imports, which takes a second of CPU time.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__, "../../.pytest_cache/bytecode").resolve())
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    del os.environ["PYTHONDONTWRITEBYTECODE"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what runs in the background ignore Ctrl+C, which all that the tests start would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings as hypothesis_settings

from engines import NatsServer, PostgresServer, RedisServer
from support import FIRST, LOGGED, SOCKETS
from unmissed.settings import Settings
from unmissed.testing import SECRET, LiveServer

hypothesis_settings.register_profile("short", max_examples=25, deadline=None, derandomize=True)
hypothesis_settings.register_profile("full", max_examples=100, deadline=None, derandomize=True)
hypothesis_settings.register_profile("nightly", max_examples=500, deadline=None, print_blob=True)
hypothesis_settings.load_profile("short")


@pytest.fixture(autouse=True)
def _controlled_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the machine, and let sequence numbers start at a known one."""
    for name in [*os.environ]:
        if name.startswith("UNMISSED_") or name in ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GRANIAN_WORKERS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UNMISSED_FIRST_NUMBER", str(FIRST))


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """Undo what a command that is called in this process does to the loggers: it would write to a closed stream."""
    loggers = [logging.getLogger(name) for name in ("unmissed", "uvicorn", "uvicorn.access", "uvicorn.error")]
    before = [(each, each.level, each.propagate, [*each.handlers]) for each in loggers]
    yield
    for each, level, propagate, handlers in before:
        each.setLevel(level)
        each.propagate, each.handlers[:] = propagate, handlers


LIVE_FOLDERS = {"faults", "live"}
LIVE_FIXTURES = {"browser", "serve", "served", "server", "unmissed_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of ``tests/live`` and ``tests/faults`` and those that use a live server.

    ``pytest -m "not live"`` leaves them out.
    """
    for item in items:
        if LIVE_FOLDERS & set(item.path.parts) or LIVE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.live)


@pytest.fixture(params=SOCKETS)
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., LiveServer]]:
    """Return a function that starts a live server with these settings, on the socket under test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> LiveServer:
            return stack.enter_context(
                LiveServer(settings=Settings.load(jwt_secret=SECRET, **settings), **SOCKETS[request.param], **LOGGED)
            )

        yield start


@pytest.fixture
def server(serve: Callable[..., LiveServer]) -> LiveServer:
    """Return a live server with the default settings, on the socket under test."""
    return serve()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a Redis that all tests share."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Return a NATS server with JetStream that all tests share."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """Return a PostgreSQL that all tests share."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001  # pluggy passes it by name
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI, where everything a test needs is there."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI skips nothing: {report.longrepr}"
    return report
