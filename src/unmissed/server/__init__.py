"""uvicorn protocol classes that write encoded frames, and a server with a bounded shutdown."""

from unmissed.server.drain import Server
from unmissed.server.http import HttpProtocol
from unmissed.server.websocket import WebSocketProtocol

__all__ = ["HttpProtocol", "Server", "WebSocketProtocol"]
