"""Importing an application, and finding its managers without starting it."""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from unmissed.cli.application import ApplicationPath, LoadedApplication
from unmissed.core.errors import ConfigurationError
from unmissed.testing import SECRET

FIVE_LINES = """
from fastapi import FastAPI
from unmissed import ConnectionManager, create_router

manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))
"""
_numbers = count()

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a module, and returns its name, which no other test has used."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)

    def write(text: str) -> str:
        name = f"written_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], LoadedApplication]:
    return lambda text: ApplicationPath.parse(text, folder=tmp_path).load()


Load = Callable[[str], LoadedApplication]


def refusal(load: Load, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    return str(caught.value)


def test_an_application_of_five_lines_has_its_manager_at_the_root(write: Write, load: Load) -> None:
    name = write(FIVE_LINES)

    loaded = load(f"{name}:app")

    [routed] = loaded.routed
    module = sys.modules[name]
    assert (f"{name}:app", module.app, (module.manager,)) == (loaded.name, loaded.app, loaded.managers)
    assert (module.manager, "", False, "/docs", True) == (
        routed.manager,
        routed.prefix,
        routed.has_console,
        routed.docs_path,
        routed.accepts_jwts,
    )


def test_a_module_alone_means_its_app(write: Write, load: Load) -> None:
    name = write(FIVE_LINES)

    assert f"{name}:app" == load(name).name


def test_a_function_that_returns_an_application_is_called(write: Write, load: Load) -> None:
    indented = FIVE_LINES.strip().replace("\n", "\n    ")
    name = write(f"def create(debug: bool = False):\n    {indented}\n    return app\n")

    loaded = load(f"{name}:create")

    assert [each.manager for each in loaded.routed] == [*loaded.managers] != []


def test_an_attribute_of_an_object_is_found(write: Write, load: Load) -> None:
    name = write(f"{FIVE_LINES}\nclass Shop:\n    web = app\n")

    app = load(f"{name}:Shop.web").app

    assert sys.modules[name].app is app


def test_managers_of_prefixes_of_mounted_applications_and_behind_middleware_are_found(write: Write, load: Load) -> None:
    name = write(
        """
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from unmissed import ConnectionManager, Identity, Settings, create_router

async def anyone() -> Identity:
    return Identity("anyone")

with_console, own, unused = ConnectionManager(Settings(console=True)), ConnectionManager(), ConnectionManager()
inner = FastAPI(docs_url="/manual")
inner.include_router(create_router(own, authenticate=anyone), prefix="/live")
outer = FastAPI(docs_url=None)
outer.include_router(create_router(with_console), prefix="/v1")
outer.mount("/inner", inner)
app = GZipMiddleware(outer)
"""
    )

    loaded = load(name)

    facts = [(each.prefix, each.has_console, each.docs_path, each.accepts_jwts) for each in loaded.routed]
    module = sys.modules[name]
    assert [("/v1", True, None, True), ("/inner/live", False, "/inner/manual", False)] == facts
    assert (module.with_console, module.own, module.unused) == loaded.managers


def test_the_built_in_application_is_found_like_any_other(write: Write, load: Load) -> None:
    name = write(
        "from unmissed.delivery.served_application import ServedApplication\nfrom unmissed.main import create_app\n"
        "app = ServedApplication(create_app)\n"
    )

    [routed] = load(name).routed

    assert "/docs" == routed.docs_path


def test_an_application_without_this_package_has_no_managers(write: Write, load: Load) -> None:
    name = write("async def app(scope, receive, send): ...\n")

    loaded = load(name)

    assert ((), ()) == (loaded.routed, loaded.managers)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("shop/main.py", "write shop.main:app"),
        ("./shop/main.py:web", "write shop.main:web"),
        ("shop\\main.py", "write shop.main:app"),
        ("", "write module:attribute"),
        ("shop.main:", "write module:attribute"),
        (":app", "write module:attribute"),
        ("shop..main:app", "write module:attribute"),
        ("shop.main:app:web", "write module:attribute"),
        ("shop main", "write module:attribute"),
    ],
)
def test_what_is_no_path_is_refused_with_an_example(load: Load, text: str, hint: str) -> None:
    assert hint in refusal(load, text)


@pytest.mark.parametrize("name", ["nothing_here:app", "nothing.here:app", "sys.here:app"])
def test_a_module_that_is_missing_is_refused_with_the_folder(
    load: Load, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])

    text = refusal(load, name)

    assert f"the module {name.removesuffix(':app')} is not in {tmp_path}" in text
    assert "--app-dir" in text


def test_an_attribute_that_is_missing_is_refused_with_what_there_is(write: Write, load: Load) -> None:
    name = write(FIVE_LINES.replace("app", "web"))

    assert f"the module {name} has no 'app': write {name}:web" == refusal(load, name)


@pytest.mark.parametrize("value", ["None", "'web'", "__import__('fastapi').FastAPI", "lambda: None"])
def test_what_is_no_application_is_refused(write: Write, load: Load, value: str) -> None:
    name = write(f"app = {value}\n")

    assert "no ASGI application: name the FastAPI object" in refusal(load, name)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nothing_here\n", "ModuleNotFoundError: No module named 'nothing_here'"),
        ("def app(:\n", "SyntaxError: "),
        ("def app():\n    return 1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_in_the_users_code_is_shown_with_its_own_traceback(
    write: Write, load: Load, text: str, error: str
) -> None:
    name = write(text)

    shown = refusal(load, name)

    assert error in shown.splitlines()[-1]
    assert f'{name}.py", line' in shown
    assert "importlib" not in shown
    assert "unmissed/cli" not in shown


def test_an_invalid_setting_is_shown_without_a_traceback(
    write: Write, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNMISSED_JWT_SECRET")
    name = write(FIVE_LINES)

    assert refusal(load, name).startswith("UNMISSED_JWT_SECRET is not set")
