"""``unmissed serve``: runs an application, by default the built-in one, under uvicorn with the native socket."""

import os
import ssl
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvicorn

from unmissed.cli.application import (
    BUILT_IN,
    ApplicationArgument,
    ApplicationPath,
    FolderOption,
    LoadedApplication,
    built_in,
)
from unmissed.cli.development import Announcement, development_settings, reload_settings
from unmissed.cli.options import with_settings
from unmissed.cli.serving import Site
from unmissed.cli.workers import ANSWER_SECONDS, run_reloading, run_workers
from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import LOGGING_CONFIG
from unmissed.logs.one_process import refuse_several_workers
from unmissed.logs.urls import is_shared
from unmissed.server import HttpProtocol, WebSocketProtocol
from unmissed.settings import Settings

_FileOption = partial(typer.Option, exists=True, dir_okay=False, readable=True)


@with_settings
def serve(
    application: ApplicationArgument = None,
    *,
    app_dir: FolderOption = Path(),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes; several need a shared log.")] = 1,
    dev: Annotated[bool, typer.Option("--dev", help="Local development: random secret, printed token.")] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="With --dev: open the console in the default browser.")
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Local development: restart when a file below --app-dir changes.")
    ] = False,
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
    """Serve your application, or without one the built-in one: WebSocket, event streams, REST and browser client."""
    if reload and workers > 1:
        raise ConfigurationError("--reload serves in one process: remove --workers")
    if open_browser and not dev:
        raise ConfigurationError("--open needs --dev: its page needs a token, which only --dev issues")
    settings = Settings.load(**overrides)
    defaults = development_settings(settings, host=host) if dev else {}
    defaults |= reload_settings(settings) if reload else {}
    settings = Settings.load(**{**defaults, **overrides})
    if application is None:
        load = _built_in(settings, workers=workers, reload=reload)
    else:
        load = ApplicationPath.parse(application, folder=app_dir).load
        # The application creates its manager from the environment.
        os.environ.update(settings.environment([*defaults, *overrides]))
    config = uvicorn.Config(
        application or BUILT_IN,
        host=host,
        port=port,
        log_config=_log_config(log_level),
        log_level=log_level,
        access_log=access_log,
        workers=workers,
        timeout_worker_healthcheck=ANSWER_SECONDS,
        reload=reload,
        reload_dirs=[str(app_dir)] if reload else None,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        backlog=4096,
        root_path=root_path,
        forwarded_allow_ips=forwarded_allow_ips,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    _check_certificate(config)
    once = get_context("spawn").Lock() if config.use_subprocess else None
    announcement = Announcement(host, tls=config.is_ssl, opens_browser=open_browser, once=once) if dev else None
    site = Site(load, settings, flags=tuple(overrides), announcement=announcement)
    if reload:
        run_reloading(config, site)
    elif workers > 1:
        run_workers(config, site)
    else:
        site.server(config).run()


def _built_in(settings: Settings, *, workers: int, reload: bool) -> Callable[[], LoadedApplication]:
    """Return how each process creates the built-in application. Raises ConfigurationError for settings that do not fit.

    They are checked here if other processes create it.
    """
    if not is_shared(settings.log_url):
        refuse_several_workers(sys.argv, os.environ, workers=workers)
    if workers > 1 or reload:
        built_in(settings)
    return partial(built_in, settings)


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
