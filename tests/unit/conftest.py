"""A manager on a clock that moves by hand."""

from collections.abc import AsyncIterator

import pytest

from support import managed
from unmissed import ConnectionManager
from unmissed.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def unstarted(clock: ManualClock) -> ConnectionManager:
    """A manager to add commands, hooks and events to, and to start."""
    return managed(clock)


@pytest.fixture
async def manager(clock: ManualClock) -> AsyncIterator[ConnectionManager]:
    async with managed(clock) as manager:
        yield manager
