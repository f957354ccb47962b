"""Asks the kernel for the state of a TCP connection."""

import asyncio
import contextlib
import struct
import sys

if sys.platform == "linux":
    import fcntl
    import termios

    def unacknowledged_bytes(transport: asyncio.Transport) -> int:
        """Return how many bytes of the kernel's send queue the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError, AttributeError):
            (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
            return int(size)
        return 0

else:

    def unacknowledged_bytes(transport: asyncio.Transport) -> int:  # noqa: ARG001
        """Return 0, because this system does not report the number."""
        return 0
