"""Test support: a live server that can drop its clients, a manual clock and an in-memory socket."""

from unmissed.testing.clock import ManualClock
from unmissed.testing.fake_socket import FakeSocket
from unmissed.testing.server import SECRET, LiveServer

__all__ = ["SECRET", "FakeSocket", "LiveServer", "ManualClock"]
