"""``/websocket/client.js``, its source map, and ``/websocket/console/``: public files for browsers, without secrets."""

import os
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import request_response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

CLIENT_PATH = "/websocket/client.js"
SOURCE_MAP_PATH = f"{CLIENT_PATH}.map"
CONSOLE_PATH = "/websocket/console"
"""Redirects to the folder below it, where the files are."""
FOLDER = Path(str(files("unmissed") / "browser"))

_CLIENT = {CLIENT_PATH: "unmissed.min.js", SOURCE_MAP_PATH: "client.js.map"}
"""The file for each path. The client names its source map, which browsers load when their tools are open."""
_REVALIDATED = {"Cache-Control": "no-cache"}
_PUBLIC = {"Access-Control-Allow-Origin": "*"}
# The console works with a token of the scope admin: no other origin may run scripts in it, frame it, or get requests.
_CONFINED = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".map": "application/json",
    ".svg": "image/svg+xml",
}
"""Media types, which Python would take from the system, where ``.js`` may be anything."""


def add_browser_routes(router: APIRouter, *, console: bool) -> None:
    """Add the browser client and, if wanted, the console."""
    client = _Files(FOLDER, _PUBLIC)

    for path, name in _CLIENT.items():
        router.add_route(path, _compressed(_file(client, name)), methods=["GET"], include_in_schema=False)
    if console:
        _add_console(router, _Files(FOLDER / "console", _CONFINED))


def _file(files: "_Files", name: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        return await files.get_response(name, request.scope)

    return respond


def _add_console(router: APIRouter, pages: "_Files") -> None:
    async def console(request: Request) -> Response:
        path = request.path_params["path"] or "index.html"
        return await pages.get_response(path, request.scope)

    async def with_slash(_: Request) -> Response:
        # A relative URL is right under every prefix. It has no query, which would be repeated in logs.
        return RedirectResponse("console/")

    router.add_route(CONSOLE_PATH, with_slash, methods=["GET"], include_in_schema=False)
    router.add_route(f"{CONSOLE_PATH}/{{path:path}}", _compressed(console), methods=["GET"], include_in_schema=False)


def _compressed(respond: Callable[[Request], Awaitable[Response]]) -> Any:
    """Return an endpoint that compresses. It is an application, which routes accept although their types do not."""
    return GZipMiddleware(request_response(respond))


class _Files(StaticFiles):
    """The files in a folder, with these headers. Browsers ask each time whether a file has changed."""

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        super().__init__(directory=folder, check_dir=False)
        self._headers = {**_REVALIDATED, **headers}

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(self._headers)
        kind = _TYPES.get(Path(full_path).suffix)
        if kind and "content-type" in response.headers:
            response.headers["Content-Type"] = kind
        return response
