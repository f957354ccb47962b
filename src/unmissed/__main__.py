"""``python -m unmissed``: the command line."""

from unmissed.cli import main

main()
