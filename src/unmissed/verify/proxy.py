"""A TCP proxy that delays, slices, stalls, cuts and resets the connections through it."""

import asyncio
import math
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_READ_BYTES = 16_384
_LEAST_BYTES, _MOST_BYTES = 60, 200_000
_NARROW_BYTES = 8_192
_SLICE_BYTES, _MOST_SLICED_BYTES = 7, 2_000
_STORM_SECONDS = 4.0
_HEALTHY_SHARE = 0.4

_Direction = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fault(StrEnum):
    """What a connection suffers."""

    LATENCY = "latency"
    SLICES = "slices"
    STALL = "stall"
    CUT = "cut"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """The fault of one connection: in which direction, after how many bytes, and for how many seconds."""

    fault: Fault
    upwards: bool
    after: int
    seconds: float


def drawn(chance: random.Random) -> ConnectionFault | None:
    """Return what happens to the next connection; None for nothing."""
    fault = chance.choice(list(Fault))
    upwards = chance.random() < 0.3
    after = round(math.exp(chance.uniform(math.log(_LEAST_BYTES), math.log(_MOST_BYTES))))
    seconds = chance.uniform(0.002, 0.03) if fault is Fault.LATENCY else chance.uniform(0.1, 6.0)
    return None if chance.random() < _HEALTHY_SHARE else ConnectionFault(fault, upwards, after, seconds)


class FaultProxy:
    """Forwards connections to one server, and treats each as ``draw`` says.

    ``note`` is called with the name of each fault that takes effect.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        draw: Callable[[], ConnectionFault | None],
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.port = 0
        """The local port, while it serves."""
        self._upstream = (host, port)
        self._draw = draw
        self._note = note
        self._calm = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        """Accept connections on a free local port while the context is open."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def calm(self) -> None:
        """Reset all connections, and forward the following ones without a fault."""
        self._calm = True
        self._passing.set()
        self.reset()

    def reset(self) -> None:
        """Reset all connections."""
        for writer in tuple(self._writers):
            _reset(writer)

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
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plan = None if self._calm else self._draw()
        self._writers.add(writer)
        ends = [writer]
        try:
            upstream_reader, upstream_writer = await self._connect(
                narrow=plan is not None and plan.fault is Fault.STALL
            )
            ends.append(upstream_writer)
            self._writers.add(upstream_writer)
            await self._exchange((reader, upstream_writer), (upstream_reader, writer), plan)
        except OSError:
            _reset(writer)
        finally:
            for each in ends:
                self._writers.discard(each)
                each.close()

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
        if any(pump.result() is Fault.RESET for pump in ended):
            _reset(up[1])
            _reset(down[1])

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plan: ConnectionFault | None
    ) -> Fault | None:
        """Forward until the end of the stream, or until the fault ends the connection; return that fault."""
        passed = 0
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._passing.wait()
                if plan is None:
                    await _write(writer, data)
                elif await self._inject(plan, writer, data, passed):
                    return plan.fault
                passed += len(data)
        return None

    async def _inject(self, plan: ConnectionFault, writer: asyncio.StreamWriter, data: bytes, passed: int) -> bool:
        """Write data with the fault of this connection, and return whether the fault ends the connection."""
        if not passed and plan.fault in (Fault.LATENCY, Fault.SLICES):
            self._note(plan.fault)
        if plan.fault is Fault.SLICES and passed < _MOST_SLICED_BYTES:
            await _write_slices(writer, data)
            return False
        if plan.fault is Fault.LATENCY:
            await asyncio.sleep(plan.seconds)
        place = plan.after - passed
        if plan.fault in (Fault.LATENCY, Fault.SLICES) or not 0 <= place < len(data):
            await _write(writer, data)
            return False
        self._note(plan.fault)
        await _write(writer, data[:place])
        if plan.fault is not Fault.STALL:
            return True
        await asyncio.sleep(plan.seconds)
        await _write(writer, data[place:])
        return False


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _write_slices(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write a few bytes at a time: frames and headers arrive in pieces."""
    for start in range(0, len(data), _SLICE_BYTES):
        await _write(writer, data[start : start + _SLICE_BYTES])
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a TCP reset, and discard unsent data."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
