"""A server to be measured: started in a process of its own, or given; and what that process has used so far."""

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

from unmissed.api.tokens import PUBLISH_SCOPE, issue_token
from unmissed.core.errors import ConfigurationError

_START_SECONDS = 15.0
_COMMANDS = {
    "unmissed": ("-m", "unmissed", "serve", "--log-level", "warning", "--no-access-log"),
    "tutorial": ("-m", "uvicorn", "unmissed.bench.tutorial:app", "--log-level", "warning", "--no-access-log"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A server under load: where it is, who may publish there, and its process, if that is on this machine."""

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
            raise ConfigurationError(f"{url!r} cannot be measured: write a URL such as http://127.0.0.1:8000")
        return cls(url, parts.hostname, parts.port, token, None)

    @property
    def recovers(self) -> bool:
        """Whether it knows positions."""
        return self.name != "tutorial"

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its threads have used, or 0 when it is not known."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.glob("*")) / 1e9

    def resident_bytes(self) -> int:
        """Return the memory that the process has in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def started(name: str) -> Iterator[Target]:
    """Start a server of this machine on a free port, on a core of its own where there are several."""
    if not Path("/proc/self/schedstat").exists():
        raise ConfigurationError("unmissed bench reads what the server used from /proc, which only Linux has")
    secret = secrets.token_urlsafe(48)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *_COMMANDS[name], "--port", str(port)]
    environment = {**os.environ, "UNMISSED_JWT_SECRET": secret}
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603  # our own command
        try:
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
            _wait(process, port)
            token = issue_token(secret, user_id="bench", expires_in=86_400, scope=PUBLISH_SCOPE)
            yield Target(name, "127.0.0.1", port, token, process.pid)
        finally:
            process.terminate()


@contextmanager
def load_on_other_cores() -> Iterator[None]:
    """Keep this process off the core that the server is on."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {min(cores)} or cores)
    try:
        yield
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
    raise ConfigurationError("the server to be measured did not start: see its output above")
