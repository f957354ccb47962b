"""The logs under test: each is in a place of its own, and may be opened again there, by one node or several."""

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from unmissed.core.window import Retention, Window
from unmissed.logs.base import Log
from unmissed.logs.urls import log_from_url

LOGS = ("memory", "sqlite", "sqlite-normal", "redis", "nats")
SHARED = ("redis", "nats")
LASTING = ("sqlite", "sqlite-normal", *SHARED)


class Place:
    """Where a log is, and the logs that are open there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[Log] = []

    async def open(self, **options: Any) -> tuple[Log, Window]:
        """Open the log that is here, as another process would."""
        options = {
            "retention": Retention(),
            "first_number": None,
            "clock": time.monotonic,
            "wall_clock": time.time,
        } | options
        log = log_from_url(self.url, **options)
        window = await log.open()
        self._open.append(log)
        return log, window

    async def close(self, log: Log) -> None:
        """Close a log that was opened here."""
        self._open.remove(log)
        await log.close()

    async def close_all(self) -> None:
        """Close every log."""
        for log in [*self._open]:
            await self.close(log)


@pytest.fixture(params=LOGS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Return an empty place for each kind of log."""
    kind = request.param
    if kind in SHARED:
        server = request.getfixturevalue(f"{kind}_server")
        url = f"{server.url}?name=test-{secrets.token_hex(8)}"
    else:
        url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/log.db"}.get(
            kind, f"sqlite:{tmp_path}/log.db?synchronous=normal"
        )
    place = Place(url)
    yield place
    await place.close_all()
