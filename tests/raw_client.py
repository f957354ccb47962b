"""A TCP client that may break every rule."""

import base64
import ctypes
import os
import select
import socket
import struct
from typing import Self

from websockets.frames import Frame, Opcode

from unmissed.testing import LiveServer

_SO_ATTACH_FILTER = 26
_RETURN_NOTHING = struct.pack("HBBI", 6, 0, 0, 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class RawClient:
    """A blocking client that sends bytes as they are. Beside coroutines, run it in a thread."""

    def __init__(self, url: str, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        try:
            self.socket.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def frame(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        self.send(Frame(opcode, data, fin).serialize(mask=True))

    def request(self, *lines: str, method: str = "GET", path: str = "/ws", body: bytes = b"") -> None:
        """Send a handshake. A line replaces the header of its name, or removes it if it has no value."""
        fields = {
            "Host": "test",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        for line in lines:
            name, _, value = line.partition(":")
            fields.pop(name, None)
            if value:
                fields[name] = value.strip()
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def handshake(self, *lines: str, path: str = "/ws") -> Self:
        """Open a WebSocket."""
        self.request(*lines, path=path)
        assert self.head().startswith(b"HTTP/1.1 101")
        return self

    def head(self) -> bytes:
        """Return the head of the next answer."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += self.exactly(1)
        return data

    def answer(self) -> tuple[int, bytes]:
        """Return status and body of the next answer, which must have a length."""
        head = self.head().lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), self.exactly(length)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise EOFError(data)
            data += chunk
        return data

    def next_frame(self) -> tuple[Opcode, bytes]:
        first, size = self.exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", self.exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.exactly(8))
        return Opcode(first & 0x0F), self.exactly(size)

    def close_code(self) -> int:
        """Return the code of the close frame, reading everything before it."""
        opcode, data = self.next_frame()
        while opcode is not Opcode.CLOSE:
            opcode, data = self.next_frame()
        return int(struct.unpack("!H", data[:2])[0])

    def rest(self) -> bytes:
        """Return everything until the server closes or resets the connection."""
        data = b""
        try:
            while chunk := self.socket.recv(65_536):
                data += chunk
        except ConnectionResetError:
            pass
        return data

    def send_until_answered(self, data: bytes, *, seconds_between: float = 0.0) -> None:
        """Send this again and again, until the server answers or closes."""
        try:
            while not select.select([self.socket], [], [], seconds_between)[0]:
                self.send(data)
        except (ConnectionResetError, BrokenPipeError):
            pass

    def send_without_reading(self, data: bytes, *, total: int) -> int:
        """Send this again and again and never read. Return how many bytes were sent when the server ended it."""
        sent = 0
        try:
            while sent < total:
                sent += self.socket.send(data)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return sent

    def reset(self) -> None:
        """Close the connection with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def silence(self) -> None:
        """Acknowledge nothing from now on, like a peer behind a cut cable. Close with an RST in the end.

        A socket filter (socket(7)) drops every segment before TCP sees it. It needs no privileges, unlike a firewall.
        """
        instructions = ctypes.create_string_buffer(_RETURN_NOTHING)
        program = struct.pack("HP", 1, ctypes.addressof(instructions))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def authorization(server: LiveServer, user_id: str = "alice") -> str:
    """Return the header line that authenticates this user."""
    return f"Authorization: Bearer {server.token(user_id)}"
