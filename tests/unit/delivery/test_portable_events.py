"""The portable event stream, over the ``receive`` and ``send`` of a server in memory."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from event_client import Event, parsed
from support import ALICE, nth, nths
from unmissed import ConnectionManager
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.portable import AsgiEventStream
from unmissed.delivery.socket import MAX_BYTES_DISCARDED


class Server:
    """The ASGI side. While ``taking`` is cleared, ``send`` waits, as it does for a client that does not read.

    It does not tell that a response is complete, as some servers do.
    """

    def __init__(self) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self._received = asyncio.Queue[MutableMapping[str, Any]]()
        self.body(b"")

    async def receive(self) -> MutableMapping[str, Any]:
        return await self._received.get()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        await self.taking.wait()
        self.sent.append(event)

    def body(self, data: bytes) -> None:
        self._received.put_nowait({"type": "http.request", "body": data, "more_body": True})

    def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})

    @property
    def events(self) -> list[Event]:
        return list(parsed(iter(b"".join(each["body"] for each in self.sent).decode().splitlines())))

    @property
    def complete(self) -> bool:
        return [False] == [each["more_body"] for each in self.sent][-1:]


def connected(manager: ConnectionManager, server: Server, **options: Any) -> AsgiEventStream:
    stream = AsgiEventStream(server.receive, server.send)
    manager.connect(stream, identity=ALICE, **options)
    return stream


async def served(stream: AsgiEventStream) -> None:
    async with asyncio.timeout(10):
        await stream.run()


async def test_everything_before_a_drain_arrives_before_the_end(manager: ConnectionManager) -> None:
    server = Server()
    stream = connected(manager, server)
    for _ in range(3):
        await manager.emit("a")

    manager.running.drain(seconds=5)
    await served(stream)

    assert ["connected", "reconnect", "a", "a", "a"] == [event.type for event in server.events]
    assert [str(nth(0)), None, *map(str, nths(1, 2, 3))] == [event.id for event in server.events]
    assert server.complete
    assert () == manager.connections


async def test_a_close_is_told_in_an_error_frame_before_the_end(manager: ConnectionManager) -> None:
    server = Server()
    stream = connected(manager, server)

    manager.disconnect(manager.connections[0].id, code=4401, reason="logged out")
    await served(stream)

    assert {"type": "error", "code": 4401, "detail": "logged out"} == server.events[-1].frame
    assert server.complete


async def test_a_client_that_leaves_is_forgotten(manager: ConnectionManager) -> None:
    server = Server()
    stream = connected(manager, server)
    server.leave()

    await served(stream)

    assert () == manager.connections
    assert not server.complete


async def test_a_body_is_ignored(manager: ConnectionManager) -> None:
    server = Server()
    stream = connected(manager, server)
    server.body(b"x" * MAX_BYTES_DISCARDED)

    manager.running.drain(seconds=5)
    await served(stream)

    assert ["connected", "reconnect"] == [event.type for event in server.events]


async def test_a_body_that_does_not_stop_ends_the_stream(manager: ConnectionManager) -> None:
    server = Server()
    stream = connected(manager, server)
    server.body(b"x" * (MAX_BYTES_DISCARDED + 1))

    await served(stream)

    assert () == manager.connections


async def test_a_client_that_takes_nothing_is_left_soon_after_the_close(manager: ConnectionManager) -> None:
    server = Server()
    server.taking.clear()
    stream = AsgiEventStream(server.receive, server.send, close_seconds=0.001)
    manager.connect(stream, identity=ALICE)
    stream.close(CloseCode.NORMAL)

    await served(stream)

    assert [] == server.sent
    assert () == manager.connections


async def test_a_stream_to_which_nothing_was_connected_tells_why_and_ends() -> None:
    server = Server()
    stream = AsgiEventStream(server.receive, server.send)
    stream.close(CloseCode.TOO_MANY, "too many connections")

    await served(stream)

    assert [4429] == [event.frame["code"] for event in server.events]
    assert server.complete
