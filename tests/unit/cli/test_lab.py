"""The laboratory is an extra: what needs its packages says so, and what does not need them does not load them."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter that has loaded nothing."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  # our own program


@pytest.mark.parametrize(
    ("command", "module", "package"),
    [
        (["verify"], "rich.console", "rich"),
        pytest.param(["verify", "--plot", "run.png"], "matplotlib.figure", "matplotlib", marks=pytest.mark.long),
        (["bench", "--plot", "figures.png"], "matplotlib.figure", "matplotlib"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(
    command: list[str], module: str, package: str, tmp_path: Path
) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from unmissed.cli import main; main()"

    result = run(program, *command, folder=tmp_path)

    assert f"unmissed: unmissed {command[0]} needs {package}: pip install 'unmissed[lab]'\n" == result.stderr
    assert ("", 2) == (result.stdout, result.returncode)
    assert [] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("code", ["import unmissed", "import unmissed.cli.app", "import unmissed.pytest_plugin"])
def test_nothing_else_loads_the_laboratory(code: str, tmp_path: Path) -> None:
    program = f"{code}; import sys; print([name for name in sys.modules if name.startswith('unmissed.lab')])"

    result = run(program, folder=tmp_path)

    assert ("[]\n", 0) == (result.stdout, result.returncode)
