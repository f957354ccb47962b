"""The web server before the service, as most deployments have one: it serves the page, and may answer in its place."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from browser.client_page import SCRIPT
from browser.proxy import InThread

PAGE = "/page"
"""The path of a page that has the client, and no connection yet."""

_HTML = f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>A page</title><script>{SCRIPT}</script>"
_END = b"\r\n\r\n"
_MAX_HEAD = 65_536
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CONNECTION = re.compile(rb"(?i)\r\nconnection: *keep-alive\r\n")


@dataclass(frozen=True, slots=True)
class Request:
    """What the gateway knows of a request."""

    path: str
    head: bytes
    """The request line and the headers."""

    @classmethod
    def of(cls, head: bytes) -> Self:
        return cls(head.split(b" ", 2)[1].decode(), head)

    @property
    def is_of_the_service(self) -> bool:
        """Whether it is for the service, and not for a file that the page needs."""
        return self.path.partition("?")[0] not in (PAGE, "/websocket/client.js")


Answer = Callable[[Request], bytes | None]


def response(status: HTTPStatus, body: str = "", *, content_type: str = "text/html", headers: str = "") -> bytes:
    """Return a complete response. ``headers`` has whole lines."""
    content = body.encode()
    lines = f"Content-Type: {content_type}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{headers}"
    return f"HTTP/1.1 {status} {status.phrase}\r\n{lines}\r\n".encode() + content


def forward(request: Request) -> None:
    """Leave every request to the service."""


class Gateway(InThread):
    """Forwards to a local port what ``answer`` returns no response for: ``with Gateway(port) as gateway:``."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self.port = 0
        self.answer: Answer = forward
        self.policy = "default-src * 'unsafe-inline' 'unsafe-eval' data: blob:"
        """The Content-Security-Policy of the page."""
        self._upstream_port = upstream_port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Accept connections on a free local port while the context is open."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(_END)
            answer = self._answer(Request.of(head))
            if answer is None:
                await self._forward(head, reader, writer)
            else:
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # Clients leave at any time.
            return
        finally:
            writer.close()

    def _answer(self, request: Request) -> bytes | None:
        if request.path == PAGE:
            return response(HTTPStatus.OK, _HTML, headers=f"Content-Security-Policy: {self.policy}\r\n")
        return self.answer(request)

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        # Each request has a connection of its own, so that ``answer`` sees it.
        upstream_writer.write(_CONNECTION.sub(b"\r\nConnection: close\r\n", head))
        pumps = [
            asyncio.create_task(_pump(reader, upstream_writer)),
            asyncio.create_task(_pump(upstream_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            upstream_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_MAX_HEAD):
            writer.write(data)
            await writer.drain()
