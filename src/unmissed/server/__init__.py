"""The uvicorn side: a WebSocket class that writes ready frames, and a server that drains."""

from unmissed.server.drain import Server
from unmissed.server.http import HttpProtocol
from unmissed.server.websocket import WebSocketProtocol

__all__ = ["HttpProtocol", "Server", "WebSocketProtocol"]
