"""The portable WebSocket, over the ``receive`` and ``send`` of a server in memory."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from support import ALICE
from unmissed import ConnectionManager
from unmissed.core.chunks import Chunk
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.portable import AsgiWebSocket


class Server:
    """The ASGI side. While ``taking`` is cleared, ``send`` waits, as it does for a client that does not read."""

    def __init__(self) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self._received = asyncio.Queue[MutableMapping[str, Any]]()

    async def receive(self) -> MutableMapping[str, Any]:
        return await self._received.get()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        await self.taking.wait()
        self.sent.append(event)
        if event["type"] == "websocket.close":
            self.leave()

    def leave(self) -> None:
        self._received.put_nowait({"type": "websocket.disconnect", "code": 1000})

    @property
    def types(self) -> list[str]:
        """The types of the frames, and the code of the close."""
        return [json.loads(each["text"])["type"] if "text" in each else str(each["code"]) for each in self.sent]


class Recorder:
    """A listener that records what it is told."""

    def __init__(self) -> None:
        self.told: list[str | bytes] = []

    def socket_writable(self) -> None:
        self.told.append("writable")

    def socket_received(self, frame: str | bytes) -> None:
        self.told.append(frame)

    def socket_closed(self, code: int, reason: str) -> None:
        self.told.append(f"closed {code} {reason}".strip())


async def served(socket: AsgiWebSocket) -> None:
    async with asyncio.timeout(10):
        await socket.run()


async def test_everything_before_a_drain_arrives_before_the_close(manager: ConnectionManager) -> None:
    server = Server()
    socket = AsgiWebSocket(server.receive, server.send)
    manager.connect(socket, identity=ALICE)
    for _ in range(3):
        await manager.emit("a")

    manager.running.drain(seconds=5)
    await served(socket)

    assert ["connected", "reconnect", "a", "a", "a", "1012"] == server.types


async def test_every_answer_to_a_bad_client_arrives_before_the_close(manager: ConnectionManager) -> None:
    server = Server()
    socket = AsgiWebSocket(server.receive, server.send)
    connection = manager.connect(socket, identity=ALICE)
    for frame in ("", "[]", b"binary"):
        connection.socket_received(frame)

    await served(socket)

    assert ["connected", "error", "error", "error", "4400"] == server.types


async def test_a_client_that_reads_again_gets_what_was_before_the_close(manager: ConnectionManager) -> None:
    server = Server()
    server.taking.clear()
    socket = AsgiWebSocket(server.receive, server.send)
    serving = asyncio.create_task(served(socket))
    manager.connect(socket, identity=ALICE)
    await asyncio.sleep(0)
    manager.running.drain(seconds=5)

    server.taking.set()
    await serving

    assert ["connected", "reconnect", "1012"] == server.types


@pytest.mark.parametrize("write", [True, False])
async def test_a_chunk_that_was_written_before_the_close_is_sent_before_it(*, write: bool) -> None:
    server, listener = Server(), Recorder()
    socket = AsgiWebSocket(server.receive, server.send)
    socket.attach(listener)
    if write:
        socket.write(Chunk(b'{"type":"a"}', b'{"type":"b"}'))
    socket.close(CloseCode.NORMAL)
    socket.close(CloseCode.LOST)

    await served(socket)

    assert [*["a", "b"] * write, "1000"] == server.types
    assert ["closed 1000"] == listener.told


async def test_a_client_that_takes_nothing_is_left_soon_after_the_close() -> None:
    server, listener = Server(), Recorder()
    server.taking.clear()
    socket = AsgiWebSocket(server.receive, server.send, close_seconds=0.001)
    socket.attach(listener)
    socket.write(Chunk(b'{"type":"a"}'))
    socket.close(CloseCode.NORMAL)

    await served(socket)

    assert [] == server.sent
    assert ["closed 1006"] == listener.told


@pytest.mark.parametrize("running", [True, False])
async def test_an_abort_waits_for_no_close(*, running: bool) -> None:
    server, listener = Server(), Recorder()
    server.taking.clear()
    socket = AsgiWebSocket(server.receive, server.send)
    socket.attach(listener)
    serving = asyncio.create_task(served(socket))
    if running:
        await asyncio.sleep(0)
    socket.close(CloseCode.NORMAL)
    socket.abort()

    async with asyncio.timeout(30):
        await serving

    assert [] == server.sent
    assert ["closed 1006"] == listener.told


async def test_an_abort_in_the_moment_in_which_the_time_of_a_close_ends_has_no_effect() -> None:
    server, listener = Server(), Recorder()
    server.taking.clear()
    socket = AsgiWebSocket(server.receive, server.send, close_seconds=0)
    socket.attach(listener)
    serving = asyncio.create_task(served(socket))
    await asyncio.sleep(0)

    async def abort() -> None:
        socket.abort()

    socket.close(CloseCode.NORMAL)
    await asyncio.create_task(abort())
    await serving

    assert ["closed 1006"] == listener.told


async def test_an_abort_after_the_end_has_no_effect() -> None:
    server, listener = Server(), Recorder()
    socket = AsgiWebSocket(server.receive, server.send)
    socket.attach(listener)
    server.leave()
    await served(socket)

    socket.abort()

    assert ["closed 1000"] == listener.told
