"""Refuses to start in one of several worker processes, where each would keep its own log."""

import asyncio
import multiprocessing
import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from unmissed.core.errors import ConfigurationError

_SERVERS = {"uvicorn", "gunicorn", "hypercorn", "granian", "fastapi"}
_VARIABLES = ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GRANIAN_WORKERS")
_CONFIGURED = {"uvicorn", "hypercorn"}

_LOCK_ATTEMPTS = 50
_LOCK_PAUSE = 0.1

_locks: dict[int, int] = {}
"""The locked files of this process, by the id of the process that started it. They stay open until it ends."""


def refuse_several_workers(arguments: Sequence[str], environment: Mapping[str, str], *, workers: int = 1) -> None:
    """Raise ConfigurationError when ``workers``, the server's command line or environment ask for more than one.

    Each worker would number its own messages and keep its own log, so clients would miss messages silently.
    In a worker process, ``sys.argv`` is the command line of the server that started it.
    """
    program = PurePath(arguments[0] if arguments else "")
    # ``python -m uvicorn`` shows the path of a file in the folder of the package.
    if program.name == "__main__.py":
        program = program.parent
    requested = _workers(arguments[1:]) if program.stem in _SERVERS else []
    requested += _workers(environment.get("GUNICORN_CMD_ARGS", "").split())
    requested += [environment.get(name, "1") for name in _VARIABLES]
    if workers > 1 or any(count.isdecimal() and int(count) > 1 for count in requested):
        raise _refusal()


async def refuse_second_worker(*, attempts: int = _LOCK_ATTEMPTS) -> None:
    """Raise ConfigurationError in one of several workers, however their server was configured.

    Some servers pass the number of workers to each of them. For other servers, the first worker takes a lock, and holds
    it until its process ends. Further workers wait a few seconds for the lock, in ``attempts``: a server that reloads
    may start the next worker before it stops the previous one. A process that is no worker takes no lock: two servers
    started from one shell are separate.
    """
    if _started_with_several():
        raise _refusal()
    server = _server_of_this_worker()
    if server is None:
        return
    for _ in range(attempts):
        if _lock(server):
            return
        await asyncio.sleep(_LOCK_PAUSE)
    raise _refusal()


def _workers(options: Sequence[str]) -> list[str]:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-w", "--workers", action="append", nargs="?", const="", default=[])
    workers: list[str] = parser.parse_known_args(options)[0].workers
    return workers


def _started_with_several() -> bool:
    """Return whether the server that started this process passed it a configuration of several workers."""
    keywords = getattr(multiprocessing.current_process(), "_kwargs", {})
    return any(
        type(value).__module__.partition(".")[0] in _CONFIGURED and getattr(value, "workers", None) not in (None, 0, 1)
        for value in keywords.values()
    )


def _server_of_this_worker() -> int | None:
    """Return the id of the process that started this worker, or None if this process is no worker.

    uvicorn, hypercorn and granian use multiprocessing. gunicorn forks, and its workers inherit its modules.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        return parent.pid
    return os.getppid() if "gunicorn.arbiter" in sys.modules else None


def _lock(server: int) -> bool:
    """Return whether this process is the only one of a server that has this lock."""
    if sys.platform == "win32" or server in _locks:
        return True
    import fcntl  # noqa: PLC0415  # not on Windows

    try:
        # The user id is part of the name, since a file of another user cannot be opened.
        path = Path(tempfile.gettempdir()) / f"unmissed-{os.getuid()}-{server}.lock"
        # O_NOFOLLOW: all users can write to this folder, and another one may have put a link under this name.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return True  # Without a temporary directory there is no lock.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _locks[server] = file
    return True


def _refusal() -> ConfigurationError:
    return ConfigurationError(
        "this log belongs to one process and cannot be shared by several workers: run one worker (uvicorn --workers 1) "
        "and unset WEB_CONCURRENCY and UVICORN_WORKERS, or share a log: UNMISSED_LOG_URL=redis://localhost:6379"
    )
