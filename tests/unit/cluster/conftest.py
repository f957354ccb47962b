"""Managers that share a log."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from places import LOGS, SHARED, new_url
from support import until
from unmissed import ConnectionManager, Settings
from unmissed.cluster.nodes import Timing


@pytest.fixture(params=LOGS[-len(SHARED) :])
async def managers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[ConnectionManager]]:
    """Return three managers on one log, which know each other, and wait for answers on a busy machine, too."""
    url = new_url(request.param, request, tmp_path)
    async with AsyncExitStack() as stack:
        managers = [await stack.enter_async_context(ConnectionManager(Settings.load(log_url=url))) for _ in range(3)]
        for manager in managers:
            monkeypatch.setattr(manager.running.cluster.nodes, "_timing", Timing(answer_seconds=20.0))
        await until(lambda: all(len(manager.running.cluster.nodes.others) == 2 for manager in managers))
        yield managers
