"""The undocumented parts of uvicorn that the protocol classes and the server rely on.

``cli/workers.py`` and ``delivery/checks.py`` name those that they need. A test checks that each attribute exists,
so it fails first if a uvicorn release removes one of them.
"""

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected, get_remote_addr, is_ssl
from uvicorn.server import Server, ServerState

__all__ = [
    "ATTRIBUTES",
    "INSTANCE_ATTRIBUTES",
    "ASGI3Application",
    "ClientDisconnected",
    "Config",
    "FlowControl",
    "HttpToolsProtocol",
    "ProxyHeadersMiddleware",
    "RequestResponseCycle",
    "Server",
    "ServerState",
    "get_remote_addr",
    "is_ssl",
]

ATTRIBUTES = {
    HttpToolsProtocol: (
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
        "send_400_response",
        "shutdown",
    ),
    FlowControl: ("pause_reading", "resume_reading"),
    Server: ("main_loop", "on_tick", "serve", "shutdown", "startup"),
}
"""Methods that are called or overridden, by class."""

INSTANCE_ATTRIBUTES = {
    FlowControl: ("_transport", "read_paused", "write_paused"),
    HttpToolsProtocol: (
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
    Server: ("servers", "server_state", "should_exit", "started"),
    ServerState: ("connections", "tasks"),
    RequestResponseCycle: (
        "chunked_encoding",
        "disconnected",
        "message_event",
        "more_body",
        "response_complete",
        "scope",
    ),
    Config: (
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
}
"""Attributes of instances that are read or set, by class."""
