"""Managers that share a log."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from places import LOGS, SHARED, new_url
from support import until
from unmissed import ConnectionManager, Settings


@pytest.fixture(params=LOGS[-len(SHARED) :])
async def managers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[ConnectionManager]]:
    """Return three managers on one log, which know each other."""
    url = new_url(request.param, request, tmp_path)
    async with AsyncExitStack() as stack:
        managers = [await stack.enter_async_context(ConnectionManager(Settings.load(log_url=url))) for _ in range(3)]
        await until(lambda: all(len(manager.running.cluster.nodes.others) == 2 for manager in managers))
        yield managers
