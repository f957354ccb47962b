"""``unmissed serve``: runs the built-in application under uvicorn, with the native socket."""

import os
import secrets
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvicorn

from unmissed.api.browser_routes import CONSOLE_PATH
from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.cli.options import with_settings
from unmissed.cli.workers import freeze_what_is_loaded, run_workers
from unmissed.core.audience import ADMIN_SCOPE, PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import LOGGING_CONFIG
from unmissed.logs.one_process import refuse_several_workers
from unmissed.logs.urls import is_shared
from unmissed.main import ServedApplication, create_app
from unmissed.security.origins import is_loopback
from unmissed.security.tokens import issue_token_under
from unmissed.server import HttpProtocol, Server, WebSocketProtocol
from unmissed.settings import Settings

_DEV_ORIGINS = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*"
_DEV_TOKEN_SECONDS = 86_400.0

_FileOption = partial(typer.Option, exists=True, dir_okay=False, readable=True)


@with_settings
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes; several need a shared log.")] = 1,
    dev: Annotated[bool, typer.Option("--dev", help="Local development: random secret, printed token.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="The lowest level to log.")
    ] = "info",
    access_log: Annotated[bool, typer.Option(help="Log every request.")] = True,
    root_path: Annotated[str, typer.Option(help="Path prefix that a proxy in front removes, such as /live.")] = "",
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            envvar="FORWARDED_ALLOW_IPS",
            help="Comma-separated proxies whose X-Forwarded headers are trusted. Default: this machine.",
        ),
    ] = None,
    ssl_certfile: Annotated[Path | None, _FileOption(help="TLS certificate chain, as PEM.")] = None,
    ssl_keyfile: Annotated[
        Path | None, _FileOption(help="Private key of the certificate, unless the chain contains it.")
    ] = None,
    overrides: dict[str, Any],
) -> None:
    """Serve the WebSocket, event streams, REST routes and the browser client; with --dev, also the console."""
    settings = Settings.load(**overrides)
    if dev:
        settings = _development(settings, overrides, host=host)
    if not is_shared(settings.log_url):
        refuse_several_workers(sys.argv, os.environ, workers=workers)
    # It checks the settings here, even if workers create their own.
    application = create_app(settings)
    config = uvicorn.Config(
        "unmissed.main:app" if workers > 1 else ServedApplication(lambda: application),
        host=host,
        port=port,
        log_config=_log_config(log_level),
        log_level=log_level,
        access_log=access_log,
        workers=workers,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        backlog=4096,
        root_path=root_path,
        forwarded_allow_ips=forwarded_allow_ips,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    _check_certificate(config)
    if dev:
        origin = f"{host if ':' not in host else f'[{host}]'}:{port}"
        typer.echo(_welcome(settings, origin=origin, tls="s" if config.is_ssl else ""))
    if workers > 1:
        run_workers(config, environment=settings.environment())
    else:
        # Before the freeze, so that it includes the modules that uvicorn imports here.
        config.load()
        freeze_what_is_loaded()
        Server(config, manager=application.state.manager).run()


def _log_config(level: str) -> dict[str, Any]:
    """Return uvicorn's log configuration, with this package logging in the same form and at the same level."""
    logger = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    return {**LOGGING_CONFIG, "loggers": {**LOGGING_CONFIG["loggers"], "unmissed": logger}}


def _check_certificate(config: uvicorn.Config) -> None:
    """Read the certificate now. uvicorn itself would end with a traceback."""
    if config.ssl_keyfile and not config.ssl_certfile:
        raise ConfigurationError("--ssl-keyfile needs --ssl-certfile: also give the certificate")
    try:
        if config.ssl_certfile:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
    except OSError as error:  # ssl.SSLError is one.
        raise ConfigurationError(f"--ssl-certfile and --ssl-keyfile cannot be used: {error}") from None


def _development(settings: Settings, overrides: dict[str, Any], *, host: str) -> Settings:
    """Return settings that accept query tokens, with development defaults for a missing secret or origins."""
    if not is_loopback(host):
        raise ConfigurationError("--dev serves this machine only: remove --host, or remove --dev and set a secret")
    defaults: dict[str, Any] = {"allow_query_token": True, "console": True}
    if not settings.has_keys:
        defaults["jwt_secret"] = secrets.token_urlsafe(48)
    if not settings.allowed_origins:
        defaults["allowed_origins"] = _DEV_ORIGINS
    return Settings.load(**{**defaults, **overrides})


def _welcome(settings: Settings, *, origin: str, tls: str) -> str:
    scope = f"{PUBLISH_SCOPE} {ADMIN_SCOPE}"
    ready = issue_token_under(settings, user_id="dev", scope=scope, topics=["*"], expires_in=_DEV_TOKEN_SECONDS)
    console = f"\n  Console     http{tls}://{origin}{CONSOLE_PATH}/#token={ready}" if settings.console else ""
    docs = f"\n  Docs        http{tls}://{origin}/docs" if settings.docs else ""
    return f"""
NOT FOR PRODUCTION: --dev accepts tokens in URLs, and a random secret is lost when the server stops.
{console}
  WebSocket   ws{tls}://{origin}/ws?token={ready}
  Messages    http{tls}://{origin}{MESSAGES_PATH}?since=0{docs}

In another terminal:

  export UNMISSED_URL=http{tls}://{origin} UNMISSED_TOKEN={ready}
  unmissed tail --drop-every 5s
  unmissed publish chat '{{"text": "hello"}}'
"""
