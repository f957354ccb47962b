"""Test support: a live server that can drop its clients, a manual clock and an in-memory socket."""

from unmissed.testing.clock import ManualClock
from unmissed.testing.server import SECRET, LiveServer
from unmissed.testing.socket import FakeSocket

__all__ = ["SECRET", "FakeSocket", "LiveServer", "ManualClock"]
