"""WebSocket messages that survive reconnects, for FastAPI."""

from importlib import import_module
from typing import Any

# A name is imported when it is first used, so that ``import unmissed.client`` loads neither FastAPI nor python-jose.
# Type checkers read the same list in the stub beside this file. A test compares the two.
_HOMES = {
    "Access": "unmissed.security.access",
    "AlreadyRunning": "unmissed.core.errors",
    "AsgiWebSocket": "unmissed.delivery.portable",
    "Bearer": "unmissed.api.identity",
    "Channel": "unmissed.logs.base",
    "Chunk": "unmissed.core.chunks",
    "CommandError": "unmissed.core.errors",
    "ConfigurationError": "unmissed.core.errors",
    "Connected": "unmissed.application.hooks",
    "Connection": "unmissed.delivery.connection",
    "ConnectionManager": "unmissed.manager",
    "ConnectionRefused": "unmissed.core.errors",
    "Disconnected": "unmissed.application.hooks",
    "Draft": "unmissed.core.messages",
    "Draining": "unmissed.core.errors",
    "Feed": "unmissed.logs.feed",
    "IdempotencyConflict": "unmissed.core.errors",
    "Identity": "unmissed.core.audience",
    "InvalidMessage": "unmissed.core.errors",
    "InvalidToken": "unmissed.core.errors",
    "InvalidTopic": "unmissed.core.errors",
    "JwksVerifier": "unmissed.security.provider_tokens",
    "JwtVerifier": "unmissed.security.tokens",
    "Log": "unmissed.logs.base",
    "LogUnavailable": "unmissed.core.errors",
    "Message": "unmissed.core.messages",
    "NotRunning": "unmissed.core.errors",
    "Outcome": "unmissed.core.window",
    "Page": "unmissed.core.window",
    "Publication": "unmissed.logs.base",
    "Receipt": "unmissed.core.receipts",
    "RequestRefused": "unmissed.core.errors",
    "RequestUnanswered": "unmissed.core.errors",
    "Retention": "unmissed.core.retention",
    "Rule": "unmissed.core.retention",
    "Settings": "unmissed.settings",
    "Socket": "unmissed.delivery.socket",
    "SocketListener": "unmissed.delivery.socket",
    "TokenRules": "unmissed.security.claims",
    "TokenVerifier": "unmissed.security.tokens",
    "TooManyRequests": "unmissed.core.errors",
    "UnknownConnection": "unmissed.core.errors",
    "UnmissedError": "unmissed.core.errors",
    "Window": "unmissed.core.window",
    "WindowListener": "unmissed.logs.base",
    "WrongThread": "unmissed.core.errors",
    "create_app": "unmissed.main",
    "create_router": "unmissed.api.router",
    "get_current_user_id": "unmissed.api.identity",
    "get_identity": "unmissed.api.identity",
    "issue_token": "unmissed.security.tokens",
    "rfc3339": "unmissed.core.messages",
}
"""Where each public name is defined."""

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  # strings


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "__version__":
        value = import_module("importlib.metadata").version("unmissed")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
