"""The command line, ``unmissed``."""

from unmissed.cli.commands import main

__all__ = ["main"]
