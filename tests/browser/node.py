"""Programs of Node.js, as tests run them."""

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"
TYPESCRIPT = MODULES / ".bin" / "tsc"

_SECONDS = 90


def need_packages() -> None:
    """Skip the test if the npm packages are not installed."""
    if not TYPESCRIPT.exists():
        pytest.skip("the packages of the tests are not installed: run npm ci --prefix tests/browser")


def run(program: str | Path, *arguments: str | Path, cwd: Path = FOLDER) -> str:
    """Run a program and return its output, which is also the message of a failure. Skips if it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: install Node.js 20, and run npm ci --prefix tests/browser")
    done = subprocess.run(  # noqa: S603  # our own
        [program, *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_SECONDS,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
    return done.stdout


def run_tests(script: Path) -> None:
    """Run a file of tests. Not by ``node --test``, whose process of the file would outlive a timeout."""
    run("node", script)
