"""uvicorn protocol classes that write encoded frames, a server with a bounded shutdown, and a worker for gunicorn."""

from typing import TYPE_CHECKING, Any

from unmissed.server.arriving import HttpProtocol
from unmissed.server.drain import Server
from unmissed.server.websocket_protocol import WebSocketProtocol

if TYPE_CHECKING:
    from unmissed.server.gunicorn_worker import GunicornWorker

__all__ = ["GunicornWorker", "HttpProtocol", "Server", "WebSocketProtocol"]


def __getattr__(name: str) -> Any:
    """Return the worker class, which is imported when gunicorn asks for it: gunicorn is optional."""
    if name != "GunicornWorker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unmissed.server.gunicorn_worker import GunicornWorker  # noqa: PLC0415

    return GunicornWorker
