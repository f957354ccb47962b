"""Options that several commands share: durations, a server and its token, one flag for each setting but the secret."""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from pydantic import SecretStr

from unmissed.client import clean_token
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError
from unmissed.security.tokens import issue_token_under
from unmissed.settings import PREFIX, Settings

_MOST = 100_000
_OWN_TOKEN_SECONDS = 86_400.0
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str) -> float:
    """Return a duration such as ``500ms``, ``5s``, ``1h`` or ``2.5`` in seconds. Raises typer.BadParameter."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if not match or not 0 < float(match[1]) <= _MOST:
        raise typer.BadParameter(f"{text!r} is not a duration: use one such as 500ms, 5s, 10m, 1h or 2d")
    return float(match[1]) * _UNITS[match[2]]


UrlOption = Annotated[str, typer.Option(envvar="UNMISSED_URL", help="Base URL of the server.")]
TokenOption = Annotated[
    str | None,
    typer.Option(envvar="UNMISSED_TOKEN", help="A bearer token. Default: one signed with UNMISSED_JWT_SECRET."),
]


def token_or_own(token: str | None) -> str:
    """Return the token, or a new one signed with the secret from the environment. Raises ConfigurationError."""
    if token and token.strip():
        return clean_token(token)
    try:
        return issue_token_under(Settings.load(), user_id="cli", scope=PUBLISH_SCOPE, expires_in=_OWN_TOKEN_SECONDS)
    except ConfigurationError:
        raise ConfigurationError(
            "no token: set UNMISSED_TOKEN (unmissed serve --dev prints one), or UNMISSED_JWT_SECRET"
        ) from None


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add one flag for each setting to a command, which receives the flags that were used as ``overrides``.

    A secret has no flag: other users of the machine would see it in the list of processes.
    """
    names = [name for name in Settings.model_fields if not _is_secret(name)]
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "overrides"]
    parameters = [*own, *map(_flag, names)]

    @wraps(command)
    def with_flags(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in names}
        command(**arguments, overrides={name: value for name, value in values.items() if value is not None})

    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    with_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    del with_flags.__wrapped__  # typer would inspect the undecorated command
    return with_flags


def _is_secret(name: str) -> bool:
    return SecretStr in get_args(Settings.model_fields[name].annotation)


def _flag(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kind = bool | None if field.annotation is bool else str | None
    option = typer.Option(help=f"{field.description} [{PREFIX}{name.upper()}]", rich_help_panel="Settings")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
