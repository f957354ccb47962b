"""The ``unmissed`` command and its subcommands."""

import sys

import typer

from unmissed.cli.bench import bench
from unmissed.cli.check import check
from unmissed.cli.publish import publish
from unmissed.cli.serve import serve
from unmissed.cli.tail import tail
from unmissed.cli.token import token
from unmissed.core.errors import UnmissedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="WebSocket messages that survive reconnects.",
)
for command in (serve, token, publish, tail, bench, check):
    app.command()(command)


def main() -> None:
    """Run the command line. Errors that the user can fix are printed without a traceback."""
    try:
        app()
    except UnmissedError as error:
        sys.exit(f"unmissed: {error}")
