"""The load generator: raw WebSockets that count messages, raw HTTP requests, and calm clients beside a storm."""

import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import cast

import uvloop

from unmissed.core.rest import EVENTS_PATH
from unmissed.lab.bench.target import Target

CALM_CLIENTS = 50
CALM_PER_SECOND = 50
_SETTLE_SECONDS = 0.5
_MARK = b'"t":'
_OPENINGS = {
    "websocket": (
        "GET /ws{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Authorization: Bearer {token}\r\n\r\n"
    ),
    "events": (
        f"GET {EVENTS_PATH}{{query}} HTTP/1.1\r\nHost: {{host}}:{{port}}\r\nAuthorization: Bearer {{token}}\r\n\r\n"
    ),
}
_OPENED = (b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")
_REQUEST = (
    "{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class DeliveryMeter:
    """Counts the messages of all clients, samples their latency, and reports when enough have arrived."""

    def __init__(self) -> None:
        self.messages = 0
        self.late: list[float] = []
        self._expected = 0
        self._enough = asyncio.Event()

    def add(self, messages: int, *, sent_at: int) -> None:
        """Count messages that arrived together, the first of them sent at this ``monotonic_ns``."""
        self.messages += messages
        self.late.append((time.monotonic_ns() - sent_at) / 1e9)
        if self.messages >= self._expected:
            self._enough.set()

    async def expect(self, messages: int) -> None:
        """Wait until this many have arrived in total."""
        self._expected = messages
        self._enough.clear()
        if self.messages < messages:
            await self._enough.wait()


class BenchClient(asyncio.Protocol):
    """One WebSocket or event stream that reads as fast as it can and never answers."""

    def __init__(self, meter: DeliveryMeter, opening: bytes) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._meter = meter
        self._opening = opening
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._opening)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a lost connection to who waits for it to open."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Count messages by ``_MARK``. A mark that is split between two segments is counted with the second."""
        if not self.ready.done():
            if not data.startswith(_OPENED):
                self.transport.abort()
                return
            self.ready.set_result(None)
        data = self._rest + data
        messages = data.count(_MARK)
        if messages:
            start = data.index(_MARK) + len(_MARK)
            digits = data[start : start + 20].split(b",")[0].split(b"}")[0]
            self._meter.add(messages, sent_at=int(digits or 0))
        self._rest = data[-len(_MARK) + 1 :]


class RequestPipeline(asyncio.Protocol):
    """One persistent HTTP connection with a few requests in flight, at most one in each ``interval`` of seconds."""

    def __init__(self, request: Callable[[], bytes], *, count: int, in_flight: int = 1, interval: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.answered = 0
        self._request = request
        self._interval = interval
        self._next_at = self._loop.time()
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
        """Report a lost connection."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Read complete responses, and send a request for each."""
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
            self.answered += 1
            self._next_at += self._interval
            self._loop.call_at(self._next_at, self._send)
        if not self._to_come and not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def _send(self) -> None:
        if self._to_send and not self.transport.is_closing():
            self._to_send -= 1
            self.transport.write(self._request())


class Crowd:
    """Many clients of one server. ``transport`` is ``websocket`` or ``events``."""

    def __init__(self, target: Target, *, transport: str = "websocket") -> None:
        self.meter = DeliveryMeter()
        self._target = target
        self._opening = _OPENINGS[transport]
        self._clients: list[BenchClient] = []

    def __len__(self) -> int:
        return len(self._clients)

    async def join(self, count: int, *, query: str = "", at_once: int = 64) -> None:
        """Connect this many more clients, ``at_once`` at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                self._clients.append(await self._connect(query))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    async def leave(self) -> None:
        """Disconnect all clients at once."""
        for client in self._clients:
            client.transport.abort()
        self._clients.clear()
        await asyncio.sleep(0.5)

    async def _connect(self, query: str) -> BenchClient:
        target = self._target
        opening = self._opening.format(query=query, host=target.host, port=target.port, token=target.token).encode()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: BenchClient(self.meter, opening), target.host, target.port)
        await client.ready
        return client


async def publish(target: Target, *, count: int, size: int, in_flight: int = 1) -> None:
    """Publish messages with ``size`` bytes of padding over one connection, ``in_flight`` at a time."""
    await request(target, "POST", lambda: body_of(size), count=count, in_flight=in_flight)


@asynccontextmanager
async def publishing(target: Target, *, per_second: float, size: int) -> AsyncIterator[RequestPipeline]:
    """Publish messages at this rate, as far as the server can follow, while the context is open."""
    loop = asyncio.get_running_loop()
    make = partial(_request_of, target, "POST", "/websocket/messages", partial(body_of, size))
    transport, requests = await loop.create_connection(
        lambda: RequestPipeline(make, count=sys.maxsize, interval=1 / per_second), target.host, target.port
    )
    try:
        yield requests
    finally:
        requests.done.cancel()
        transport.close()


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
    make = partial(_request_of, target, method, path, body)
    loop = asyncio.get_running_loop()
    _, requests = await loop.create_connection(
        lambda: RequestPipeline(make, count=count, in_flight=in_flight), target.host, target.port
    )
    await requests.done


def _request_of(target: Target, method: str, path: str, body: Callable[[], bytes]) -> bytes:
    content = body()
    head = _REQUEST.format(
        method=method, path=path, host=target.host, port=target.port, token=target.token, length=len(content)
    )
    return head.encode() + content


def body_of(size: int, *, users: Sequence[str] = ()) -> bytes:
    """Return a message, by default to everyone, that contains its send time."""
    audience = b'"users":%b,' % json.dumps(users).encode() if users else b""
    return b'{"type":"bench",%b"data":{"t":%d,"pad":"%b"}}' % (audience, time.monotonic_ns(), b"x" * size)


@dataclass(frozen=True, slots=True)
class CalmFigures:
    """What the calm clients saw: the latencies of their messages in seconds, and the rate of the publisher."""

    late: list[float]
    published_per_second: float


@asynccontextmanager
async def calm_clients(target: Target, *, size: int) -> AsyncIterator[Callable[[], CalmFigures]]:
    """Run the calm clients while the context is open. The function stops measuring and returns what they saw.

    They have a process of their own: the load of a storm would delay what they measure.
    """
    loop = asyncio.get_running_loop()
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    # The process of the server belongs to this one, and cannot be passed on.
    process = spawning.Process(target=_run, args=(replace(target, process=None), size, theirs), daemon=True)
    process.start()
    # This process must not keep the other end open: only then does its end show that the process has ended.
    theirs.close()

    def result() -> CalmFigures:
        ours.send(None)
        seen: CalmFigures = ours.recv()
        return seen

    try:
        await loop.run_in_executor(None, ours.recv)
        yield result
    finally:
        ours.close()
        process.join()


def _run(target: Target, size: int, pipe: Pipe) -> None:
    uvloop.run(_measure(target, size, pipe))


async def _measure(target: Target, size: int, pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    crowd = Crowd(target)
    await crowd.join(CALM_CLIENTS)
    async with publishing(target, per_second=CALM_PER_SECOND, size=size) as publisher:
        await asyncio.sleep(_SETTLE_SECONDS)
        crowd.meter.late.clear()
        before, started = publisher.answered, time.perf_counter()
        pipe.send(None)
        await loop.run_in_executor(None, pipe.recv)
        rate = (publisher.answered - before) / (time.perf_counter() - started)
        await crowd.meter.expect(crowd.meter.messages + 1)
        pipe.send(CalmFigures(crowd.meter.late, rate))
