"""Test support: a live server that can drop its clients, a manual clock and an in-memory socket."""

from unmissed.testing.doubles import FakeSocket, ManualClock
from unmissed.testing.server import SECRET, LiveServer

__all__ = ["SECRET", "FakeSocket", "LiveServer", "ManualClock"]
