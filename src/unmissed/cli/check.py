"""``unmissed check``: checks the settings and the environment."""

import importlib.util
import os
import platform
import sys

import typer
import uvicorn

from unmissed.core.errors import ConfigurationError
from unmissed.core.urls import without_login
from unmissed.logs.urls import is_shared
from unmissed.logs.workers import refuse_several_workers
from unmissed.manager import ConnectionManager
from unmissed.security.tokens import JwtVerifier
from unmissed.settings import Settings, unknown_variables


def check() -> None:
    """Check the settings and the environment, and report what to fix."""
    problems = 0
    try:
        settings = Settings.load()
        if not is_shared(settings.log_url):
            refuse_several_workers(sys.argv, os.environ)
        JwtVerifier(settings.key(), algorithm=settings.jwt_algorithm)
        ConnectionManager(settings)
        for name, value in settings:
            shown = without_login(value) if name == "log_url" else value
            typer.echo(f"ok       UNMISSED_{name.upper()} = {shown}")
    except ConfigurationError as error:
        problems += 1
        typer.echo(f"problem  {error}")
    for name in unknown_variables():
        problems += 1
        typer.echo(f"problem  {name} is not a setting: unset it, or see 'unmissed serve --help' for the names")
    typer.echo(f"ok       Python {platform.python_version()}, uvicorn {uvicorn.__version__}")
    for module in ("uvloop", "httptools"):
        missing = importlib.util.find_spec(module) is None
        typer.echo(f"slow     {module} is missing: pip install {module}" if missing else f"ok       {module}")
    if files := _open_files():
        typer.echo(f"ok       limit of {files} open files, one for each connection; raise it with ulimit -n")
    raise typer.Exit(1 if problems else 0)


def _open_files() -> int | None:
    """Return the limit on open files, or None on systems without such a limit."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
