"""``shop.main:app``: imports the application of a user, and finds its managers and their paths without starting it."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Self

import typer
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, WebSocketRoute

from unmissed.api.browser_routes import CONSOLE_PATH
from unmissed.api.websocket_endpoint import PATH as WEBSOCKET_PATH
from unmissed.api.websocket_endpoint import WebSocketEndpoint
from unmissed.core.errors import ConfigurationError, UnmissedError
from unmissed.delivery.served_application import ServedApplication
from unmissed.framework_names import effective_routes
from unmissed.main import create_app
from unmissed.manager import ConnectionManager
from unmissed.settings import Settings

DEFAULT_ATTRIBUTE = "app"
BUILT_IN = "unmissed.main:app"

ApplicationArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:APP",
        help="Your ASGI application, or a function that returns it, such as shop.main:app. ':app' may be left out.",
        show_default=False,
    ),
]
FolderOption = Annotated[
    Path, typer.Option("--app-dir", file_okay=False, exists=True, help="The folder that contains the module.")
]


@dataclass(frozen=True, slots=True)
class RoutedManager:
    """A manager that an application serves with ``create_router``, and under which paths."""

    manager: ConnectionManager
    prefix: str
    """What comes before ``/ws`` and all other paths of the router."""
    has_console: bool
    docs_path: str | None
    """The interactive documentation of the application that includes the router."""
    accepts_jwts: bool
    """Whether clients authenticate with JWTs of the manager's settings, and not in a way of the application's own."""


@dataclass(frozen=True, slots=True)
class LoadedApplication:
    """An ASGI application that is imported and not started."""

    name: str
    app: Any
    routed: tuple[RoutedManager, ...]
    managers: tuple[ConnectionManager, ...]
    """Those that it serves, then any others that the module names."""

    @classmethod
    def of(cls, app: Any, *, name: str, namespace: Iterable[object] = ()) -> Self:
        """Find the managers of an application, and those among the values of its module."""
        routed = tuple(_routed(app))
        named = [value for value in namespace if isinstance(value, ConnectionManager)]
        managers = dict.fromkeys((*(each.manager for each in routed), *named))
        return cls(name, app, routed, tuple(managers))


@dataclass(frozen=True, slots=True)
class ApplicationPath:
    """Where an application is: the name of a module in a folder, and a name in the module."""

    module: str
    attribute: str
    folder: Path

    @classmethod
    def parse(cls, text: str, *, folder: Path) -> Self:
        """Read ``shop.main:app``, or ``shop.main``. Raises ConfigurationError."""
        module, colon, attribute = text.partition(":")
        if module.endswith(".py") or "/" in module or "\\" in module:
            guess = module.replace("\\", "/").removesuffix(".py").strip("./").replace("/", ".")
            raise ConfigurationError(f"{module!r} is a file: write {guess}:{attribute or DEFAULT_ATTRIBUTE}")
        names = [*module.split("."), *(attribute.split(".") if colon else ())]
        if not all(map(str.isidentifier, names)):
            raise ConfigurationError(f"{text!r} is not an application: write module:attribute, such as shop.main:app")
        return cls(module, attribute or DEFAULT_ATTRIBUTE, folder.resolve())

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    def load(self) -> LoadedApplication:
        """Import the application, and call it if it is a function that returns one. Raises ConfigurationError.

        The text of the exception contains the traceback of an exception in the user's code.
        """
        module = self._imported()
        app = self._created(self._found_in(module))
        return LoadedApplication.of(app, name=str(self), namespace=vars(module).values())

    def _imported(self) -> ModuleType:
        # Console scripts do not have the working directory on the path.
        if sys.path[:1] != [str(self.folder)]:
            sys.path.insert(0, str(self.folder))
        try:
            module: ModuleType = _run(lambda: importlib.import_module(self.module), f"{self.module} cannot be imported")
        except ModuleNotFoundError:
            raise ConfigurationError(
                f"the module {self.module} is not in {self.folder}: run the command where it is, or name its folder "
                "with --app-dir"
            ) from None
        return module

    def _found_in(self, module: ModuleType) -> Any:
        found: Any = module
        for name in self.attribute.split("."):
            if not hasattr(found, name):
                others = [name for name, value in vars(module).items() if isinstance(value, Starlette)]
                hint = " or ".join(f"{self.module}:{name}" for name in others) or "module:attribute"
                raise ConfigurationError(f"the module {self.module} has no {self.attribute!r}: write {hint}")
            found = getattr(found, name)
        return found

    def _created(self, found: Any) -> Any:
        """Return the application, created if this is a function for that."""
        if isinstance(found, ServedApplication):
            return found.application
        if _takes_no_arguments(found):
            found = _run(found, f"{self} failed")
        if not callable(found) or inspect.isclass(found):
            kind = type(found).__name__
            raise ConfigurationError(
                f"{self} is a {kind} and no ASGI application: name the FastAPI object, or a function that returns it"
            )
        return found


def built_in(settings: Settings) -> LoadedApplication:
    """Return the built-in application. Raises ConfigurationError."""
    return LoadedApplication.of(create_app(settings), name=BUILT_IN)


def _run(call: Callable[[], Any], failure: str) -> Any:
    """Call the user's code. Raises ConfigurationError with its traceback, or ModuleNotFoundError without any code."""
    try:
        return call()
    except UnmissedError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_between(frame.filename)]
        if isinstance(error, ModuleNotFoundError) and not frames:
            raise
        lines = traceback.TracebackException.from_exception(error)
        lines.stack = traceback.StackSummary.from_list(frames)
        raise ConfigurationError(f"{failure}:\n{''.join(lines.format())}".rstrip()) from None


def _is_between(file: str) -> bool:
    """Return whether a file is this one or part of the import system: its frames say nothing about the user's code."""
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _takes_no_arguments(found: Any) -> bool:
    """Return whether this can be called as ``create_app()``: ASGI applications have three arguments."""
    if not callable(found) or inspect.isclass(found):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _routed(app: Any, prefix: str = "") -> Iterator[RoutedManager]:
    """Yield what ``create_router`` has added to an application, and to those that are mounted in it."""
    while not hasattr(app, "routes"):
        # Middleware, by the convention of Starlette, shows what it wraps.
        app = getattr(app, "app", None)
        if app is None:
            return
    routes = [*effective_routes(app.routes)]
    for route in routes:
        if isinstance(route, Mount | Host):
            yield from _routed(route.app, prefix + getattr(route, "path", ""))
        elif isinstance(route, WebSocketRoute) and isinstance(route.endpoint, WebSocketEndpoint):
            yield _described(route, routes, app=app, prefix=prefix)


def _described(route: WebSocketRoute, routes: Iterable[BaseRoute], *, app: object, prefix: str) -> RoutedManager:
    endpoint: WebSocketEndpoint = route.endpoint  # type: ignore[assignment]  # Starlette declares functions only
    own = route.path.removesuffix(WEBSOCKET_PATH)
    paths = {getattr(each, "path", None) for each in routes}
    docs = app.docs_url if isinstance(app, FastAPI) and app.openapi_url else None
    return RoutedManager(
        endpoint.manager,
        prefix + own,
        has_console=own + CONSOLE_PATH in paths,
        docs_path=prefix + docs if docs else None,
        accepts_jwts=endpoint.accepts_jwts,
    )
