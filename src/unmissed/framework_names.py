"""The undocumented parts of uvicorn, FastAPI and Starlette that this package relies on. No other module names any.

``NAMES`` lists classes with the methods that are called or overridden, and the attributes that are read or set. A test
checks that each exists, so it fails first if a release removes one. A class is imported when it is first asked for: the
manager needs no server.
"""

# ruff: noqa: PLC0414  # "Config as Config" lets other modules import it from here.

import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi import FastAPI
    from fastapi.dependencies.models import Dependant as Dependant
    from fastapi.routing import APIRoute
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp
    from uvicorn._types import ASGI3Application as ASGI3Application
    from uvicorn.config import LOGGING_CONFIG as LOGGING_CONFIG
    from uvicorn.config import STARTUP_FAILURE as STARTUP_FAILURE
    from uvicorn.config import Config as Config
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware as ProxyHeadersMiddleware
    from uvicorn.protocols.http.flow_control import FlowControl as FlowControl
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpToolsProtocol
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as RequestResponseCycle
    from uvicorn.protocols.utils import ClientDisconnected as ClientDisconnected
    from uvicorn.protocols.utils import get_remote_addr as get_remote_addr
    from uvicorn.protocols.utils import is_ssl as is_ssl
    from uvicorn.server import Server as Server
    from uvicorn.server import ServerState as ServerState
    from uvicorn.supervisors.multiprocess import Multiprocess as Multiprocess
    from uvicorn.supervisors.multiprocess import Process as Process

    _Requests = HttpToolsProtocol
else:
    _Requests = object


@dataclass(frozen=True, slots=True)
class Name:
    """Where a name is found, and what is used of it."""

    module: str
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


NAMES = {
    "ASGI3Application": Name("uvicorn._types"),
    "ClientDisconnected": Name("uvicorn.protocols.utils"),
    "Config": Name(
        "uvicorn.config",
        attributes=(
            "asgi_version",
            "forwarded_allow_ips",
            "loaded_app",
            "proxy_headers",
            "root_path",
            "timeout_graceful_shutdown",
            "ws_max_size",
            "ws_ping_interval",
            "ws_ping_timeout",
        ),
    ),
    "Dependant": Name("fastapi.dependencies.models", attributes=("call", "dependencies", "name", "request_param_name")),
    "FlowControl": Name(
        "uvicorn.protocols.http.flow_control",
        methods=("pause_reading", "resume_reading"),
        attributes=("read_paused", "write_paused"),
    ),
    "HttpToolsProtocol": Name(
        "uvicorn.protocols.http.httptools_impl",
        methods=(
            "_should_upgrade",
            "_start_asgi_task",
            "_unset_keepalive_if_required",
            "_unsupported_upgrade_warning",
            "connection_lost",
            "connection_made",
            "data_received",
            "handle_websocket_upgrade",
            "on_body",
            "on_header",
            "on_headers_complete",
            "on_message_begin",
            "on_message_complete",
            "on_response_complete",
            "on_url",
            "shutdown",
        ),
        attributes=(
            "client",
            "connections",
            "cycle",
            "flow",
            "logger",
            "loop",
            "parser",
            "pipeline",
            "server_state",
            "transport",
            "url",
        ),
    ),
    "LOGGING_CONFIG": Name("uvicorn.config"),
    "Multiprocess": Name("uvicorn.supervisors.multiprocess", methods=("run",), attributes=("processes",)),
    "Process": Name(
        "uvicorn.supervisors.multiprocess",
        methods=("always_pong", "pong", "target"),
        attributes=("child_conn", "config", "exitcode", "parent_conn"),
    ),
    "ProxyHeadersMiddleware": Name("uvicorn.middleware.proxy_headers", attributes=("app",)),
    "RequestResponseCycle": Name(
        "uvicorn.protocols.http.httptools_impl",
        attributes=(
            "chunked_encoding",
            "disconnected",
            "message_event",
            "more_body",
            "response_complete",
            "scope",
        ),
    ),
    "STARTUP_FAILURE": Name("uvicorn.config"),
    "Server": Name(
        "uvicorn.server",
        methods=("main_loop", "on_tick", "serve", "shutdown", "startup"),
        attributes=("servers", "server_state", "should_exit", "started"),
    ),
    "ServerState": Name("uvicorn.server", attributes=("connections", "tasks")),
    "get_remote_addr": Name("uvicorn.protocols.utils"),
    "is_ssl": Name("uvicorn.protocols.utils"),
}


