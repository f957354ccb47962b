"""A TCP proxy in a thread, which tests tell what to do with the connections through it."""

import asyncio
import re
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_READ_BYTES = 16_384
_SUBPROTOCOLS = re.compile(rb"(?i)sec-websocket-protocol:[^\r]*\r\n")


class Proxy:
    """Forwards to a local port: ``with Proxy(port) as proxy:``. It may cut, silence, limit and refuse connections."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.blocks_websockets = False
        """Whether requests for WebSockets are answered like by a proxy that does not know them."""
        self.holds_websockets = False
        """Whether requests for WebSockets are never answered."""
        self.strips_subprotocols = False
        """Whether requests lose the header with their subprotocols, and with it the token."""
        self.refuses = False
        """Whether connections are closed at once."""
        self.limit: int | None = None
        """After how many bytes of the server the next connections are cut."""
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Cut all connections."""
        self._run(self._cut())

    def silence(self) -> None:
        """From now on, discard what the server sends on the connections that are open."""
        self._run(self._silence())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _silence(self) -> None:
        self._silent.update(self._writers)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.refuses or (self.blocks_websockets and b"\r\nupgrade: websocket" in head.lower()):
                return
            if self.holds_websockets and b"\r\nupgrade: websocket" in head.lower():
                await reader.read()
                return
            if self.strips_subprotocols:
                head = _SUBPROTOCOLS.sub(b"", head)
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            upstream_writer.write(head)
            await self._exchange((reader, upstream_writer), (upstream_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._silent.discard(writer)
            writer.transport.abort()

    async def _exchange(
        self,
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Forward in both directions until one of them ends."""
        pumps = [asyncio.create_task(self._forward(*up, None)), asyncio.create_task(self._forward(*down, self.limit))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            up[1].transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> None:
        """Forward until the end, or a number of bytes."""
        left = limit
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES if left is None else min(_READ_BYTES, left)):
                if writer not in self._silent:
                    writer.write(data)
                    await writer.drain()
                left = None if left is None else left - len(data)
                if left == 0:
                    return
