"""The measured server, which is started in its own process or already running, and its resource usage."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.errors import ConfigurationError
from unmissed.security.redaction import shown_url
from unmissed.security.tokens import issue_token

_START_SECONDS = 15.0
_COMMANDS = {
    "unmissed": ("-m", "unmissed", "serve", "--log-level", "warning", "--no-access-log"),
    "tutorial": ("-m", "uvicorn", "unmissed.bench.tutorial:app", "--log-level", "warning", "--no-access-log"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: its address, a token that may publish, and its process id if the benchmark started it."""

    name: str
    host: str
    port: int
    token: str
    pid: int | None

    @classmethod
    def at(cls, url: str, token: str) -> "Target":
        """Return the server at a URL such as ``http://127.0.0.1:8000``. Raises ConfigurationError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ConfigurationError(f"{shown_url(url)!r} cannot be measured: use a URL such as http://127.0.0.1:8000")
        return cls(url, parts.hostname, parts.port, token, None)

    @property
    def recovers(self) -> bool:
        """Whether it supports recovery."""
        return self.name != "tutorial"

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its threads so far, or 0 when unknown."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.glob("*")) / 1e9

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(name: str, *, core: int) -> Iterator[Target]:
    """Start a local server on a free port, on this CPU core. Raises ConfigurationError."""
    if not Path("/proc/self/schedstat").exists():
        raise ConfigurationError("unmissed bench reads CPU time and memory from /proc, which only Linux has")
    secret = secrets.token_urlsafe(48)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *_COMMANDS[name], "--port", str(port)]
    environment = {**os.environ, "UNMISSED_JWT_SECRET": secret}
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603  # our own command
        try:
            os.sched_setaffinity(process.pid, {core})
            _wait(process, port)
            token = issue_token(secret, user_id="bench", expires_in=86_400, scope=PUBLISH_SCOPE)
            yield Target(name, "127.0.0.1", port, token, process.pid)
        finally:
            process.terminate()


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


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise ConfigurationError("the measured server did not start: see its output above")
