"""The ``unmissed`` command and its subcommands."""

import sys
from typing import Annotated

import typer

from unmissed.cli.bench import bench
from unmissed.cli.check import check
from unmissed.cli.publish import publish
from unmissed.cli.serve import serve
from unmissed.cli.tail import tail
from unmissed.cli.token import token
from unmissed.cli.verify import verify
from unmissed.core.errors import UnmissedError
from unmissed.security.redaction import printable
from unmissed.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="WebSocket messages that survive reconnects.",
)
for command in (serve, token, publish, tail, bench, verify, check):
    app.command()(command)


def _show_version(asked: bool) -> None:  # noqa: FBT001  # typer calls it with the value of the flag
    if asked:
        typer.echo(f"unmissed {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # its callback has acted on it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line. Errors that the user can fix are printed without a traceback."""
    try:
        app()
    except UnmissedError as error:
        # The text may quote a server, and has several lines where it shows the output of a program.
        sys.exit("\n".join(map(printable, f"unmissed: {error}".splitlines())))
