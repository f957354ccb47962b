"""A TCP proxy with faults that a seed decides."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_STALL_SECONDS = 0.2


class Fault(Enum):
    """How a connection through the proxy ends, or what it suffers until its end."""

    CUT = auto()
    RESET = auto()
    SINGLE_BYTES = auto()
    DELAY = auto()
    STALL = auto()


@dataclass
class FaultProxy:
    """Forwards to a port, and ends each connection after a number of bytes, most often in the middle of a frame."""

    upstream_port: int
    seed: int
    port: int = 0
    connections: int = 0
    faulty: bool = True
    """Whether new connections have faults."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            tasks.add(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = list(Fault)[self.connections % len(Fault)]
        self.connections += 1
        most = self._chance.randint(100, 8_000) if self.faulty else None
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        upwards = asyncio.create_task(_forward(reader, upstream_writer))
        try:
            if most is None:
                await _forward(upstream_reader, writer)
            else:
                await self._forward_badly(upstream_reader, writer, fault=fault, most=most)
        except ConnectionError:
            pass
        finally:
            upwards.cancel()
            await asyncio.gather(upwards, return_exceptions=True)
            upstream_writer.transport.abort()
            if fault is Fault.RESET:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()

    async def _forward_badly(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, fault: Fault, most: int
    ) -> None:
        """Forward ``most`` bytes of what the server sends."""
        while most and (data := await reader.read(min(most, self._chance.randint(1, 2_000)))):
            most -= len(data)
            if fault is Fault.DELAY:
                await asyncio.sleep(self._chance.uniform(0, 0.02))
            size = 1 if fault is Fault.SINGLE_BYTES else len(data)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)
        if fault is Fault.STALL:
            await asyncio.sleep(_STALL_SECONDS)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
