"""The URL of the log."""

import time

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.core.window import Retention
from unmissed.logs.base import Log
from unmissed.logs.memory import MemoryLog
from unmissed.logs.urls import log_from_url


def log_at(url: str) -> Log:
    return log_from_url(url, retention=Retention(), first_number=None, clock=time.monotonic, wall_clock=time.time)


def test_the_memory_log_is_named_memory() -> None:
    assert isinstance(log_at("memory:"), MemoryLog)


@pytest.mark.parametrize("url", ["", "memory", "redis://localhost", "sqlite:log.db"])
def test_a_url_that_names_no_log_is_refused_with_one_that_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use memory:"):
        log_at(url)
