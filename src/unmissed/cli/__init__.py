"""The command line: ``unmissed``."""

from unmissed.cli.app import main

__all__ = ["main"]
