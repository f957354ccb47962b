"""uvicorn protocol classes that write encoded frames, and a server with a bounded shutdown."""

from unmissed.server.arriving import HttpProtocol
from unmissed.server.drain import Server
from unmissed.server.websocket_protocol import WebSocketProtocol

__all__ = ["HttpProtocol", "Server", "WebSocketProtocol"]
