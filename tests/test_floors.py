"""The house: imports go down only and make no circle, names mean one thing, and a file holds a whole thought."""

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from source import SOURCE, trees

FLOORS = [
    {"core", "framework_names", "tasks", "retrying"},
    {"settings"},
    {"security"},
    {"logs"},
    {"transactions"},
    {"delivery"},
    {"cluster"},
    {"application"},
    {"running"},
    {"tracing"},
    {"manager"},
    {"api", "server"},
    {"main", "client"},
    {"testing", "lab"},
    {"cli", "pytest_plugin"},
    {"__main__"},
    {"__init__"},
    {"examples"},
]
IMPURE = {"asyncio", "time", "socket", "threading", "random", "fastapi", "starlette", "uvicorn", "websockets", "jose"}


def imports(tree: ast.Module) -> set[str]:
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return named | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def frameworks(tree: ast.Module, names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in imports(tree)} & names


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def test_imports_go_down_only() -> None:
    up = [
        (module, room)
        for module, tree in trees().items()
        for room in {name.split(".")[1] for name in imports(tree) if name.startswith("unmissed.")}
        if room != (own := Path(module).parts[0].partition(".")[0]) and floor(room) >= floor(own)
    ]

    assert [] == up


def test_the_core_is_pure() -> None:
    core = {module: tree for module, tree in trees().items() if module.startswith("core/")}

    impure = [module for module, tree in core.items() if frameworks(tree, IMPURE)]
    waiting = [
        module
        for module, tree in core.items()
        if any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(tree))
    ]

    assert core
    assert ([], []) == (impure, waiting)


def test_the_manager_and_what_it_stands_on_know_no_framework() -> None:
    below = (
        "core/",
        "logs/",
        "transactions/",
        "delivery/",
        "cluster/",
        "application/",
        "running",
        "tracing",
        "manager",
    )

    found = [
        module
        for module, tree in trees().items()
        if module.startswith(below) and frameworks(tree, {"fastapi", "starlette", "uvicorn"})
    ]

    assert [] == found


TESTS = Path(__file__).parent
ACROSS_MODULES = {"api/websocket_recovery.py", "init.py"}
"""The acceptance tests of recovery, and the tests of ``unmissed/__init__.py``."""


def test_a_unit_test_file_has_the_name_of_a_module() -> None:
    """Several files about one module add a word: ``test_portable_websocket.py``."""
    tests = [path.relative_to(TESTS / "unit") for path in (TESTS / "unit").rglob("test_*.py")]

    assert [] == [test for test in tests if not has_the_name_of_a_module(test)]


def has_the_name_of_a_module(test: Path) -> bool:
    module = test.with_name(test.name.removeprefix("test_"))
    shorter = module.with_name(module.stem.rpartition("_")[0] + ".py")
    return (SOURCE / module).exists() or (SOURCE / shorter).exists() or str(module) in ACROSS_MODULES


REPEATED_FILES = {"__init__.py", "__main__.py", "engine.py", "log.py"}
"""Python gives the first two their names. The others implement a contract: each engine, and each log."""

ENTRY_POINTS = {"__init__.py", "__main__.py", "pytest_plugin.py", "tutorial.py"}
"""Files that Python and pytest look for. They may be as short as they like."""

COMMANDS = {"bench", "publish", "serve", "tail", "verify"}
"""Functions in ``cli``: each of their parameters is an option of the command line."""

LEAST_LINES = 40
MOST_PARAMETERS = 8


def repeated(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that occur in several places, with these."""
    places: dict[str, list[str]] = {}
    for name, place in names:
        places.setdefault(name, []).append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_file_name_means_one_thing() -> None:
    found = repeated((Path(module).name, module) for module in trees())

    assert {} == {name: places for name, places in found.items() if name not in REPEATED_FILES}


def test_a_type_name_means_one_thing() -> None:
    """A leading underscore makes no difference: a reader who searches for one finds the other."""
    assert {} == repeated((name.lstrip("_"), module) for module, tree in trees().items() for name in types(tree))


def types(tree: ast.Module) -> Iterator[str]:
    """Yield the names of classes and of type aliases."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        match node:
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) if re.fullmatch("_?[A-Z][A-Za-z]*[a-z][A-Za-z]*", name):
                yield name


def test_a_file_holds_a_whole_thought() -> None:
    lines = {module: len((SOURCE / module).read_text().splitlines()) for module in trees()}

    short = {module: count for module, count in lines.items() if count < LEAST_LINES}

    assert {} == {module: count for module, count in short.items() if Path(module).name not in ENTRY_POINTS}


def test_a_function_has_few_parameters() -> None:
    """Constructors of dataclasses are no functions here: they take the facts that they hold."""
    functions = {
        f"{module}: {node.name}": parameters(node)
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not (module.startswith("cli/") and node.name in COMMANDS)
    }

    assert {} == {name: count for name, count in functions.items() if count > MOST_PARAMETERS}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many parameters a function has besides ``self`` or ``cls``."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_imports_make_no_circle() -> None:
    """Imports for types count, too: two modules that need each other's types are one thought."""
    names = {name_of(module): module for module in trees()}

    order = TopologicalSorter({name: imported(module, names) for name, module in names.items()})

    assert len(names) == len([*order.static_order()])  # Raises CycleError, which names the circle.


def name_of(module: str) -> str:
    return ".".join(["unmissed", *Path(module).with_suffix("").parts]).removesuffix(".__init__")


def imported(module: str, known: Collection[str]) -> set[str]:
    """Return the modules that a module imports: a package, or those of its modules that are named."""
    tree = trees()[module]
    found = {name for name in imports(tree) if name in known}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & {*known}
            found = (found - {node.module} if inner else found) | inner
    return found
