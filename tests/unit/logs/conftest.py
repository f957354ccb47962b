"""The logs under test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from places import LOGS, Place, new_url


@pytest.fixture(params=LOGS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Return an empty place for each kind of log."""
    place = Place(new_url(request.param, request, tmp_path))
    yield place
    await place.close_all()
