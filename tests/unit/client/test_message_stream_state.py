"""Values by key and ephemeral messages: what a stream makes of the frames of a server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from scripts import Script, gap_frame, greeting, performed, stamped
from support import CONNECTED, Serve, nth, publish_while_away, scripted, until
from unmissed.client import Event, ReceivedMessage, Reset, StateLoaded, Stream, connect
from unmissed.core.errors import ConfigurationError, InvalidMessage
from unmissed.testing import LiveServer

PATIENCE = 20.0
WITH_STATE = json.dumps(json.loads(CONNECTED) | {"sequence_number": nth(9), "latest": nth(9), "state": True})


def value(number: int, key: str = "cart", *, topic: str = "users.42", **change: bool) -> dict[str, Any]:
    fields = {"type": "changed", "sequence_number": nth(number), "timestamp": "2026-01-31T12:00:00.000Z"}
    return {**fields, "topics": [topic], "key": key, **change, "data": number}


def message(number: int, key: str = "cart", **change: Any) -> str:
    return json.dumps(value(number, key, **change))


def part(*values: dict[str, Any], **fields: Any) -> str:
    """Return a part of a state that is not the last one."""
    return json.dumps({"type": "state", "values": values, "has_more": True, **fields})


def last_part(*values: dict[str, Any], through: int, **fields: Any) -> str:
    return json.dumps({"type": "state", "values": values, "has_more": False, "sequence_number": nth(through), **fields})


def with_state(text: str) -> str:
    return json.dumps({**json.loads(text), "state": True})


@asynccontextmanager
async def opened(*connections: list[Any], **options: Any) -> AsyncIterator[tuple[Stream, Script]]:
    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", state=True, **options) as stream,
    ):
        yield stream, script


async def take(stream: Stream, count: int) -> list[Event]:
    return [await anext(stream) for _ in range(count)]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def shown(stream: Stream, topic: str = "users.42") -> dict[str, list[Any]]:
    return {key: [each.data for each in kept.messages] for key, kept in stream.state(topic).items()}


async def test_a_stream_begins_with_the_whole_state_and_goes_on_with_messages() -> None:
    frames = [part(value(2), value(3, append=True)), last_part(value(5, "name"), through=9), message(10)]
    async with opened([WITH_STATE, *frames]) as (stream, script):
        state = stream.state("users.42")
        at_the_start = shown(stream)
        [loaded, changed] = await take(stream, 2)

    assert {"cart": [2, 3], "name": [5]} == at_the_start
    assert StateLoaded(None) == loaded
    assert isinstance(changed, ReceivedMessage)
    assert ("cart", False, False, {"topics": ["users.42"]}) == (
        changed.key,
        changed.append,
        changed.deleted,
        changed.extra,
    )
    assert (10, 5) == (state["cart"].data, state["name"].data)
    assert nth(10) == stream.position
    assert [{"state": "true"}] == script.queries


async def test_a_state_changes_with_what_the_loop_has_taken() -> None:
    changes = [message(10, append=True), message(11, deleted=True), message(12, "name")]
    async with opened([WITH_STATE, last_part(value(2), through=9), *changes]) as (stream, _):
        await take(stream, 1)
        states = []
        for _ in changes:
            events = await take(stream, 1)
            states.append(shown(stream))

    assert [{"cart": [2, 10]}, {}, {"name": [12]}] == states
    assert ["ReceivedMessage"] == kinds(events)


async def test_after_a_reconnect_without_a_loss_the_values_are_kept() -> None:
    connections = [
        [WITH_STATE, last_part(value(2), through=9)],
        [greeting(nth(9), "complete", latest=nth(10)), message(10, "name")],
    ]
    async with opened(*connections) as (stream, script):
        await take(stream, 1)
        stream.drop()
        events = await take(stream, 1)
        state = shown(stream)

    assert (["ReceivedMessage"], {"cart": [2], "name": [10]}) == (kinds(events), state)
    assert [(None, None), (nth(9), "e")] == script.asked
    assert ["true", "true"] == [query["state"] for query in script.queries]


async def test_a_state_that_is_cut_is_requested_from_its_start() -> None:
    """Its connection has a position, but nothing before it arrived."""
    connections = [
        [WITH_STATE, part(value(2))],
        [WITH_STATE, part(value(3, "name")), last_part(through=9)],
    ]
    async with performed(Script(connections)) as script, asyncio.timeout(PATIENCE):
        stream = Stream(script.url, token="x", state=True)
        opening = asyncio.create_task(stream.open())
        await until(lambda: stream.position == nth(9))
        stream.drop()
        await opening
        state = shown(stream)
        await stream.close()

    assert {"name": [3]} == state
    assert [None, None] == [since for since, _ in script.asked]


async def test_after_a_gap_the_values_are_loaded_again_and_then_what_is_retained_follows() -> None:
    connections = [
        [WITH_STATE, last_part(value(2), value(3, "name"), through=9)],
        [
            with_state(greeting(nth(9), "gap", to=nth(20), latest=nth(30))),
            last_part(value(3, "name"), through=9),
            message(25),
        ],
    ]
    async with opened(*connections) as (stream, _):
        await take(stream, 1)
        stream.drop()
        events = await take(stream, 2)
        loaded = shown(stream)
        events += await take(stream, 1)
        state = shown(stream)

    assert ["Gap", "StateLoaded", "ReceivedMessage"] == kinds(events)
    assert ({"name": [3]}, {"name": [3], "cart": [25]}) == (loaded, state)


async def test_a_connection_that_is_lost_after_a_gap_gets_the_state_again() -> None:
    gap = with_state(greeting(nth(9), "gap", to=nth(20), latest=nth(30)))
    connections = [
        [WITH_STATE, last_part(value(2), through=9)],
        [gap, part(value(4))],
        [gap, last_part(value(5), through=9), message(22, "name")],
    ]
    async with opened(*connections) as (stream, script):
        await take(stream, 1)
        stream.drop()
        events = await take(stream, 1)
        stream.drop()
        events += await take(stream, 2)
        state = shown(stream)

    assert ["Gap", "StateLoaded", "ReceivedMessage"] == kinds(events)
    assert {"cart": [5], "name": [22]} == state
    assert [None, nth(9), nth(9)] == [since for since, _ in script.asked]


async def test_a_gap_while_connected_leads_to_the_state_on_another_connection_and_is_reported_once() -> None:
    connections = [
        [WITH_STATE, last_part(value(2), through=9), message(12, "name"), gap_frame(nth(12), nth(20)), message(21)],
        [
            with_state(greeting(nth(12), "gap", to=nth(20), latest=nth(30))),
            last_part(value(12, "name"), through=12),
            message(21, "theme"),
        ],
    ]
    async with opened(*connections) as (stream, script):
        events = await take(stream, 5)
        state = shown(stream)

    assert ["StateLoaded", "ReceivedMessage", "Gap", "StateLoaded", "ReceivedMessage"] == kinds(events)
    assert {"name": [12], "theme": [21]} == state
    assert [(None, None), (nth(12), "e")] == script.asked


async def test_a_reset_drops_all_values_at_once() -> None:
    """After a reset, the whole log follows: a connection that is lost behind it may be complete, without a state."""
    connections = [
        [WITH_STATE, last_part(value(2), through=9)],
        [with_state(greeting(nth(50), "reset", latest=nth(60), epoch="f", first=nth(51)))],
        [greeting(nth(50), "complete", latest=nth(60), epoch="f", first=nth(51)), message(55, "name")],
    ]
    async with opened(*connections) as (stream, script):
        await take(stream, 1)
        stream.drop()
        events = await take(stream, 1)
        stream.drop()
        events += await take(stream, 1)
        state = shown(stream)

    assert ["Reset", "ReceivedMessage"] == kinds(events)
    assert {"name": [55]} == state
    assert (nth(50), "f") == script.asked[-1]


async def test_a_reset_is_followed_by_the_state_of_the_new_epoch() -> None:
    connections = [
        [WITH_STATE, last_part(value(2), through=9)],
        [
            with_state(greeting(nth(3), "reset", latest=nth(6), epoch="f")),
            last_part(through=3),
            message(4, "name"),
        ],
    ]
    async with opened(*connections) as (stream, _):
        await take(stream, 1)
        stream.drop()
        events = await take(stream, 3)
        state = shown(stream)

    assert [Reset("f"), StateLoaded(None)] == events[:2]
    assert {"name": [4]} == state


def following(frame: dict[str, Any]) -> str:
    return json.dumps(
        {"type": "following", "added": frame["topics"], "removed": [], "sequence_number": nth(9), "id": frame["id"]}
    )


async def test_topics_that_are_followed_later_come_with_their_values() -> None:
    frames: list[dict[str, Any]] = []

    def answer(frame: dict[str, Any]) -> list[str]:
        frames.append(frame)
        first, last = value(4, topic="rooms.1"), value(5, "name", topic="rooms.1")
        identified = {"id": frame["id"]}
        return [part(first, **identified), last_part(last, through=9, **identified), following(frame), message(10)]

    async with opened([WITH_STATE, last_part(value(2), through=9), answer]) as (stream, _):
        [_, topics] = await asyncio.gather(take(stream, 1), stream.follow("rooms.1"))
        events = await take(stream, 2)
        states = shown(stream), shown(stream, "rooms.1")

    assert ["rooms.1"] == topics
    assert [("follow", ["rooms.1"], True)] == [(each["type"], each["topics"], each["state"]) for each in frames]
    assert StateLoaded(("rooms.1",)) == events[0]
    assert ({"cart": [10]}, {"cart": [4], "name": [5]}) == states


async def test_requests_wait_for_the_end_of_a_state_and_for_that_of_topics() -> None:
    """The server refuses to send a state during another one."""
    received: list[str] = []

    def answer(frame: dict[str, Any]) -> list[str]:
        received.extend(frame["topics"])
        return [last_part(value(4, topic=frame["topics"][0]), through=9, id=frame["id"]), following(frame)]

    async def serve(websocket: ServerConnection) -> None:
        await websocket.send(WITH_STATE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await websocket.recv()
        await websocket.send(last_part(value(2), through=9))
        for _ in range(2):
            frame = json.loads(await websocket.recv())
            # Nothing further before the answer.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await websocket.recv()
            for text in answer(frame):
                await websocket.send(text)
        await websocket.wait_closed()

    async with serve_websockets(serve, "127.0.0.1", 0, close_timeout=0.1) as other, asyncio.timeout(PATIENCE):
        stream = Stream(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}", token="x", state=True)
        opening = asyncio.create_task(stream.open())
        await asyncio.gather(stream.follow("rooms.1"), stream.follow("rooms.2"), opening)
        await stream.close()

    assert ["rooms.1", "rooms.2"] == received


async def test_the_values_of_topics_that_a_renewed_token_adds_are_loaded() -> None:
    authenticated = {"type": "authenticated", "added": ["rooms.1"], "removed": ["users.42"], "sequence_number": nth(9)}

    def answer(frame: dict[str, Any]) -> list[str]:
        state = last_part(value(4, topic="rooms.1"), through=9, id=frame["id"])
        return [state, following({**frame, "topics": []}), message(10, topic="rooms.1", append=True)]

    frames = [WITH_STATE, last_part(value(2), through=9), json.dumps(authenticated), answer]
    async with opened(frames, [greeting(nth(10), "complete", latest=nth(10)), ephemeral()]) as (stream, script):
        events = await take(stream, 3)
        states = shown(stream), shown(stream, "rooms.1")
        stream.drop()
        await take(stream, 1)

    assert [StateLoaded(None), StateLoaded(("rooms.1",))] == events[:2]
    assert ({}, {"cart": [4, 10]}) == states
    # The client chose no topics: a later token may grant others.
    assert "topics" not in script.queries[1]


async def test_topics_that_are_no_longer_followed_have_no_values() -> None:
    def answer(frame: dict[str, Any]) -> list[str]:
        added = {"added": [], "removed": ["users.42"], "sequence_number": nth(9), "id": frame["id"]}
        return [json.dumps({"type": "following", **added}), message(10, topic="rooms.1")]

    async with opened([WITH_STATE, last_part(value(2), through=9), answer]) as (stream, _):
        await asyncio.gather(stream.unfollow("users.42"), take(stream, 2))
        states = shown(stream), shown(stream, "rooms.1")

    assert ({}, {"cart": [10]}) == states


async def test_a_stream_without_values_does_not_request_them() -> None:
    def answer(frame: dict[str, Any]) -> list[str]:
        assert "state" not in frame
        return [following(frame)]

    async with (
        performed(Script([[greeting(nth(9), "complete", latest=nth(9)), answer]])) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", since=nth(9)) as stream,
    ):
        await stream.follow("rooms.1")
        with pytest.raises(ConfigurationError, match="state=True"):
            stream.state("rooms.1")

    assert "state" not in script.queries[0]


@pytest.mark.parametrize("option", [{"since": 0}, {"since": nth(4)}, {"snapshot": print}])
async def test_a_stream_that_begins_with_the_state_begins_nowhere_else(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="leave out since and snapshot"):
        async with connect("http://127.0.0.1:1", token="x", state=True, **option):
            pass


async def test_a_server_without_values_by_key_is_an_error_and_not_an_empty_state() -> None:
    with pytest.raises(ConfigurationError, match="sends no values by key"):
        async with opened([CONNECTED]):
            pass


# Ephemeral messages


def ephemeral(data: object = 1) -> str:
    return json.dumps({"type": "typing", "timestamp": "2026-01-31T12:00:00.000Z", "data": data})


async def test_an_ephemeral_message_is_delivered_and_leaves_the_position() -> None:
    frames = [greeting(nth(5), "complete", latest=nth(9)), stamped(nth(7)), ephemeral(), stamped(nth(8))]
    async with scripted(*frames) as url, connect(url, token="x", since=nth(5)) as stream:
        await take(stream, 1)
        [typing] = await take(stream, 1)
        position = stream.position
        [after] = await take(stream, 1)

    assert ReceivedMessage("typing", None, "2026-01-31T12:00:00.000Z", 1) == typing
    assert (nth(7), nth(8)) == (position, stream.position)
    assert isinstance(after, ReceivedMessage)


async def test_an_ephemeral_message_is_delivered_although_it_came_behind_a_snapshot() -> None:
    async def load() -> int:
        return nth(9)

    frames = [greeting(nth(9), "complete", latest=nth(9)), ephemeral()]
    async with scripted(*frames) as url, connect(url, token="x", snapshot=load) as stream:
        [typing] = await take(stream, 1)

    assert isinstance(typing, ReceivedMessage)
    assert None is typing.sequence_number


async def test_fields_of_values_are_published_with_the_message() -> None:
    published: list[dict[str, Any]] = []

    def answer(frame: dict[str, Any]) -> list[str]:
        published.append(frame["message"])
        number = {} if frame["message"].get("ephemeral") else {"sequence_number": nth(10)}
        return [json.dumps({"type": "published", "id": frame["id"], **number})]

    async with (
        performed(Script([[greeting(nth(9), "complete", latest=nth(9)), *[answer] * 6]])) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", since=nth(9)) as stream,
    ):
        numbers = [
            await stream.publish({"type": "changed", "data": 1}, topics=["users.42"], key="cart"),
            await stream.publish({"type": "changed"}, key="cart", append=True),
            await stream.publish({"type": "changed"}, key="cart", deleted=True),
            await stream.publish({"type": "changed", "key": "cart"}, idempotency_key="1"),
            await stream.publish({"type": "changed"}, key=""),
        ]
        [nothing] = await asyncio.gather(stream.publish({"type": "typing"}, ephemeral=True))

    assert ([nth(10)] * 5, None) == (numbers, nothing)
    assert [
        {"type": "changed", "data": 1, "topics": ["users.42"], "key": "cart"},
        {"type": "changed", "key": "cart", "append": True},
        {"type": "changed", "key": "cart", "deleted": True},
        {"type": "changed", "key": "cart"},
        {"type": "changed", "key": ""},
        {"type": "typing", "ephemeral": True},
    ] == published


async def test_an_ephemeral_message_with_an_idempotency_key_is_refused() -> None:
    async with scripted(CONNECTED) as url, connect(url, token="x") as stream:
        with pytest.raises(InvalidMessage, match="leave out the idempotency key"):
            await stream.publish({"type": "typing", "ephemeral": True}, idempotency_key="1")


# With a live server


async def publish(server: LiveServer, data: int, *, topic: str = "users.42", **fields: Any) -> None:
    await asyncio.to_thread(server.publish, "changed", data, topics=[topic], **fields)


@asynccontextmanager
async def watching(server: LiveServer, *topics: str) -> AsyncIterator[Stream]:
    token = server.token(topics=["*"])
    async with asyncio.timeout(PATIENCE), connect(server.url, token=token, topics=topics, state=True) as stream:
        yield stream


async def test_values_are_right_at_the_start_after_a_drop_and_after_a_gap(serve: Serve) -> None:
    server = serve(max_messages=10)
    await publish(server, 1, key="name")
    await publish(server, 2, key="cart")
    await publish(server, 3, key="cart", append=True)
    async with watching(server, "users.42") as stream:
        states = [shown(stream)]
        await take(stream, 1)
        for lost in (0, 20):
            changes = [{"data": 4, "key": "name", "deleted": True}, {"data": 5 + lost, "key": "cart"}]
            changes += [{"data": number} for number in range(lost)]
            changes += [{"data": 6, "key": "end"}]
            await publish_while_away(server, [{"type": "changed", "topics": ["users.42"], **each} for each in changes])
            events = await take(stream, 1)
            while not (isinstance(events[-1], ReceivedMessage) and events[-1].key == "end"):
                events += await take(stream, 1)
            states.append(shown(stream))

    assert [
        {"name": [1], "cart": [2, 3]},
        {"cart": [5], "end": [6]},
        {"cart": [25], "end": [6]},
    ] == states
    assert ["Gap", "StateLoaded", "ReceivedMessage"] == kinds(events)[:3]


async def test_values_of_topics_that_are_followed_together_are_loaded(serve: Serve) -> None:
    server = serve()
    for number in range(3):
        await publish(server, number, topic=f"rooms.{number}", key="name")
    async with watching(server, "rooms.0") as stream:
        [followed, *_] = await asyncio.gather(stream.follow("rooms.1"), stream.follow("rooms.2", "rooms.0"))
        events = await take(stream, 3)
        states = [shown(stream, f"rooms.{number}") for number in range(3)]

    assert ["rooms.0", "rooms.1"] == followed
    assert [StateLoaded(None), StateLoaded(("rooms.1",)), StateLoaded(("rooms.2", "rooms.0"))] == events
    assert [{"name": [0]}, {"name": [1]}, {"name": [2]}] == states


async def test_ephemeral_messages_are_exchanged_by_clients(serve: Serve) -> None:
    server = serve()
    token = server.token(topics=["*"])
    async with (
        asyncio.timeout(PATIENCE),
        connect(server.url, token=token, topics=["rooms.1"]) as first,
        connect(server.url, token=token, topics=["rooms.1"]) as second,
    ):
        before = second.position
        await first.publish({"type": "typing", "data": "first"}, topics=["rooms.1"], ephemeral=True)
        [typing] = await take(second, 1)
        after = second.position
        number = await first.publish({"type": "chat"}, topics=["rooms.1"], key="last")
        [chat] = await take(second, 1)

    assert isinstance(typing, ReceivedMessage)
    assert isinstance(chat, ReceivedMessage)
    assert (None, "first", ["rooms.1"]) == (typing.sequence_number, typing.data, typing.topics)
    assert before == after
    assert (number, "last") == (chat.sequence_number, chat.key)
