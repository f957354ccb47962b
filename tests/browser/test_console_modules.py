"""The parts of the console that need no browser, and the types of all parts, in Node.js."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

FOLDER = Path(__file__).parent
TYPESCRIPT = FOLDER / "node_modules" / ".bin" / "tsc"


def run(*command: str | Path) -> None:
    """Run a command, and fail with its output if it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)  # noqa: S603  # our own tests
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture
def node() -> str:
    return shutil.which("node") or pytest.skip("Node.js is not installed")


def test_the_parts_without_a_page_pass_their_tests(node: str) -> None:
    run(node, "--test", FOLDER / "console")


def test_the_types_of_all_parts_are_right(node: str) -> None:
    if not TYPESCRIPT.exists():
        pytest.skip("TypeScript is not installed: npm ci --prefix tests/browser")

    run(node, TYPESCRIPT, "-p", FOLDER / "console")
