"""The ASGI scope of a WebSocket (ASGI 3, spec 2.4)."""

import asyncio
from typing import Any
from urllib.parse import quote, unquote

from unmissed.server.uvicorn_names import Config, get_local_addr, get_remote_addr, is_ssl

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
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
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


def address_and_path(scope: AsgiScope) -> tuple[str, str]:
    """Return client and path for a log line, without the query string, which may contain a token."""
    return ":".join(map(str, scope["client"] or ())), quote(scope["path"])
