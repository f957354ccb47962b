"""The public names: complete, imported late, and typed."""

import importlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import unmissed

TYPED_APP = Path(__file__).parent.parent / "typing" / "app.py"


@pytest.mark.parametrize("name", dir(unmissed))
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(unmissed, name) is not None


def test_importing_all_names_gives_those_that_are_listed() -> None:
    names: dict[str, object] = {}

    exec("from unmissed import *", names)  # noqa: S102  # a module cannot import all names in a function

    assert {"ConnectionManager", "create_router", "__version__"} < {*dir(unmissed)} <= {*names}


def test_the_stub_has_the_names_of_the_module_and_their_homes() -> None:
    stub = Path(unmissed.__file__).with_suffix(".pyi").read_text()
    lines = [f"from {home} import {name} as {name}" for name, home in vars(unmissed)["_HOMES"].items()]

    assert sorted(lines) == sorted(line for line in stub.splitlines() if line.startswith("from "))


def test_an_unknown_name_is_no_attribute() -> None:
    assert not hasattr(unmissed, "nonsense")
    assert not hasattr(importlib.import_module("unmissed.main"), "nonsense")


def test_the_version_is_the_one_of_the_package() -> None:
    assert version("unmissed") == unmissed.__version__


def test_the_client_loads_neither_fastapi_nor_jose() -> None:
    program = "import json, sys, unmissed.client; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"

    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)  # noqa: S603  # our own program

    assert set() == {"fastapi", "starlette", "jose", "uvicorn"} & set(loaded)


def test_the_typed_application_uses_every_public_name() -> None:
    text = TYPED_APP.read_text()

    assert [] == [name for name in dir(unmissed) if name not in text]


@pytest.mark.long
@pytest.mark.live
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_the_typed_application_passes_strict_type_checks(checker: str, tmp_path: Path) -> None:
    if shutil.which(checker, path=str(Path(sys.executable).parent)) is None:
        pytest.skip(f"{checker} is not installed")
    app = tmp_path / "app.py"
    app.write_text(TYPED_APP.read_text())
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["app.py"]}')
    options = ["--strict", "app.py"] if checker == "mypy" else []

    checked = subprocess.run(  # noqa: S603  # our own command
        [str(Path(sys.executable).parent / checker), *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(Path(sys.executable).parent)},
    )

    assert 0 == checked.returncode, checked.stdout
