"""The measured server: one that is started on a CPU core of its own, or one that runs already."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError
from unmissed.lab.process import ManagedProcess, ServerProcess
from unmissed.security.redaction import shown_url
from unmissed.security.tokens import issue_token

BUILT_IN = "unmissed"
TUTORIAL = "tutorial"
_QUIET = ("--log-level", "warning", "--no-access-log")


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: its address, a token that may publish, and its process if the benchmark started it."""

    name: str
    host: str
    port: int
    token: str
    process: ManagedProcess | None = None

    @classmethod
    def at(cls, url: str, token: str) -> "Target":
        """Return the server at a URL such as ``http://127.0.0.1:8000``. Raises ConfigurationError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ConfigurationError(f"{shown_url(url)!r} cannot be measured: use a URL such as http://127.0.0.1:8000")
        return cls(url, parts.hostname, parts.port, token)

    @property
    def recovers(self) -> bool:
        """Whether it supports recovery."""
        return self.name != TUTORIAL

    def cpu_seconds(self) -> float:
        """Return the CPU time of its process so far, or 0 when unknown."""
        return self.process.cpu_seconds if self.process else 0.0


@contextmanager
def local(name: str, *, core: int, application: str | None = None, log_url: str = "memory:") -> Iterator[Target]:
    """Start a local server on a free port, on this CPU core. Raises ConfigurationError.

    It is the tutorial's if that is its name, or else ``unmissed serve``, by default with the built-in application.
    """
    if not Path("/proc/self/schedstat").exists():
        raise ConfigurationError("unmissed bench reads CPU time and memory from /proc, which only Linux has")
    secret = secrets.token_urlsafe(48)
    environment = {**os.environ, "UNMISSED_JWT_SECRET": secret, "UNMISSED_LOG_URL": log_url}
    served = ("unmissed", "serve", *([application] if application else []))
    command = ("uvicorn", "unmissed.lab.bench.tutorial:app") if name == TUTORIAL else served
    # Every FastAPI application has this path.
    server = ServerProcess(
        *command, *_QUIET, name="the measured server", probe="/openapi.json", environment=environment
    )
    with server:
        os.sched_setaffinity(server.pid, {core})
        token = issue_token(secret, user_id="bench", expires_in=86_400, scope=PUBLISH_SCOPE)
        yield Target(name, "127.0.0.1", server.port, token, server)


@contextmanager
def load_on_other_cores() -> Iterator[int]:
    """Keep this process off one CPU core, if there are several, and return that core, for the server."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    os.sched_setaffinity(0, cores - {core} or cores)
    try:
        yield core
    finally:
        os.sched_setaffinity(0, cores)
