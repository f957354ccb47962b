"""``unmissed check``: checks the settings and the environment."""

import asyncio
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer
import uvicorn

from unmissed.cli.options import seconds
from unmissed.core.errors import ConfigurationError, LogUnavailable, UnmissedError
from unmissed.core.messages import Message
from unmissed.core.retention import Retention
from unmissed.core.window import Window
from unmissed.logs.base import Log
from unmissed.logs.one_process import refuse_several_workers
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.schema import SchemaKind
from unmissed.logs.urls import file_of, is_shared, log_from_url
from unmissed.security.provider_tokens import JwksVerifier, verifier_of
from unmissed.security.redaction import without_login
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings, unknown_variables
from unmissed.transactions.outbox import is_database, outbox_address

_TOKEN_SECONDS = 60.0
_EVERYTHING = Retention(max_messages=2**40, max_age=1e9, max_bytes=2**50)


def check(
    *,
    wait: Annotated[
        float, typer.Option(parser=seconds, metavar="DURATION", help="How long to wait for the log.")
    ] = "15s",  # type: ignore[assignment]  # typer parses the default, too
) -> None:
    """Check the settings and the environment, try the log and a token, and report what to fix."""
    problems = 0
    try:
        settings = Settings.load()
        if not is_shared(settings.log_url):
            refuse_several_workers(sys.argv, os.environ)
        _try_token(settings)
        for name, value in settings:
            typer.echo(f"ok       UNMISSED_{name.upper()} = {_shown(name, value)}")
        for line in _rules(settings, _try_log(settings, wait=wait)):
            typer.echo(line)
        if settings.outbox_url:
            _inspect(outbox_address(settings), "outbox", wait=wait)
    except UnmissedError as error:
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


def _shown(name: str, value: object) -> object:
    """Return a value as it is set in the environment, without its secrets: nothing if it is unset."""
    if name in ("log_url", "outbox_url"):
        return without_login(str(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else value


def _try_token(settings: Settings) -> None:
    """Issue a token and verify it. Without the private key, only the keys that verify are checked, or loaded."""
    verifier = verifier_of(settings)
    settings.node_keys()
    if isinstance(verifier, JwksVerifier):
        typer.echo(f"ok       {asyncio.run(verifier.load())}")
        return
    count = len(settings.keys()) - 1
    typer.echo(f"ok       tokens are verified with UNMISSED_JWT_SECRET{' and the previous one' if count else ''}")
    if not settings.has_public_keys:
        verifier.verify(issue_token_under(settings, user_id="check", expires_in=_TOKEN_SECONDS))


def _try_log(settings: Settings, *, wait: float) -> Window | None:
    """Open the log, as a server does, and close it. Return what it holds. Raises ConfigurationError.

    No file is created. A log in memory holds nothing, and a database is only read: a node trims its tables.
    """
    file = file_of(settings.log_url)
    log = log_from_url(
        settings.log_url,
        # The server may retain more than this environment configures: opening its file must delete nothing. Opening an
        # engine deletes nothing, but its stream in NATS must allow what this node retains, and may be created here.
        retention=settings.log_retention() if file is None else _EVERYTHING,
        first_number=None if settings.first_number == "clock" else settings.first_number,
        clock=time.monotonic,
        wall_clock=time.time,
    )
    # Opening the log would create the file.
    if file is not None and not file.exists():
        if not os.access(file.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"UNMISSED_LOG_URL: a file cannot be created in {file.parent}: choose another path"
            )
    elif is_database(settings.log_url):
        _inspect(DatabaseAddress.of(settings.log_url), "log", wait=wait)
    elif file is not None or is_shared(settings.log_url):
        return asyncio.run(_open(log, seconds=wait))
    return None


def _inspect(address: DatabaseAddress, kind: SchemaKind, *, wait: float) -> None:
    """Report on a database. Raises ConfigurationError if no node can use it."""
    try:
        from unmissed.logs.postgres.inspection import inspect_database  # noqa: PLC0415  # asyncpg is optional
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{address.setting} needs {error.name}: pip install 'unmissed[postgres]'") from None
    try:
        facts = asyncio.run(asyncio.wait_for(inspect_database(address), wait))
    except TimeoutError:
        raise ConfigurationError(f"{address.setting}: no answer within {wait:g} seconds") from None
    except LogUnavailable as error:
        raise ConfigurationError(f"{address.setting}: {error.reason}") from None
    facts.check(address, kind)
    typer.echo(f"ok       {facts.describe(address)}")
    for note in facts.notes():
        typer.echo(f"note     {note}")


async def _open(log: Log, *, seconds: float) -> Window:
    try:
        async with asyncio.timeout(seconds):
            window = await log.open()
            await log.close()
            return window
    except TimeoutError:
        raise ConfigurationError(f"UNMISSED_LOG_URL: no answer within {seconds:g} seconds") from None


def _rules(settings: Settings, window: Window | None) -> Iterator[str]:
    """Yield what each rule of retention keeps and holds, and which ones cannot keep what they promise."""
    retention = settings.log_retention()
    held = {rule: Holding() for rule in (None, *retention.rules)}
    for message in window or ():
        held[retention.rule_of(message.audience.first)].add(message)
    for rule, holding in held.items():
        name = "no rule" if rule is None else f"rule {rule}"
        limits = (
            f"the newest {rule.max_messages} messages of each topic" if rule else f"{retention.max_messages} messages"
        )
        yield f"ok       {name}: {limits}{'' if window is None else f'; the log holds {holding}'}"
        most = retention.max_messages if rule is None else rule.max_messages
        if most * settings.max_message_bytes > retention.max_bytes:
            yield (
                f"note     {name}: {most} messages of UNMISSED_MAX_MESSAGE_BYTES take more than UNMISSED_MAX_BYTES, "
                "and then fewer are kept: raise it, unless your messages are smaller"
            )


@dataclass
class Holding:
    """What a log holds of one rule."""

    messages: int = 0
    values: int = 0
    bytes: int = 0
    topics: set[str | None] = field(default_factory=set)

    def add(self, message: Message) -> None:
        """Count a message."""
        self.messages += 1
        self.values += message.value is not None and message.value.is_full
        self.bytes += message.size_in_log
        self.topics.add(message.audience.first)

    def __str__(self) -> str:
        of_topics = f" of {len(self.topics)} topics or users" if self.topics else ""
        return f"{self.messages} messages{of_topics}, of which {self.values} are values by key, in {self.bytes} bytes"


def _open_files() -> int | None:
    """Return the limit on open files, or None on systems without such a limit."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
