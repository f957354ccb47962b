"""Refuses to start in one of several worker processes, where each would keep its own log."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from unmissed.core.errors import ConfigurationError

_SERVERS = {"uvicorn", "gunicorn", "hypercorn", "fastapi"}


def refuse_several_workers(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError when the server's command line or environment asks for more than one worker.

    Each worker would number its own messages and keep its own log, so clients would miss messages silently.
    In a worker process, ``sys.argv`` is the command line of the server that started it.
    """
    program = PurePath(arguments[0] if arguments else "")
    if program.name == "__main__.py":
        program = program.parent
    requested = _workers(arguments[1:]) if program.stem in _SERVERS else []
    requested += _workers(environment.get("GUNICORN_CMD_ARGS", "").split())
    requested.append(environment.get("WEB_CONCURRENCY", "1"))
    if any(count.isdecimal() and int(count) > 1 for count in requested):
        raise ConfigurationError(
            "the memory log lives in one process and cannot be shared by several workers: "
            "run one worker (uvicorn --workers 1) and unset WEB_CONCURRENCY"
        )


def _workers(options: Sequence[str]) -> list[str]:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-w", "--workers", action="append", nargs="?", const="", default=[])
    workers: list[str] = parser.parse_known_args(options)[0].workers
    return workers
