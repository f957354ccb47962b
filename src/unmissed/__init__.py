"""WebSocket messages that survive reconnects, for FastAPI."""

from unmissed.api.auth import Bearer, get_current_user_id, get_identity
from unmissed.api.router import create_router
from unmissed.api.tokens import JwtVerifier, TokenVerifier, issue_token
from unmissed.core.audience import Identity
from unmissed.core.errors import (
    ConfigurationError,
    InvalidMessage,
    InvalidToken,
    NotRunning,
    UnknownConnection,
    UnmissedError,
    WrongThread,
)
from unmissed.core.messages import Message
from unmissed.core.window import Outcome, Recovery
from unmissed.delivery.connection import Connection
from unmissed.delivery.manager import ConnectionManager
from unmissed.main import create_app
from unmissed.settings import Settings

__all__ = [
    "Bearer",
    "ConfigurationError",
    "Connection",
    "ConnectionManager",
    "Identity",
    "InvalidMessage",
    "InvalidToken",
    "JwtVerifier",
    "Message",
    "NotRunning",
    "Outcome",
    "Recovery",
    "Settings",
    "TokenVerifier",
    "UnknownConnection",
    "UnmissedError",
    "WrongThread",
    "create_app",
    "create_router",
    "get_current_user_id",
    "get_identity",
    "issue_token",
]
