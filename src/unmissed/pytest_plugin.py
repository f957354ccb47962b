"""The pytest plugin: the fixture ``unmissed_server``."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unmissed.testing.server import LiveServer


@pytest.fixture
def unmissed_server() -> "Iterator[LiveServer]":
    """Provide a separate live server for each test."""
    # pytest loads this plugin in every run, even if no test uses it.
    from unmissed.testing.server import LiveServer  # noqa: PLC0415

    with LiveServer() as server:
        yield server
