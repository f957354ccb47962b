"""Options that commands share: durations, a server and its token, one flag for each setting."""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from unmissed.settings import PREFIX, Settings

_MOST = 100_000
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """Return a duration such as ``500ms``, ``5s``, ``1h`` or ``2.5`` in seconds. Raises typer.BadParameter."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if not match or not 0 < float(match[1]) <= _MOST:
        raise typer.BadParameter(f"{text!r} is not a duration: write 500ms, 5s, 10m, 1h or 2d")
    return float(match[1]) * _UNITS[match[2]]


Url = Annotated[str, typer.Option(envvar="UNMISSED_URL", help="Where the server is.")]
Token = Annotated[
    str | None,
    typer.Option(envvar="UNMISSED_TOKEN", help="A bearer token; left out, one is made with UNMISSED_JWT_SECRET."),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each setting; it gets those that were used as its argument ``overrides``."""
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "overrides"]
    parameters = [*own, *map(_flag, Settings.model_fields)]

    @wraps(command)
    def with_flags(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in Settings.model_fields}
        command(**arguments, overrides={name: value for name, value in values.items() if value is not None})

    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    del with_flags.__wrapped__  # typer would prefer the undecorated command
    return with_flags


def _flag(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kind = bool | None if field.annotation is bool else str | None
    option = typer.Option(help=f"{field.description} [{PREFIX}{name.upper()}]", rich_help_panel="Settings")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
