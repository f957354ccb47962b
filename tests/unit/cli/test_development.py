"""Settings for local development, and the addresses that are shown."""

import re
from multiprocessing import get_context

import pytest
from fastapi import FastAPI

from unmissed import ConnectionManager, Identity, JwtVerifier, Settings, create_app, create_router
from unmissed.cli.application import LoadedApplication
from unmissed.cli.development import Announcement, development_settings, reload_settings
from unmissed.core.errors import ConfigurationError
from unmissed.testing import SECRET

PORT = 54_321


def shown(app: FastAPI, capsys: pytest.CaptureFixture[str], announcement: Announcement | None = None) -> str:
    """Return what is printed about an application."""
    announcement = announcement or Announcement("127.0.0.1", tls=False, opens_browser=False)
    announcement.show(LoadedApplication.of(app, name="shop:app"), port=PORT)
    return capsys.readouterr().out


def test_development_needs_no_settings_and_keeps_a_secret_and_origins() -> None:
    empty = development_settings(Settings.load(), host="127.0.0.1")
    given = development_settings(Settings.load(jwt_secret=SECRET, allowed_origins="https://a.example"), host="::1")

    assert {"allow_query_token", "console", "jwt_secret", "allowed_origins"} == {*empty}
    assert {"allow_query_token": True, "console": True} == given


def test_development_refuses_a_host_that_other_machines_reach() -> None:
    with pytest.raises(ConfigurationError, match="remove --host"):
        development_settings(Settings.load(), host="0.0.0.0")  # noqa: S104  # it is refused


def test_a_reload_drains_for_half_a_second_unless_a_time_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"drain_seconds": 0.5} == reload_settings(Settings.load())
    assert {} == reload_settings(Settings.load(drain_seconds=5))

    monkeypatch.setenv("UNMISSED_DRAIN_SECONDS", "5")
    assert {} == reload_settings(Settings.load())


def test_an_address_of_ipv6_and_tls_is_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    announcement = Announcement("::1", tls=True, opens_browser=False)

    printed = shown(create_app(Settings.load(jwt_secret=SECRET)), capsys, announcement)

    assert f"https://[::1]:{PORT}/websocket/messages?since=0" in printed
    assert f"wss://[::1]:{PORT}/ws" in printed


def test_only_what_the_application_has_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(create_app(Settings.load(jwt_secret=SECRET, docs=False, console=False)), capsys)

    assert "Console" not in printed
    assert "Docs" not in printed
    assert f"ws://127.0.0.1:{PORT}/ws\n" in printed, "tokens in URLs are not accepted"
    assert "UNMISSED_TOKEN=" in printed


def test_the_token_fits_a_manager_whose_secret_is_in_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", "another secret, which only the environment has")
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET, jwt_audience="shop"))
    app = FastAPI()
    app.include_router(create_router(manager), prefix="/live")

    found = re.search(r"export UNMISSED_URL=(\S+) UNMISSED_TOKEN=(\S+)", shown(app, capsys))

    assert found
    assert f"http://127.0.0.1:{PORT}/live" == found[1]
    assert {"messages:publish", "admin"} == JwtVerifier.of(manager.settings).verify(found[2]).scopes


async def anyone() -> Identity:
    return Identity("anyone")


def test_no_token_is_shown_for_an_authentication_of_the_applications_own(capsys: pytest.CaptureFixture[str]) -> None:
    app = FastAPI()
    app.include_router(create_router(ConnectionManager(Settings.load(jwt_secret=SECRET)), authenticate=anyone))

    printed = shown(app, capsys)

    assert "No token is shown" in printed
    assert "export" not in printed


def test_the_first_of_several_processes_announces_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    announcement = Announcement("127.0.0.1", tls=False, opens_browser=False, once=get_context("spawn").Lock())
    app = create_app(Settings.load(jwt_secret=SECRET))

    first, second = shown(app, capsys, announcement), shown(app, capsys, announcement)

    assert "WebSocket" in first
    assert "" == second


def test_there_may_be_nothing_to_open(capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, docs=False))
    announcement = Announcement("127.0.0.1", tls=False, opens_browser=True)

    announcement.show(LoadedApplication.of(app, name="shop:app"), port=PORT)

    assert "--open: there is no console and no documentation to open" in capsys.readouterr().err
