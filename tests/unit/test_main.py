"""The ready application, configured by the environment."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from unmissed import main
from unmissed.core.errors import ConfigurationError
from unmissed.settings import Settings
from unmissed.testing import SECRET


def test_the_application_of_the_environment_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)

    with TestClient(main.ServedApplication(main.create_app)) as client:
        assert "ready" == client.get("/readyz").json()["status"]


async def test_a_bad_setting_fails_the_startup_with_its_reason_in_one_line() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    await main.ServedApplication(main.create_app)({"type": "lifespan"}, receive, send)

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
        await main.ServedApplication(main.create_app)({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)

    [event] = sent
    assert "lifespan.startup.failed" == event["type"]
    assert event["message"].startswith("unmissed: /missing/log.db cannot be used for the log: ")
    assert "\n" not in event["message"]


def test_without_a_lifespan_a_bad_setting_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_JWT_SECRET is not set"):
        TestClient(main.ServedApplication(main.create_app)).get("/livez")


def test_importing_the_module_needs_no_settings() -> None:
    assert hasattr(main, "app")
    assert not hasattr(main, "nonsense")


def test_unknown_variables_are_warned_about(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("UNMISSED_MAX_MESAGES", "5")

    main.create_app()

    assert "UNMISSED_MAX_MESAGES is not a setting" in caplog.text


@pytest.mark.parametrize(("docs", "status"), [(True, 200), (False, 404)])
@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_documentation_is_served_unless_it_is_turned_off(path: str, *, docs: bool, status: int) -> None:
    client = TestClient(main.create_app(Settings.load(jwt_secret=SECRET, docs=docs)))

    assert status == client.get(path).status_code


@pytest.mark.parametrize("path", ["/livez/", "/readyz/", "/websocket/messages/", "/docs/"])
def test_no_redirect_repeats_a_token(path: str) -> None:
    """A proxy or a browser may keep the Location header."""
    client = TestClient(main.create_app(Settings.load(jwt_secret=SECRET)), follow_redirects=False)

    response = client.get(f"{path}?token=secret")

    assert 404 == response.status_code
    assert "location" not in response.headers
