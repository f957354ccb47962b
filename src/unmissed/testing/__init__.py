"""Test support: a live server that drops its clients, a clock moved by hand, a socket in memory."""

from unmissed.testing.clock import ManualClock
from unmissed.testing.server import SECRET, LiveServer
from unmissed.testing.socket import FakeSocket

__all__ = ["SECRET", "FakeSocket", "LiveServer", "ManualClock"]
