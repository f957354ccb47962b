"""The ``unmissed`` command, its subcommands, and the smallest of them: ``unmissed token`` and ``unmissed schema``."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from unmissed.cli.check import check
from unmissed.cli.lab import bench, verify
from unmissed.cli.options import seconds
from unmissed.cli.publish import publish
from unmissed.cli.serve import serve
from unmissed.cli.tail import tail
from unmissed.cli.types import types
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError, UnmissedError
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.schema import schema_sql
from unmissed.security.redaction import printable
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings
from unmissed.transactions.outbox import is_database, outbox_address

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="WebSocket messages that survive reconnects.",
)


def token(
    *,
    sub: Annotated[str, typer.Option(help="The user id.")],
    scope: Annotated[list[str] | None, typer.Option(help=f"A scope, such as {PUBLISH_SCOPE}. May be repeated.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="A topic, or a prefix such as 'orders.*'. May be repeated.")
    ] = None,
    expires: Annotated[float, typer.Option(parser=seconds, metavar="DURATION")] = "1h",  # type: ignore[assignment]  # typer parses the default, too
) -> None:
    """Print a token signed with UNMISSED_JWT_SECRET."""
    typer.echo(
        issue_token_under(
            Settings.load(), user_id=sub, scope=" ".join(scope or ()), topics=topic or (), expires_in=expires
        )
    )


def schema() -> None:
    """Print the SQL that creates the schema in UNMISSED_LOG_URL or UNMISSED_OUTBOX_URL, for a migration."""
    settings = Settings.load()
    if settings.outbox_url:
        typer.echo(schema_sql(outbox_address(settings).schema, "outbox"))
    elif is_database(settings.log_url):
        typer.echo(schema_sql(DatabaseAddress.of(settings.log_url).schema, "log"))
    else:
        raise ConfigurationError("there is no schema: set UNMISSED_LOG_URL or UNMISSED_OUTBOX_URL to postgresql://...")


for command in (serve, token, publish, tail, types, schema, bench, verify, check):
    app.command()(command)


def _show_version(asked: bool) -> None:  # noqa: FBT001  # typer calls it with the value of the flag
    if asked:
        typer.echo(f"unmissed {metadata.version('unmissed')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # its callback has acted on it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the global options."""


def main() -> None:
    """Run the command line. Errors that the user can fix are printed without a traceback."""
    try:
        app()
    except UnmissedError as error:
        # The text may quote a server, and has several lines where it shows the output of a program.
        sys.exit("\n".join(map(printable, f"unmissed: {error}".splitlines())))
