"""The requests of a stream on a live server, whose connections are lost between a request and its answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from support import nth, nths, scripted, until
from unmissed import CommandError, Identity
from unmissed.client import ReceivedMessage, Stream, connect
from unmissed.core.errors import (
    ConnectionRefused,
    InvalidMessage,
    InvalidTopic,
    RequestRefused,
    RequestUnanswered,
    TooManyRequests,
)
from unmissed.lab.proxy import FaultProxy
from unmissed.testing import LiveServer

PATIENCE = 20.0


@pytest.fixture
def server(serve: Callable[..., LiveServer]) -> LiveServer:
    return serve(drain_seconds=0.1, client_rate=1_000, client_burst=1_000)


@asynccontextmanager
async def opened(server: LiveServer, *, url: str | None = None, **options: Any) -> AsyncIterator[Stream]:
    options = {"token": server.token(topics=["news", "rooms.*"]), **options}
    async with asyncio.timeout(PATIENCE), connect(url or server.url, **options) as stream:
        yield stream


@asynccontextmanager
async def proxied(server: LiveServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", int(server.url.rpartition(":")[2])).serving() as proxy:
        yield proxy


async def published(server: LiveServer) -> list[tuple[str, Any]]:
    return [(message.type, message.data) for message in await asyncio.to_thread(server.published)]


async def test_a_stream_publishes_and_receives_what_it_published(server: LiveServer) -> None:
    async with opened(server) as stream:
        number = await stream.publish({"type": "chat", "data": {"text": "héllo"}}, topics=["news"])

        event = await anext(stream)

    [message] = await asyncio.to_thread(server.published)
    assert (nth(1), ["news"]) == (number, message.topics)
    assert ReceivedMessage("chat", nth(1), message.timestamp, {"text": "héllo"}, {"topics": ["news"]}) == event


async def test_requests_may_be_sent_from_the_loop_over_the_messages_and_beside_it(server: LiveServer) -> None:
    seen: list[tuple[str, Any]] = []

    async def listen(stream: Stream) -> None:
        async for event in stream:
            assert isinstance(event, ReceivedMessage)
            seen.append((event.type, event.data))
            if event.type == "ask":
                await stream.publish({"type": "answer", "data": event.data})
            if event.data == "last" and event.type == "answer":
                return

    async with opened(server) as stream, asyncio.TaskGroup() as tasks:
        tasks.create_task(listen(stream))
        numbers = await asyncio.gather(*(stream.publish({"type": "ask", "data": each}) for each in range(20)))
        await stream.publish({"type": "ask", "data": "last"})

    assert numbers == sorted(numbers)
    assert {("ask", each) for each in (*range(20), "last")} | {("answer", each) for each in (*range(20), "last")} == {
        *seen
    }
    assert 42 == len(seen)


async def test_users_are_addressed_and_kept_secret(server: LiveServer) -> None:
    async with opened(server, token=server.token("bob")) as bob, opened(server) as stream:
        await stream.publish({"type": "a"}, users=["carol"])
        await stream.publish({"type": "b"}, users=["bob"])

        event = await anext(bob)

    assert isinstance(event, ReceivedMessage)
    assert ("b", {}) == (event.type, event.extra)


class Item(BaseModel):
    name: str
    count: int = 1


@pytest.fixture
def executed(server: LiveServer) -> list[str]:
    """Add a command to the server, and return the names that it was called with."""
    names: list[str] = []

    @server.manager.command("cart.add")
    async def add(item: Item, identity: Identity) -> dict[str, Any]:
        names.append(item.name)
        if item.count > 100:
            raise CommandError("at most 100 of an item")
        return {"user": identity.user_id, "count": item.count}

    @server.manager.command
    def nothing() -> None:
        names.append("nothing")

    return names


async def test_a_command_returns_what_its_function_returns(server: LiveServer, executed: list[str]) -> None:
    async with opened(server) as stream:
        results = [
            await stream.command("cart.add", {"name": "tea"}),
            await stream.command("cart.add", Item(name="rice", count=7)),
            await stream.command("nothing"),
        ]

    assert [{"user": "alice", "count": 1}, {"user": "alice", "count": 7}, None] == results
    assert ["tea", "rice", "nothing"] == executed


@pytest.mark.usefixtures("executed")
@pytest.mark.parametrize(
    ("request_of", "code", "reason"),
    [
        (lambda stream: stream.command("cart.add", {"name": "tea", "count": 101}), 4400, "at most 100 of an item"),
        (lambda stream: stream.command("cart.add", {}), 4400, "name"),
        (lambda stream: stream.command("no.such"), 4400, "no command has this name"),
        (lambda stream: stream.publish({"type": "heartbeat"}), 4400, "reserved"),
        (lambda stream: stream.publish({}), 4400, "type must be"),
        (lambda stream: stream.follow("sport"), 4403, "the topic sport is not granted"),
    ],
)
async def test_a_refusal_raises_the_reason_of_the_server_and_the_stream_goes_on(
    server: LiveServer, request_of: Callable[[Stream], Any], code: int, reason: str
) -> None:
    async with opened(server) as stream:
        with pytest.raises(RequestRefused, match=reason) as refused:
            await request_of(stream)

        assert code == refused.value.code
        assert nth(1) == await stream.publish({"type": "next"})


async def test_publishing_needs_its_scope(server: LiveServer) -> None:
    async with opened(server, token=server.token(scope="")) as stream:
        with pytest.raises(RequestRefused, match="messages:publish") as refused:
            await stream.publish({"type": "a"})

    assert 4403 == refused.value.code


@pytest.mark.parametrize(
    ("request_of", "refusal", "reason"),
    [
        (lambda stream: stream.publish({"type": "a"}, users="bob"), InvalidMessage, "write users="),
        (lambda stream: stream.publish({"type": "a", "data": object()}), InvalidMessage, "as JSON"),
        (lambda stream: stream.publish({"type": "a"}, idempotency_key="two words"), InvalidMessage, "1 to 255"),
        (lambda stream: stream.command("a", idempotency_key=""), InvalidMessage, "1 to 255 visible"),
        (lambda stream: stream.command("a", "x" * 65_536), InvalidMessage, "at most 65536 bytes"),
        (lambda stream: stream.follow("rooms.*"), InvalidTopic, "ASCII"),
    ],
)
async def test_what_can_never_work_is_refused_without_the_server(
    request_of: Callable[[Stream], Any], refusal: type[Exception], reason: str
) -> None:
    stream = Stream("http://127.0.0.1:1", token="x")

    with pytest.raises(refusal, match=reason):
        await request_of(stream)


async def test_a_key_publishes_once_also_from_another_process(server: LiveServer) -> None:
    numbers = []
    for _ in range(2):
        async with opened(server) as stream:
            numbers += [await stream.publish({"type": "a"}, idempotency_key="order-42") for _ in range(2)]

    assert nths(1, 1, 1, 1) == numbers
    async with opened(server) as stream:
        with pytest.raises(RequestRefused, match="used for another message"):
            await stream.publish({"type": "b"}, idempotency_key="order-42")


async def test_a_topic_is_followed_from_now_on_and_after_a_reconnect(server: LiveServer) -> None:
    async with opened(server) as stream:
        assert ["news"] == [*stream.topics]
        await asyncio.to_thread(server.publish, "missed", topics=["rooms.1"])

        assert ["news", "rooms.1", "rooms.2"] == await stream.follow("rooms.2", "rooms.1")
        assert ["rooms.1", "rooms.2"] == await stream.unfollow("news")
        await asyncio.to_thread(server.publish, "a", topics=["rooms.1"])
        first = await anext(stream)
        stream.drop()
        await asyncio.to_thread(server.publish, "no more", topics=["news"])
        await asyncio.to_thread(server.publish, "b", topics=["rooms.2"])
        second = await anext(stream)

    assert ["rooms.1", "rooms.2"] == [*stream.topics]
    assert ["a", "b"] == [event.type for event in (first, second) if isinstance(event, ReceivedMessage)]


async def test_a_stream_that_follows_nothing_more_follows_nothing_after_a_reconnect(server: LiveServer) -> None:
    async with opened(server) as stream:
        assert [] == await stream.unfollow("news")
        stream.drop()
        await asyncio.to_thread(server.publish, "no more", topics=["news"])
        await asyncio.to_thread(server.publish, "to all")

        event = await anext(stream)

    assert isinstance(event, ReceivedMessage)
    assert "to all" == event.type


@pytest.mark.parametrize("ask", ["publish", "command"])
async def test_a_request_whose_answer_is_lost_is_executed_once(
    server: LiveServer, executed: list[str], ask: str
) -> None:
    async with proxied(server) as proxy, opened(server, url=proxy.url) as stream:
        proxy.silence()
        asking: asyncio.Task[Any]
        if ask == "publish":
            asking = asyncio.create_task(stream.publish({"type": "a", "data": "tea"}))
            await until(lambda: published(server))
        else:
            asking = asyncio.create_task(stream.command("cart.add", {"name": "tea"}))
            await until(lambda: executed)
        assert not asking.done()

        proxy.reset()
        answer = await asking

    if ask == "publish":
        assert (nth(1), [("a", "tea")]) == (answer, await published(server))
    else:
        assert ({"user": "alice", "count": 1}, ["tea"]) == (answer, executed)
    assert 1 == stream.reconnects


@pytest.mark.long
async def test_a_connection_that_is_dead_is_noticed_by_the_request_that_waits(server: LiveServer) -> None:
    async with proxied(server) as proxy, opened(server, url=proxy.url) as stream:
        proxy.silence()
        started = asyncio.get_running_loop().time()

        number = await stream.publish({"type": "a"})

    seconds = asyncio.get_running_loop().time() - started
    assert (nth(1), [("a", None)]) == (number, await published(server))
    assert 8 <= seconds < PATIENCE


async def test_requests_wait_for_a_connection_and_are_sent_in_their_order(server: LiveServer) -> None:
    async with opened(server) as stream:
        stream.drop(down=0.2)
        await until(lambda: stream.status == "waiting")
        publishing = [asyncio.create_task(stream.publish({"type": "a", "data": each})) for each in range(30)]

        numbers = await asyncio.gather(*publishing)

    assert nths(*range(1, 31)) == numbers
    assert [("a", each) for each in range(30)] == await published(server)


async def test_a_stream_keeps_to_the_limits_of_its_server(serve: Callable[..., LiveServer]) -> None:
    server = serve(client_rate=2, client_burst=4)
    async with opened(server) as stream:
        numbers = await asyncio.gather(*(stream.publish({"type": "a", "data": each}) for each in range(7)))

    assert nths(*range(1, 8)) == numbers
    assert 0 == stream.reconnects


async def test_streams_of_one_user_share_the_limits_that_they_do_not_know(serve: Callable[..., LiveServer]) -> None:
    server = serve(client_rate=40, client_burst=5)
    async with opened(server) as one, opened(server) as two:
        await asyncio.gather(
            *(stream.publish({"type": "a", "data": each}) for stream in (one, two) for each in range(20))
        )

    assert sorted([("a", each) for each in range(20)] * 2) == sorted(await published(server))
    assert one.reconnects + two.reconnects


async def test_a_stream_that_was_never_opened_publishes(server: LiveServer) -> None:
    stream = Stream(server.url, token=server.token())

    async with asyncio.timeout(PATIENCE):
        number = await stream.publish({"type": "a"})
        await stream.close()

    assert nth(1) == number


async def test_a_request_that_is_cancelled_is_forgotten(server: LiveServer) -> None:
    async with opened(server, limit=1) as stream:
        stream.drop(down=0.2)
        waiting = asyncio.create_task(stream.publish({"type": "cancelled"}))
        await until(lambda: stream.status == "waiting")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        await stream.publish({"type": "sent"})

    assert [("sent", None)] == await published(server)


async def test_more_requests_than_the_limit_are_refused(server: LiveServer) -> None:
    async with opened(server, limit=2) as stream:
        stream.drop(down=0.2)
        waiting = [asyncio.create_task(stream.publish({"type": "a"})) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(TooManyRequests, match="2 requests"):
            await stream.publish({"type": "a"})

        await asyncio.gather(*waiting)


async def test_the_close_of_a_stream_rejects_what_waits_and_ends_the_loop(server: LiveServer) -> None:
    async with opened(server) as stream:
        listening = asyncio.create_task(collect(stream))
        stream.drop(down=PATIENCE)
        await until(lambda: stream.status == "waiting")
        waiting = asyncio.create_task(stream.publish({"type": "a"}))
        await asyncio.sleep(0)

        await stream.close()

        with pytest.raises(RequestUnanswered, match="closed before the answer"):
            await waiting
        with pytest.raises(RequestUnanswered, match="was not sent"):
            await stream.publish({"type": "a"})
        assert ([], "closed") == (await listening, stream.status)


async def collect(stream: Stream) -> list[object]:
    return [event async for event in stream]


async def test_a_server_that_refuses_the_client_rejects_what_waits_with_the_cause() -> None:
    async with scripted(close=(4403, "not here")) as url, asyncio.timeout(PATIENCE):
        stream = Stream(url, token="x")

        with pytest.raises(ConnectionRefused, match="code 4403: not here"):
            await stream.publish({"type": "a"})
        with pytest.raises(ConnectionRefused, match="code 4403: not here"):
            await anext(stream)
        await stream.close()


async def test_the_status_says_what_the_connection_does(server: LiveServer) -> None:
    async with opened(server, since=0) as stream:
        await until(lambda: stream.status == "live")
        assert (nth(0), server.manager.window.epoch) == (stream.position, stream.epoch)
        stream.drop(down=0.1)
        await until(lambda: stream.status == "waiting")
        await until(lambda: stream.status == "live")

    assert "closed" == stream.status