def __getattr__(name: str) -> Any:
    """Return a name of a framework, and import it now."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NAMES[name].module), name)


# uvicorn


class RequestHooks(_Requests):
    """Goes before HttpToolsProtocol in a list of base classes: its undocumented methods, under names of our own."""

    def request_starts(self, cycle: "RequestResponseCycle") -> None:
        """Handle a request that starts: after its head, or, if it was pipelined, after the response before it."""

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        self.request_starts(cycle)
        super()._start_asgi_task(cycle, app)

    def stop_keepalive_timer(self) -> None:
        """Do not close the connection for want of another request."""
        self._unset_keepalive_if_required()

    def accepts_upgrade(self) -> bool:
        """Return whether the request asks for a WebSocket, and the server has a class for them. Log it if not."""
        if self._should_upgrade():
            return True
        self._unsupported_upgrade_warning()
        return False


def server_stops() -> bool:
    """Return whether uvicorn has received SIGTERM. It waits for every response, and ends the lifespan afterwards.

    Its signal handler is a method of the server. Other servers set a limit to the time that they wait.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True


def start_workers_of(kind: "type[Process]") -> None:
    """Make the supervisor create workers of this class. It looks the class up by name, and offers no other way."""
    import_module(NAMES["Multiprocess"].module).Process = kind  # type: ignore[attr-defined]


# FastAPI


def effective_routes(routes: "Iterable[BaseRoute]") -> "Iterator[BaseRoute]":
    """Return the routes of an application with what including their routers has added.

    Newer versions of FastAPI keep an included router as one route, which knows the routes in it.
    """
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            for context in contexts():
                yield context.starlette_route or context.original_route


def middlewares(app: "FastAPI") -> "list[ASGIApp] | None":
    """Return the layers around the router of an application that has started, the outermost first.

    None if one of them does not show what it wraps, or the application has not started.
    """
    layers, layer = list[Any](), app.middleware_stack
    while layer is not app.router:
        if layer is None:
            return None
        layers.append(layer)
        layer = getattr(layer, "app", None)
    return layers


_OWN_LAYERS = frozenset(
    (
        "fastapi._body_limit.AppBodyLimitMiddleware",
        "fastapi.middleware.asyncexitstack.AsyncExitStackMiddleware",
        "fastapi.telemetry._asgi.ExceptionTelemetryMiddleware",
        "starlette.middleware.errors.ServerErrorMiddleware",
        "starlette.middleware.exceptions.ExceptionMiddleware",
    )
)
"""The layers that FastAPI itself puts around every application. They pass WebSockets on unchanged."""


def is_own_layer(layer: object) -> bool:
    """Return whether a layer is FastAPI's own, and as it was written. A package may add layers to all applications."""
    kind = type(layer)
    return f"{kind.__module__}.{kind.__qualname__}" in _OWN_LAYERS and is_as_written(
        vars(kind).get("__call__"), module=kind.__module__
    )


def is_as_written(function: object, *, module: str) -> bool:
    """Return whether a function is the one in the file of its module, and was not replaced by another package.

    Wrappers copy the name and the module of what they wrap, and may imitate its class, but they are from another file.
    """
    return type(function) is FunctionType and function.__code__.co_filename == sys.modules[module].__file__


def traces_websockets(app: "FastAPI") -> bool:
    """Return whether FastAPI's own telemetry, which newer versions have, records the WebSockets of an application."""
    telemetry = getattr(app, "_native_telemetry", None)
    return telemetry is not None and telemetry.enabled()


def injected_by(route: "APIRoute") -> Any:
    """Return what FastAPI builds a handler for now: its ``dependant`` knows all that is injected. None if unknown.

    Call it in ``get_route_handler``. While a route is created, it is the route itself. Newer versions build another
    handler for each inclusion of the route in a router, and only the inclusion knows the dependencies of that router.
    """
    if not hasattr(route, "app"):  # The last attribute that creating a route sets.
        return route
    current = getattr(import_module("fastapi.routing"), "_effective_route_context_var", None)
    inclusion = current and current.get()
    return inclusion if inclusion is not None and inclusion.original_route is route else None
