"""A Python client that reconnects, resumes from its position, reports what it lost, and is executed once."""

from unmissed.client.connecting import TokenProvider, clean_token, websocket_url
from unmissed.client.kept_values import KeptValue
from unmissed.client.link import Status
from unmissed.client.message_stream import Snapshot, Stream, connect
from unmissed.client.received import Event, Gap, ReceivedMessage, Reset, StateLoaded, Unreadable

__all__ = [
    "Event",
    "Gap",
    "KeptValue",
    "ReceivedMessage",
    "Reset",
    "Snapshot",
    "StateLoaded",
    "Status",
    "Stream",
    "TokenProvider",
    "Unreadable",
    "clean_token",
    "connect",
    "websocket_url",
]
