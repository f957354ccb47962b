"""WebSocket messages that survive reconnects, for FastAPI."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmissed.api.identity import Bearer, get_current_user_id, get_identity
    from unmissed.api.router import create_router
    from unmissed.application.hooks import Connected, Disconnected
    from unmissed.core.audience import Identity
    from unmissed.core.errors import (
        AlreadyRunning,
        CommandError,
        ConfigurationError,
        ConnectionRefused,
        Draining,
        IdempotencyConflict,
        InvalidMessage,
        InvalidToken,
        LogUnavailable,
        NotRunning,
        UnknownConnection,
        UnmissedError,
        WrongThread,
    )
    from unmissed.core.messages import Draft, Message, rfc3339
    from unmissed.core.receipts import Receipt
    from unmissed.core.window import Outcome, Page, Retention, Window
    from unmissed.delivery.connection import Connection
    from unmissed.logs.base import Log, Publication, WindowListener
    from unmissed.main import create_app
    from unmissed.manager import ConnectionManager
    from unmissed.security.access import Access
    from unmissed.security.tokens import JwtVerifier, TokenVerifier, issue_token
    from unmissed.settings import Settings

    __version__: str

__all__ = [
    "Access",
    "AlreadyRunning",
    "Bearer",
    "CommandError",
    "ConfigurationError",
    "Connected",
    "Connection",
    "ConnectionManager",
    "ConnectionRefused",
    "Disconnected",
    "Draft",
    "Draining",
    "IdempotencyConflict",
    "Identity",
    "InvalidMessage",
    "InvalidToken",
    "JwtVerifier",
    "Log",
    "LogUnavailable",
    "Message",
    "NotRunning",
    "Outcome",
    "Page",
    "Publication",
    "Receipt",
    "Retention",
    "Settings",
    "TokenVerifier",
    "UnknownConnection",
    "UnmissedError",
    "Window",
    "WindowListener",
    "WrongThread",
    "__version__",
    "create_app",
    "create_router",
    "get_current_user_id",
    "get_identity",
    "issue_token",
    "rfc3339",
]

# A name is imported when it is first used, so that ``import unmissed.client`` loads neither FastAPI nor python-jose.
_MODULES = {
    "unmissed.api.identity": ("Bearer", "get_current_user_id", "get_identity"),
    "unmissed.api.router": ("create_router",),
    "unmissed.application.hooks": ("Connected", "Disconnected"),
    "unmissed.core.audience": ("Identity",),
    "unmissed.core.errors": (
        "AlreadyRunning",
        "CommandError",
        "ConfigurationError",
        "ConnectionRefused",
        "Draining",
        "IdempotencyConflict",
        "InvalidMessage",
        "InvalidToken",
        "LogUnavailable",
        "NotRunning",
        "UnknownConnection",
        "UnmissedError",
        "WrongThread",
    ),
    "unmissed.core.messages": ("Draft", "Message", "rfc3339"),
    "unmissed.core.receipts": ("Receipt",),
    "unmissed.core.window": ("Outcome", "Page", "Retention", "Window"),
    "unmissed.security.access": ("Access",),
    "unmissed.delivery.connection": ("Connection",),
    "unmissed.logs.base": ("Log", "Publication", "WindowListener"),
    "unmissed.main": ("create_app",),
    "unmissed.manager": ("ConnectionManager",),
    "unmissed.security.tokens": ("JwtVerifier", "TokenVerifier", "issue_token"),
    "unmissed.settings": ("Settings",),
    "unmissed.version": ("__version__",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
