"""The URL of the log."""

import time

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.core.window import Retention
from unmissed.logs.base import Log
from unmissed.logs.memory import MemoryLog
from unmissed.logs.sqlite.log import SqliteLog
from unmissed.logs.urls import log_from_url


def log_at(url: str) -> Log:
    return log_from_url(url, retention=Retention(), first_number=None, clock=time.monotonic, wall_clock=time.time)


def test_the_memory_log_is_named_memory() -> None:
    assert isinstance(log_at("memory:"), MemoryLog)


@pytest.mark.parametrize(
    "path", ["log.db", "/var/lib/log.db", "/var/lib/log.db?synchronous=normal", "a.db?synchronous=full"]
)
def test_an_sqlite_log_is_named_by_its_path(path: str) -> None:
    assert isinstance(log_at(f"sqlite:{path}"), SqliteLog)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite::memory:", "sqlite:?synchronous=normal"])
def test_an_sqlite_log_needs_a_file(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        log_at(url)


@pytest.mark.parametrize("option", ["synchronous=off", "synchronous", "mode=ro", "synchronous=normal&mode=ro"])
def test_an_unknown_option_is_refused_with_the_valid_ones(option: str) -> None:
    with pytest.raises(ConfigurationError, match=r"synchronous=full\|normal"):
        log_at(f"sqlite:log.db?{option}")


@pytest.mark.parametrize("url", ["", "memory", "memory:x", "mysql://localhost", "sqlite"])
def test_a_url_that_names_no_log_is_refused_with_one_that_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use memory:"):
        log_at(url)
