"""Real servers with two workers: each is refused, however it was asked for them."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unmissed.lab.process import free_ports
from unmissed.testing import SECRET

REFUSAL = "this log belongs to one process and cannot be shared by several workers"
APP = "unmissed.main:app"
UVICORN = ["-m", "uvicorn", APP, "--port", "PORT"]
GUNICORN = ["-m", "gunicorn", APP, "--bind", "127.0.0.1:PORT", "--worker-class", "uvicorn.workers.UvicornWorker"]
HYPERCORN = ["-m", "hypercorn", APP, "--bind", "127.0.0.1:PORT"]
GRANIAN = ["-m", "granian", APP, "--interface", "asgi", "--port", "PORT"]
FILES = {
    "run_uvicorn.py": f"""
import uvicorn
if __name__ == "__main__":
    uvicorn.run("{APP}", port=PORT, workers=2)
""",
    "run_granian.py": f"""
import granian
if __name__ == "__main__":
    granian.Granian("{APP}", port=PORT, interface="asgi", workers=2).serve()
""",
    "gunicorn.conf.py": "workers = 2",
    "hypercorn.toml": "workers = 2",
}


@contextmanager
def running(
    server: str, arguments: list[str], directory: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run a server on a free port until the end of the block."""
    if importlib.util.find_spec(server) is None:
        pytest.skip(f"{server} is not installed")
    [port] = free_ports(1)
    for name, text in FILES.items():
        (directory / name).write_text(text.replace("PORT", str(port)))
    with subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, *(argument.replace("PORT", str(port)) for argument in arguments)],
        cwd=directory,
        env={**os.environ, "UNMISSED_JWT_SECRET": SECRET, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a server and its workers. A worker of granian loses a signal that comes just after its start."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def printed(process: subprocess.Popen[str], *texts: str) -> str | None:
    """Return the first of these texts that a server prints, or None if it ends without one."""
    assert process.stdout is not None
    return next((text for line in process.stdout for text in texts if text in line), None)


@pytest.mark.parametrize(
    ("server", "arguments", "environment"),
    [
        ("uvicorn", [*UVICORN, "--workers", "2"], {}),
        pytest.param("uvicorn", UVICORN, {"WEB_CONCURRENCY": "2"}, marks=pytest.mark.long),
        pytest.param("uvicorn", UVICORN, {"UVICORN_WORKERS": "2"}, marks=pytest.mark.long),
        pytest.param("uvicorn", ["run_uvicorn.py"], {}, marks=pytest.mark.long),
        pytest.param("gunicorn", [*GUNICORN, "--workers", "2"], {}, marks=pytest.mark.long),
        pytest.param("gunicorn", [*GUNICORN, "--config", "gunicorn.conf.py"], {}, marks=pytest.mark.long),
        pytest.param("hypercorn", [*HYPERCORN, "--config", "hypercorn.toml"], {}, marks=pytest.mark.long),
        pytest.param("granian", [*GRANIAN, "--workers", "2"], {}, marks=pytest.mark.long),
        pytest.param("granian", ["run_granian.py"], {}, marks=pytest.mark.long),
    ],
)
def test_two_workers_are_refused(
    server: str, arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    with running(server, arguments, tmp_path, environment) as process:
        assert REFUSAL == printed(process, REFUSAL)


@pytest.mark.parametrize(
    ("server", "arguments", "started"),
    [
        ("uvicorn", UVICORN, "Application startup complete"),
        pytest.param("uvicorn", [*UVICORN, "--reload"], "Application startup complete", marks=pytest.mark.long),
        pytest.param("gunicorn", GUNICORN, "Application startup complete", marks=pytest.mark.long),
        pytest.param("hypercorn", HYPERCORN, "Running on", marks=pytest.mark.long),
        pytest.param("granian", GRANIAN, "Started worker-1", marks=pytest.mark.long),
    ],
)
def test_one_worker_serves(server: str, arguments: list[str], started: str, tmp_path: Path) -> None:
    with running(server, arguments, tmp_path, {}) as process:
        assert started == printed(process, started, REFUSAL)
