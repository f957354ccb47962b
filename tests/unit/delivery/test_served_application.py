"""An application that reports in one line why it cannot start."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from unmissed.core.errors import ConfigurationError
from unmissed.delivery.served_application import ServedApplication
from unmissed.main import create_app
from unmissed.testing import SECRET


async def test_a_bad_setting_fails_the_startup_with_its_reason_in_one_line() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    await ServedApplication(create_app)({"type": "lifespan"}, receive, send)

    [event] = sent
    assert "lifespan.startup.failed" == event["type"]
    assert event["message"].startswith("unmissed: UNMISSED_JWT_SECRET is not set")


async def test_a_log_that_cannot_be_used_stops_the_startup_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("UNMISSED_LOG_URL", "sqlite:/missing/log.db")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ConfigurationError):
        await ServedApplication(create_app)({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)

    [event] = sent
    assert "lifespan.startup.failed" == event["type"]
    assert event["message"].startswith("unmissed: /missing/log.db cannot be used for the log: ")
    assert "\n" not in event["message"]


def test_without_a_lifespan_a_bad_setting_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_JWT_SECRET is not set"):
        TestClient(ServedApplication(create_app)).get("/livez")
