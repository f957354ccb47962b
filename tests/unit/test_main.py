"""The ready application, configured by the environment."""

import pytest
from fastapi.testclient import TestClient

from unmissed import main
from unmissed.delivery.served_application import ServedApplication
from unmissed.settings import Settings
from unmissed.testing import SECRET


def test_the_application_of_the_environment_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)

    with TestClient(ServedApplication(main.create_app)) as client:
        assert "ready" == client.get("/readyz").json()["status"]


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
