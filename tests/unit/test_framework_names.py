"""The frameworks still have every undocumented name that this package relies on."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from source import trees
from unmissed import framework_names
from unmissed.framework_names import (
    NAMES,
    Config,
    Dependant,
    FlowControl,
    HttpToolsProtocol,
    Process,
    ProxyHeadersMiddleware,
    RequestResponseCycle,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_where_it_was(name: str) -> None:
    assert getattr(framework_names, name) is not None


def test_another_name_is_unknown() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        framework_names.Nothing  # noqa: B018  # it raises


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, each in NAMES.items() for name in each.methods])
def test_a_method_is_there(owner: str, name: str) -> None:
    assert callable(getattr(getattr(framework_names, owner), name))


@pytest.fixture
async def instances() -> dict[str, object]:
    config = Config("unmissed.main:app", log_config=None, ws="none")
    config.load()
    state = ServerState()
    protocol = HttpToolsProtocol(config, state, {})
    protocol.on_message_begin()
    return {
        "Config": config,
        "Dependant": Dependant(),
        "FlowControl": FlowControl(cast("Any", None)),
        "HttpToolsProtocol": protocol,
        "Multiprocess": inspect.getsource(framework_names.Multiprocess),
        "Process": Process(config, []),
        "ProxyHeadersMiddleware": ProxyHeadersMiddleware(cast("Any", None)),
        "RequestResponseCycle": RequestResponseCycle(
            **dict.fromkeys(inspect.signature(RequestResponseCycle).parameters, cast("Any", None))
        ),
        "Server": uvicorn.Server(config),
        "ServerState": state,
    }


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, each in NAMES.items() for name in each.attributes]
)
async def test_an_attribute_is_there(instances: dict[str, object], owner: str, name: str) -> None:
    instance = instances[owner]
    annotated = {key for each in type(instance).__mro__ for key in getattr(each, "__annotations__", {})}

    # Some are set when the object starts to work, and are only written down before.
    source = inspect.getsource(getattr(framework_names, owner))
    assert hasattr(instance, name) or name in annotated or f"self.{name}" in source


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_undocumented(name: str) -> bool:
    framework, *parts = name.split(".")
    if framework == "uvicorn":
        return len(parts) > 1
    private = any(part.startswith("_") for part in parts) or parts[:1] == ["dependencies"]
    return framework in {"fastapi", "starlette"} and private


PRIVATE = {name for each in NAMES.values() for name in (*each.methods, *each.attributes) if name.startswith("_")}


def used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_no_other_module_imports_what_is_undocumented() -> None:
    found = {module: [name for name in imported(tree) if is_undocumented(name)] for module, tree in trees().items()}

    assert ["framework_names.py"] == [module for module, names in found.items() if names]


def test_no_other_module_uses_or_overrides_what_is_private() -> None:
    found = {module: PRIVATE & {*used(tree)} for module, tree in trees().items()}

    assert {"framework_names.py": PRIVATE} == {module: names for module, names in found.items() if names}


def test_a_manager_needs_no_server_and_no_web_framework() -> None:
    code = "import sys, unmissed.manager; print({'uvicorn', 'fastapi', 'starlette'} & {*sys.modules})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)  # noqa: S603

    assert "set()" == done.stdout.strip()
