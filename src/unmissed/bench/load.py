"""A lean load generator: raw WebSockets that count messages, and raw HTTP requests on kept connections."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast

from unmissed.bench.server import Target

_MARK = b'"t":'
_HANDSHAKE = (
    "GET /ws{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
)
_REQUEST = (
    "{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class Arrivals:
    """Counts the messages of all clients, samples how late they are, and says when enough have come."""

    def __init__(self) -> None:
        self.messages = 0
        self.late: list[float] = []
        self._expected = 0
        self._enough = asyncio.Event()

    def add(self, messages: int, *, sent_at: int) -> None:
        """Take note of messages that arrived together, the first of them sent at this ``monotonic_ns``."""
        self.messages += messages
        self.late.append((time.monotonic_ns() - sent_at) / 1e9)
        if self.messages >= self._expected:
            self._enough.set()

    async def expect(self, messages: int) -> None:
        """Wait for so many in all."""
        self._expected = messages
        self._enough.clear()
        if self.messages < messages:
            await self._enough.wait()


class Listener(asyncio.Protocol):
    """One WebSocket that reads as fast as it can. It answers nothing."""

    def __init__(self, arrivals: Arrivals, handshake: bytes) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals = arrivals
        self._handshake = handshake
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for the handshake."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Count the messages; a mark that two segments share is kept for the next."""
        if not self.ready.done():
            if not data.startswith(b"HTTP/1.1 101"):
                self.transport.abort()
                return
            self.ready.set_result(None)
        data = self._rest + data
        messages = data.count(_MARK)
        if messages:
            start = data.index(_MARK) + len(_MARK)
            digits = data[start : start + 20].split(b",")[0].split(b"}")[0]
            self._arrivals.add(messages, sent_at=int(digits or 0))
        self._rest = data[-len(_MARK) + 1 :]


class Requests(asyncio.Protocol):
    """One kept HTTP connection with a few requests in flight."""

    def __init__(self, request: Callable[[], bytes], *, count: int, in_flight: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._to_send = count
        self._to_come = count
        self._in_flight = in_flight
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first requests."""
        self.transport = cast("asyncio.Transport", transport)
        for _ in range(self._in_flight):
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Take complete responses, and send a request for each."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._data) < end + 4 + length:
                return
            if not head.startswith(b"http/1.1 20"):
                self.done.set_exception(ConnectionError(f"the server answered {bytes(self._data[:200])!r}"))
                self.transport.abort()
                return
            del self._data[: end + 4 + length]
            self._to_come -= 1
            self._send()
        if not self._to_come and not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def _send(self) -> None:
        if self._to_send:
            self._to_send -= 1
            self.transport.write(self._request())


class Crowd:
    """Many listeners at one server."""

    def __init__(self, target: Target) -> None:
        self.arrivals = Arrivals()
        self._target = target
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._listeners)

    async def join(self, count: int, *, query: str = "", at_once: int = 64) -> None:
        """Let so many more connect, a few at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                self._listeners.append(await self._connect(query))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    async def leave(self) -> None:
        """Let everyone go at once."""
        for listener in self._listeners:
            listener.transport.abort()
        self._listeners.clear()
        await asyncio.sleep(0.5)

    async def _connect(self, query: str) -> Listener:
        target = self._target
        handshake = _HANDSHAKE.format(query=query, host=target.host, port=target.port, token=target.token).encode()
        loop = asyncio.get_running_loop()
        _, listener = await loop.create_connection(lambda: Listener(self.arrivals, handshake), target.host, target.port)
        await listener.ready
        return listener


async def publish(target: Target, *, count: int, size: int, in_flight: int = 1) -> None:
    """Publish messages of ``size`` bytes of padding over one connection, so many in flight."""
    await request(target, "POST", lambda: body_of(size), count=count, in_flight=in_flight)


async def request(
    target: Target,
    method: str,
    body: Callable[[], bytes],
    *,
    count: int,
    in_flight: int = 1,
    path: str = "/websocket/messages",
) -> None:
    """Send one kind of request ``count`` times over one connection."""

    def make() -> bytes:
        content = body()
        head = _REQUEST.format(
            method=method, path=path, host=target.host, port=target.port, token=target.token, length=len(content)
        )
        return head.encode() + content

    loop = asyncio.get_running_loop()
    _, requests = await loop.create_connection(
        lambda: Requests(make, count=count, in_flight=in_flight), target.host, target.port
    )
    await requests.done


def body_of(size: int) -> bytes:
    """Return a message that says when it was sent."""
    return b'{"type":"bench","data":{"t":%d,"pad":"%b"}}' % (time.monotonic_ns(), b"x" * size)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of all lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
