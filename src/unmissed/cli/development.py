"""``--dev``, ``--reload`` and ``--open``: settings for local development, and the addresses that are shown."""

import secrets
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Lock
from typing import Any

import typer

from unmissed.api.browser_routes import CONSOLE_PATH
from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.cli.application import LoadedApplication, RoutedManager
from unmissed.core.audience import ADMIN_SCOPE, PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError
from unmissed.security.origins import is_loopback
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings

_ORIGINS = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*"
_TOKEN_SECONDS = 86_400.0
_RELOAD_DRAIN_SECONDS = 0.5
"""Whoever saves a file waits for the drain time until the new code runs."""

_WARNING = (
    "NOT FOR PRODUCTION: --dev accepts tokens in URLs. Unless a secret is set, it is random, and lost at the end."
)


def development_settings(settings: Settings, *, host: str) -> dict[str, Any]:
    """Return settings that accept query tokens and serve the console, with a secret and origins if there are none.

    Raises ConfigurationError for a host that other machines reach.
    """
    if not is_loopback(host):
        raise ConfigurationError("--dev serves this machine only: remove --host, or remove --dev and set a secret")
    found: dict[str, Any] = {"allow_query_token": True, "console": True}
    if not settings.has_keys:
        found["jwt_secret"] = secrets.token_urlsafe(48)
    if not settings.allowed_origins:
        found["allowed_origins"] = _ORIGINS
    return found


def reload_settings(settings: Settings) -> dict[str, Any]:
    """Return a short drain time, unless one is set."""
    return {} if "drain_seconds" in settings.model_fields_set else {"drain_seconds": _RELOAD_DRAIN_SECONDS}


@dataclass(frozen=True, slots=True)
class Announcement:
    """Shows where an application is, with a token, and opens its console if that is wanted."""

    host: str
    tls: bool
    opens_browser: bool
    once: Lock | None = None
    """Taken by the first of several processes that is ready: it announces for all, and for those that replace it."""

    def show(self, loaded: LoadedApplication, *, port: int) -> None:
        """Print the addresses, unless another process did."""
        if self.once is not None and not self.once.acquire(block=False):
            return
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.tls else "http"
        pages = [Addresses.of(routed, origin=f"{scheme}://{host}:{port}") for routed in loaded.routed]
        typer.echo("\n".join(("", _WARNING, *(line for page in pages for line in page.lines()), "")))
        page = next((page.page for page in pages if page.page), None)
        if self.opens_browser and page is None:
            typer.echo("--open: there is no console and no documentation to open", err=True)
        elif self.opens_browser:
            # A browser in a terminal, or a slow one, must not hold the event loop up.
            threading.Thread(target=_open, args=[page], daemon=True).start()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a client, a developer and a browser find one manager."""

    base: str
    """With the prefix of the router."""
    token: str | None
    """For the user ``dev``. None if the application authenticates in a way of its own, or with a key that it lacks."""
    token_in_url: str
    console: str | None
    docs: str | None

    @classmethod
    def of(cls, routed: RoutedManager, *, origin: str) -> "Addresses":
        """Return the addresses of a manager, for a server at this origin."""
        settings, base = routed.manager.settings, origin + routed.prefix
        token = _token(settings) if routed.accepts_jwts else None
        fragment = f"#token={token}" if token else ""
        return cls(
            base,
            token,
            token_in_url=f"?token={token}" if token and settings.allow_query_token else "",
            console=f"{base}{CONSOLE_PATH}/{fragment}" if routed.has_console else None,
            docs=origin + routed.docs_path if routed.docs_path else None,
        )

    @property
    def page(self) -> str | None:
        """What a browser opens."""
        return self.console or self.docs

    def lines(self) -> Iterator[str]:
        """Yield what is printed."""
        yield ""
        if self.console:
            yield f"  Console     {self.console}"
        yield f"  WebSocket   ws{self.base.removeprefix('http')}/ws{self.token_in_url}"
        yield f"  Messages    {self.base}{MESSAGES_PATH}?since=0"
        if self.docs:
            yield f"  Docs        {self.docs}"
        yield ""
        if self.token is None:
            yield "No token is shown: the application does not authenticate with a secret that this command knows."
            return
        yield "In another terminal:"
        yield ""
        yield f"  export UNMISSED_URL={self.base} UNMISSED_TOKEN={self.token}"
        yield "  unmissed tail --drop-every 5s"
        yield '  unmissed publish chat \'{"text": "hello"}\''


def _token(settings: Settings) -> str | None:
    scope = f"{PUBLISH_SCOPE} {ADMIN_SCOPE}"
    try:
        return issue_token_under(settings, user_id="dev", scope=scope, topics=["*"], expires_in=_TOKEN_SECONDS)
    except ConfigurationError:  # Its key verifies tokens, and cannot sign any.
        return None


def _open(page: str) -> None:
    """Open a page in the default browser. Does nothing without one."""
    with suppress(webbrowser.Error, OSError):
        webbrowser.open(page)
