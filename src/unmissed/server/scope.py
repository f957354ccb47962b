"""The ASGI scope of a WebSocket (ASGI 3, spec 2.4)."""

import asyncio
from typing import Any
from urllib.parse import quote, unquote

from unmissed.server.uvicorn_names import Config, is_ssl

AsgiScope = dict[str, Any]


def websocket_scope(
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    config: Config,
    transport: asyncio.Transport,
    state: dict[str, Any],
    extensions: dict[str, Any],
) -> AsgiScope:
    """Return the scope for a request target such as ``/ws?since=1``. Names of headers are in lower case."""
    raw_path, _, query = target.partition(b"?")
    root_path = config.root_path
    return {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": _address(transport, "sockname"),
        "client": _address(transport, "peername"),
        "root_path": root_path,
        "path": root_path + unquote(raw_path.decode("latin-1")),
        "raw_path": root_path.encode("ascii") + raw_path,
        "query_string": query,
        "headers": headers,
        "subprotocols": [
            protocol.strip()
            for name, value in headers
            if name == b"sec-websocket-protocol"
            for protocol in value.decode("latin-1").split(",")
        ],
        "state": state.copy(),
        "extensions": extensions,
    }


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int | None] | None:
    """Return one of the two addresses of a connection: of a Unix socket its path, if it has one.

    uvicorn's functions ask the operating system again, which takes three times as long.
    """
    match transport.get_extra_info(name):
        case (host, port, *_):
            return str(host), int(port)
        case str(path) if path:
            return path, None
        case _:
            return None


def address_and_path(scope: AsgiScope) -> tuple[str, str]:
    """Return client and path for a log line, without the query string, which may contain a token."""
    return ":".join(map(str, scope["client"] or ())), quote(scope["path"])
