"""The fault proxy: a network before one server, which delays, slices, stalls, cuts, resets, silences and refuses."""

import asyncio
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from weakref import WeakSet

from unmissed.lab.faults import ConnectionFault, NetworkFault

# SO_LINGER with a time of 0: closing sends a reset (socket(7)).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_READ_BYTES = 16_384
_NARROW_BYTES = 8_192
_MOST_SLICED_BYTES = 2_000
_STORM_SECONDS = 4.0
_ACCEPTING_STEPS = 4
"""Steps of the event loop from the acceptance of a connection by the system to ours."""
_UPGRADE = b"\r\nupgrade: websocket"
_SUBPROTOCOLS = re.compile(rb"(?i)sec-websocket-protocol:[^\r]*\r\n")

_Direction = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class WebSocketSupport(Enum):
    """What a proxy between clients and server makes of WebSockets."""

    FULL = auto()
    NONE = auto()
    """A request for one ends its connection, as at a proxy that does not know WebSockets."""
    HANGING = auto()
    """A request for one is never answered."""
    WITHOUT_SUBPROTOCOLS = auto()
    """Requests lose the header with their subprotocols, and with it a token."""


class FaultProxy:
    """Forwards connections to one server, and treats each as ``draw`` says.

    ``note`` is called with the name of each fault that takes effect.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        draw: Callable[[], ConnectionFault | None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.port = 0
        """The local port, while it serves."""
        self.accepted = 0
        """How many connections it has accepted."""
        self.refuses = False
        """Whether connections are closed at once."""
        self.websockets = WebSocketSupport.FULL
        self._upstream = (host, port)
        self._draw = draw
        self._note = note
        self._calm = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._upstreams: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._writers = WeakSet[asyncio.StreamWriter]()
        """Those of all connections, also of the ones that are being closed."""
        self._passing = asyncio.Event()
        self._passing.set()

    @property
    def url(self) -> str:
        """The base URL of an HTTP server behind it, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        """Accept connections on a free local port while the context is open."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for _ in range(_ACCEPTING_STEPS):
                await asyncio.sleep(0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # A close would wait for clients that read nothing.
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)

    def calm(self) -> None:
        """Reset all connections, and forward the following ones without a fault."""
        self._calm = True
        self._passing.set()
        self.reset()

    def reset(self) -> None:
        """End all connections with a TCP reset."""
        for writer in self._clients | self._upstreams:
            _reset(writer)

    def cut(self) -> None:
        """End all connections."""
        for writer in self._clients | self._upstreams:
            writer.transport.abort()

    def silence(self) -> None:
        """From now on, discard what the server sends on the connections that are open."""
        self._silent |= self._clients

    async def partition(self, seconds: float) -> None:
        """Forward nothing for some time, in neither direction."""
        self._passing.clear()
        await asyncio.sleep(seconds)
        self._passing.set()

    async def disturb(self, chance: random.Random) -> None:
        """Reset all connections, or forward nothing, at random times, until cancelled."""
        while True:
            await asyncio.sleep(chance.expovariate(1 / _STORM_SECONDS))
            if chance.random() < 0.5:
                self._note("reset of all")
                self.reset()
            else:
                self._note("partition")
                await self.partition(chance.uniform(0.2, 2.0))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Drawn before anything is awaited: the order of the connections decides, not the order of their bytes.
        plan = None if self._calm else self._draw()
        self._clients.add(writer)
        try:
            first = await self._first_bytes(reader)
            if first is not None:
                async with self._upstream_of(plan) as (upstream_reader, upstream_writer):
                    upstream_writer.write(first)
                    await self._exchange((reader, upstream_writer), (upstream_reader, writer), plan)
        except asyncio.IncompleteReadError:
            # The client left before its request was complete.
            return
        except OSError:
            _reset(writer)
        finally:
            self._clients.discard(writer)
            self._silent.discard(writer)
            writer.close()

    @asynccontextmanager
    async def _upstream_of(self, plan: ConnectionFault | None) -> AsyncIterator[_Direction]:
        """Connect to the server while the context is open."""
        reader, writer = await self._connect(narrow=plan is not None and plan.fault is NetworkFault.STALL)
        self._upstreams.add(writer)
        self._writers.add(writer)
        try:
            yield reader, writer
        finally:
            self._upstreams.discard(writer)
            writer.close()

    async def _first_bytes(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return what is forwarded first, or None if nothing is. Only a special treatment needs to know a request."""
        if self.refuses:
            return None
        if self.websockets is WebSocketSupport.FULL:
            return b""
        head = await reader.readuntil(b"\r\n\r\n")
        if self.websockets is WebSocketSupport.WITHOUT_SUBPROTOCOLS:
            return _SUBPROTOCOLS.sub(b"", head)
        if _UPGRADE not in head.lower():
            return head
        if self.websockets is WebSocketSupport.HANGING:
            await reader.read()
        return None

    async def _connect(self, *, narrow: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server. A narrow connection has small buffers, so that a stall soon reaches the server."""
        loop = asyncio.get_running_loop()
        [(family, kind, _, _, address), *_] = await loop.getaddrinfo(*self._upstream, type=socket.SOCK_STREAM)
        upstream = socket.socket(family, kind)
        try:
            upstream.setblocking(False)  # noqa: FBT003  # its only argument
            if narrow:
                upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW_BYTES)
            await loop.sock_connect(upstream, address)
        except BaseException:
            upstream.close()
            raise
        return await asyncio.open_connection(sock=upstream, limit=_NARROW_BYTES if narrow else _READ_BYTES)

    async def _exchange(self, up: _Direction, down: _Direction, plan: ConnectionFault | None) -> None:
        """Forward in both directions until one of them ends."""
        pumps = [
            asyncio.create_task(self._forward(*up, plan if plan and plan.upwards else None)),
            asyncio.create_task(self._forward(*down, plan if plan and not plan.upwards else None)),
        ]
        try:
            ended, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        if any(pump.result() is NetworkFault.RESET for pump in ended):
            _reset(up[1])
            _reset(down[1])

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plan: ConnectionFault | None
    ) -> NetworkFault | None:
        """Forward until the end of the stream, or until the fault ends the connection; return that fault."""
        passed = 0
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._passing.wait()
                if writer in self._silent:
                    continue
                if plan is None:
                    await _write(writer, data)
                elif await self._inject(plan, writer, data, passed):
                    return plan.fault
                passed += len(data)
        return None

    async def _inject(self, plan: ConnectionFault, writer: asyncio.StreamWriter, data: bytes, passed: int) -> bool:
        """Write data with the fault of this connection, and return whether the connection ends."""
        left = plan.left(passed)
        data = data[:left]
        match plan.fault:
            case NetworkFault.LATENCY:
                await asyncio.sleep(plan.seconds)
                await _write(writer, data)
            case NetworkFault.SLICES if passed < _MOST_SLICED_BYTES:
                await _write_slices(writer, data, plan.slice_bytes)
            case NetworkFault.STALL if passed <= plan.after < passed + len(data):
                await _write(writer, data[: plan.after - passed])
                self._note(plan.fault)
                await asyncio.sleep(plan.seconds)
                await _write(writer, data[plan.after - passed :])
            case _:
                await _write(writer, data)
        ends = left is not None and len(data) == left
        if (ends and plan.fault.is_an_end) or (not passed and plan.fault.is_steady):
            self._note(plan.fault)
        return ends


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _write_slices(writer: asyncio.StreamWriter, data: bytes, size: int) -> None:
    """Write a few bytes at a time: frames and headers arrive in pieces."""
    for start in range(0, len(data), size):
        await _write(writer, data[start : start + size])
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a TCP reset, and discard unsent data."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
