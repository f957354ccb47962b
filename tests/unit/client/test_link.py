"""The connection of a stream that is read slowly, or not at all, while requests wait for their answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from support import CONNECTED, FIRST, nth, until
from unmissed.client.link import Link, Place
from unmissed.client.pending_requests import PendingRequests
from unmissed.client.received import stamped_number
from unmissed.client.request_sender import RequestSender
from unmissed.core.errors import ConfigurationError, ConnectionRefused
from unmissed.testing import LiveServer

PATIENCE = 20.0
ROOM = 4_000
"""Bytes of unread frames: about 20 of them."""


@asynccontextmanager
async def linked(url: str, *, since: int | None = None, **options: Any) -> AsyncIterator[Link]:
    sender = RequestSender(PendingRequests())
    options = {"token": "x", "place": Place(since, None), "topics": None, "sender": sender, **options}
    link = Link(url, unread_bytes=ROOM, **options)
    async with asyncio.timeout(PATIENCE):
        yield link
        await link.close()


@pytest.fixture
def server(unmissed_server: LiveServer) -> LiveServer:
    return unmissed_server


async def numbers(link: Link, *, through: int) -> list[int]:
    """Return the numbers of the messages that are read up to one."""
    read: list[int] = []
    while not read or read[-1] < through:
        text = await link.next_frame()
        assert text is not None
        number = stamped_number(text)
        read += [] if number is None else [number]
    return read


def publish(id: str) -> dict[str, Any]:
    return {"type": "publish", "id": id, "message": {"type": "mine"}}


async def publish_many(server: LiveServer, count: int) -> None:
    await asyncio.to_thread(
        lambda: server.run(server.manager.publish_batch([{"type": "chat", "data": "x" * 100}] * count))
    )


async def test_requests_are_answered_although_nothing_is_read_and_no_message_is_lost(server: LiveServer) -> None:
    async with linked(server.url, token=server.token()) as link:
        await link.next_frame()
        await publish_many(server, 300)

        first, second = await link.request(publish("1")), await link.request(publish("2"))

        assert [nth(301), nth(302)] == [first, second]
        assert [*range(FIRST, nth(303))] == await numbers(link, through=nth(302))


async def test_without_a_request_a_full_client_lets_the_server_wait(server: LiveServer) -> None:
    """What it does not receive is not requested again: the connection stays."""
    async with linked(server.url, token=server.token()) as link:
        await link.next_frame()
        [connection] = server.manager.connections
        await publish_many(server, 300)

        assert [*range(FIRST, nth(301))] == await numbers(link, through=nth(300))
        assert [connection.id] == [each.id for each in server.manager.connections]


async def test_what_is_dropped_and_evicted_meanwhile_is_a_gap() -> None:
    with LiveServer() as server:
        async with linked(server.url, token=server.token()) as link:
            await link.next_frame()
            await publish_many(server, 300)
            await link.request(publish("1"))
            await publish_many(server, 500)

            frames: list[dict[str, Any]] = []
            while not frames or frames[-1]["type"] != "connected":
                frames.append(json.loads(await link.next_frame() or ""))

    read = [frame["sequence_number"] for frame in frames[:-1] if "timestamp" in frame]
    assert [*range(FIRST, FIRST + len(read))] == read
    assert ("gap", read[-1]) == (frames[-1]["outcome"], frames[-1]["sequence_number"])
    assert (read[-1] + 1, nth(301)) == (frames[-1]["from"], frames[-1]["to"])


async def test_a_link_that_is_full_notices_that_its_connection_was_lost(server: LiveServer) -> None:
    async with linked(server.url, token=server.token()) as link:
        await link.next_frame()
        await publish_many(server, 300)
        await until(lambda: all(each.position == nth(300) for each in server.manager.connections))
        await asyncio.to_thread(server.drop)

        assert nth(301) == await link.request(publish("1"))
        assert [*range(FIRST, nth(302))] == await numbers(link, through=nth(301))


async def test_a_link_that_is_cancelled_between_two_connections_makes_the_next_one(server: LiveServer) -> None:
    async with linked(server.url, token=server.token()) as link:
        await link.next_frame()
        continuing = asyncio.create_task(link.continue_after(Place(nth(0), None)))
        await asyncio.sleep(0)
        continuing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await continuing

        assert nth(1) == await link.request(publish("1"))
        await until(lambda: 1 == len(server.manager.connections))


class Provider:
    """Fails once, and then provides a token."""

    def __init__(self, failure: Exception, token: str) -> None:
        self._answers: list[Exception | str] = [failure, token]

    def __call__(self) -> str:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_after_a_failure_the_next_call_tries_again(server: LiveServer) -> None:
    async with linked(server.url, token=Provider(LookupError("no login"), server.token())) as link:
        with pytest.raises(LookupError, match="no login"):
            await link.next_frame()
        assert "closed" == link.status

        assert b'"connected"' in (await link.next_frame() or b"")


async def test_after_a_failure_the_next_request_tries_again(server: LiveServer) -> None:
    async with linked(server.url, token=Provider(ConfigurationError("no token"), server.token())) as link:
        with pytest.raises(ConfigurationError, match="no token"):
            await link.request(publish("1"))

        assert nth(1) == await link.request(publish("2"))
        assert b'"connected"' in (await link.next_frame() or b"")


async def test_a_refusal_is_raised_in_all_that_wait(server: LiveServer) -> None:
    async with linked(server.url, token="garbage") as link:
        calls = [link.next_frame(), link.request(publish("1")), link.request(publish("2"))]

        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [4401] * 3 == [result.code for result in results if isinstance(result, ConnectionRefused)]


class Silent:
    """A server that answers what a test lets it answer. It notes the types of the frames that it gets."""

    def __init__(self, *answered: str) -> None:
        self.received: list[list[str]] = []
        """By connection."""
        self._answered = answered

    async def serve(self, websocket: ServerConnection) -> None:
        types: list[str] = []
        self.received.append(types)
        await websocket.send(CONNECTED)
        async for text in websocket:
            frame = json.loads(text)
            types.append(frame["type"])
            if frame["type"] == "ping" and "ping" in self._answered:
                await websocket.send('{"type":"pong"}')
            if frame["type"] == "publish" and len(self.received) > 1:
                await websocket.send(json.dumps({"type": "published", "id": frame["id"], "sequence_number": FIRST}))


@asynccontextmanager
async def link_to(silent: Silent, **seconds: float) -> AsyncIterator[Link]:
    sender = RequestSender(PendingRequests(), **seconds)
    async with serve_websockets(silent.serve, "127.0.0.1", 0, close_timeout=0.1) as other:
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        async with linked(url, sender=sender, close_seconds=0.1) as link:
            yield link


async def test_a_server_that_is_asked_something_and_says_nothing_is_pinged_and_then_left() -> None:
    silent = Silent()
    async with link_to(silent, quiet_seconds=0.05, pong_seconds=0.05) as link:
        assert FIRST == await link.request(publish("1"))

    assert [["publish", "ping"], ["publish"]] == silent.received
    assert 1 == link.reconnects


async def test_a_server_that_answers_pings_may_take_its_time_for_an_answer() -> None:
    silent = Silent("ping")
    async with link_to(silent, quiet_seconds=0.02, pong_seconds=PATIENCE) as link:
        asking = asyncio.create_task(link.request(publish("1")))
        await until(lambda: silent.received and silent.received[0].count("ping") >= 3)

        assert (0, False) == (link.reconnects, asking.done())
        asking.cancel()


async def test_a_server_that_is_asked_nothing_is_not_pinged() -> None:
    silent = Silent()
    async with link_to(silent, quiet_seconds=0.0, pong_seconds=0.0) as link:
        await link.next_frame()
        await asyncio.sleep(0)
        assert not silent.received[0]

    assert [[]] == silent.received
