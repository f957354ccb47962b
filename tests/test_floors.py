"""The structure: imports go down only, and each unit test file has the name of the module that it tests."""

import ast
from pathlib import Path

import pytest

import unmissed

SOURCE = Path(unmissed.__file__).parent

FLOORS = [
    {"core", "framework_names", "tasks", "retrying"},
    {"settings"},
    {"security"},
    {"logs"},
    {"delivery"},
    {"cluster"},
    {"application"},
    {"running"},
    {"manager"},
    {"api", "server"},
    {"main", "client"},
    {"testing", "lab"},
    {"cli", "pytest_plugin"},
    {"__main__"},
    {"__init__"},
    {"examples"},
]
PURE = {"asyncio", "time", "socket", "threading", "random", "fastapi", "starlette", "uvicorn", "websockets", "jose"}


def modules() -> list[str]:
    """Return all modules, and the stub that lists the public names."""
    return sorted(str(path.relative_to(SOURCE)) for kind in ("*.py", "*.pyi") for path in SOURCE.rglob(kind))


def imports(module: str) -> set[str]:
    tree = ast.parse((SOURCE / module).read_text())
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return named | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module: str) -> None:
    own = Path(module).parts[0].partition(".")[0]

    rooms = [name.split(".")[1] for name in imports(module) if name.startswith("unmissed.")]

    assert [] == [room for room in rooms if room != own and floor(room) >= floor(own)]


@pytest.mark.parametrize("module", [module for module in modules() if module.startswith("core/")])
def test_the_core_is_pure(module: str) -> None:
    tree = ast.parse((SOURCE / module).read_text())

    assert set() == {name.split(".")[0] for name in imports(module)} & PURE
    assert [] == [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]


@pytest.mark.parametrize(
    "module",
    [
        module
        for module in modules()
        if module.startswith(("core/", "logs/", "delivery/", "cluster/", "application/", "running", "manager"))
    ],
)
def test_the_manager_and_what_it_stands_on_know_no_framework(module: str) -> None:
    assert set() == {name.split(".")[0] for name in imports(module)} & {"fastapi", "starlette", "uvicorn"}


TESTS = Path(__file__).parent
ACROSS_MODULES = {"api/websocket_recovery.py", "init.py"}
"""The acceptance tests of recovery, and the tests of ``unmissed/__init__.py``."""


@pytest.mark.parametrize(
    "test", sorted(path.relative_to(TESTS / "unit") for path in (TESTS / "unit").rglob("test_*.py"))
)
def test_a_unit_test_file_has_the_name_of_a_module(test: Path) -> None:
    """Several files about one module add a word: ``test_portable_websocket.py``."""
    module = test.with_name(test.name.removeprefix("test_"))
    shorter = module.with_name(module.stem.rpartition("_")[0] + ".py")

    assert (SOURCE / module).exists() or (SOURCE / shorter).exists() or str(module) in ACROSS_MODULES
