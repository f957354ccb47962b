"""An application in this event loop, and clients of its REST routes."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from unmissed import ConnectionManager, Settings, create_app, issue_token
from unmissed.testing import SECRET, ManualClock


def headers(user_id: str = "alice", *, scope: str = "messages:publish") -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, user_id=user_id, expires_in=60, scope=scope)}"}


@pytest.fixture
def app(clock: ManualClock) -> FastAPI:
    return create_app(Settings.load(jwt_secret=SECRET), clock=clock)


@pytest.fixture
async def manager(app: FastAPI) -> AsyncIterator[ConnectionManager]:
    manager: ConnectionManager = app.state.manager
    async with manager:
        yield manager


@pytest.fixture
async def client(app: FastAPI, manager: ConnectionManager) -> AsyncIterator[httpx.AsyncClient]:
    assert manager.ready
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers()) as client:
        yield client
