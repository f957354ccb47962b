"""The client against a live server that drops it, forgets and restarts."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from scripts import Script, gap_frame, greeting, performed, stamped
from support import CONNECTED, FIRST, nth, nths, publish_while_away, scripted, until
from unmissed import Connection
from unmissed.client import Event, Gap, ReceivedMessage, Reset, Stream, TokenProvider, Unreadable, clean_token, connect
from unmissed.core.errors import ConfigurationError, ConnectionRefused
from unmissed.testing import LiveServer

PATIENCE = 20.0
NOWHERE = "http://127.0.0.1:1"
FRAMES = json.loads((Path(__file__).parents[2] / "browser" / "frames.json").read_text())
"""What both clients make of the frames of a server: the tests of the browser client read them, too."""


@pytest.fixture
def server(serve: Callable[..., LiveServer]) -> LiveServer:
    return serve(drain_seconds=0.1)


@pytest.fixture
def small_server(serve: Callable[..., LiveServer]) -> LiveServer:
    return serve(drain_seconds=0.1, max_messages=5)


@asynccontextmanager
async def opened(
    server: LiveServer, *, url: str | None = None, token: TokenProvider | None = None, **position: Any
) -> AsyncIterator[Stream]:
    """Connect, and wait for nothing longer than is bearable."""
    async with (
        asyncio.timeout(PATIENCE),
        connect(url or server.url, token=token or server.token(), **position) as stream,
    ):
        yield stream


async def take(stream: Stream, count: int) -> list[Event]:
    return [await anext(stream) for _ in range(count)]


async def publish(server: LiveServer, count: int = 1) -> None:
    for _ in range(count):
        await asyncio.to_thread(server.publish, "chat")


def numbers(events: list[Event]) -> list[int]:
    """Return the numbers of the messages; anything else makes them incomparable."""
    found = (event.sequence_number if isinstance(event, ReceivedMessage) else None for event in events)
    return [-1 if number is None else number for number in found]


async def test_a_stream_without_a_position_starts_with_what_is_published_next(server: LiveServer) -> None:
    await publish(server, 2)
    async with opened(server) as stream:
        stamped = await asyncio.to_thread(server.publish, "chat", {"text": "héllo"})

        events = await take(stream, 1)

    assert [ReceivedMessage("chat", nth(3), stamped.timestamp, {"text": "héllo"})] == events


async def test_a_stream_with_a_position_starts_after_it(server: LiveServer) -> None:
    await publish(server, 4)

    async with opened(server, since=nth(2)) as stream:
        events = await take(stream, 2)

    assert nths(3, 4) == numbers(events)
    assert all(isinstance(event, ReceivedMessage) and event.recovered for event in events)


async def test_a_stream_follows_its_topics_also_after_a_reconnect(server: LiveServer) -> None:
    token = server.token(topics=["news", "rooms.*"])
    async with opened(server, token=token, topics=["rooms.1", "rooms.2"]) as stream:
        await asyncio.to_thread(server.publish, "a", topics=["rooms.1"])
        [first] = await take(stream, 1)
        assert stream.drop()
        await asyncio.to_thread(server.publish, "b", topics=["news"])
        await asyncio.to_thread(server.publish, "c", topics=["rooms.2", "news"])
        [second] = await take(stream, 1)

    assert nths(1, 3) == numbers([first, second])
    assert isinstance(second, ReceivedMessage)
    assert {"topics": ["rooms.2", "news"]} == second.extra


@pytest.mark.long
async def test_a_token_is_renewed_before_it_expires_and_the_connection_stays(server: LiveServer) -> None:
    lives = [2.0, 2.0, 60.0]

    def provider() -> str:
        return server.token(expires_in=lives.pop(0))

    def lasts(connection: Connection) -> bool:
        return (connection.identity.expires_at or 0.0) > time.time() + 30

    async with opened(server, token=provider) as stream:
        async with asyncio.timeout(PATIENCE):
            reading = asyncio.create_task(anext(stream))
            await until(lambda: not lives)
            # The server has taken the last token, and the first one has expired: two renewals take 3.2 seconds.
            await until(lambda: [True] == [lasts(each) for each in server.manager.connections])
            await publish(server)
            event = await reading

    assert nths(1) == numbers([event])
    assert 0 == stream.reconnects


@pytest.mark.parametrize(("renewed", "sent"), [("old", []), ("new", ['{"type":"authenticate","token":"new"}'])])
@pytest.mark.parametrize("wrong", [None, -3_600, 3_600], ids=["old server", "clock ahead", "clock behind"])
async def test_a_token_is_renewed_in_time_and_sent_if_it_changed(
    wrong: float | None, renewed: str, sent: list[str]
) -> None:
    """Where the server says how long the token is valid, it does not matter whether the clock here is right."""
    tokens, received, left = ["old", renewed], list[str | bytes](), asyncio.Event()

    async def note(websocket: ServerConnection) -> None:
        end = (
            {"expires_at": time.time() + 1.0}
            if wrong is None
            else {"expires_at": time.time() + wrong, "expires_in": 1.0}
        )
        await websocket.send(json.dumps({**json.loads(CONNECTED), **end}))
        # Until the client leaves, which it does behind everything that it sent.
        received.extend([each async for each in websocket])
        left.set()

    async with (
        serve_websockets(note, "127.0.0.1", 0) as other,
        asyncio.timeout(PATIENCE),
        connect(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}", token=lambda: tokens.pop(0)),
    ):
        await until(lambda: not tokens)
    await left.wait()

    assert sent == received


async def test_a_provider_that_fails_to_renew_is_logged_and_asked_again_when_the_token_has_expired(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [server.token(expires_in=1.0), "", server.token()]

    async with opened(server, token=lambda: tokens.pop(0)) as stream:
        reading = asyncio.create_task(anext(stream))
        await until(lambda: not tokens)
        await until(lambda: server.manager.connections)
        await publish(server)

        assert nths(1) == numbers([await reading])

    assert "the token cannot be renewed: the token is empty" in caplog.text


async def test_a_topic_that_is_not_granted_ends_the_stream(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused, match="the topic sport is not granted"):
        async with opened(server, token=server.token(topics=["news"]), topics=["sport"]):
            pass


async def test_one_string_is_no_list_of_topics(server: LiveServer) -> None:
    with pytest.raises(ConfigurationError, match=r"write topics=\['news'\]"):
        async with opened(server, token=server.token(topics=["*"]), topics="news"):
            pass


async def test_a_stream_from_zero_gets_everything_and_goes_on_live(server: LiveServer) -> None:
    await publish(server, 2)
    async with opened(server, since=0) as stream:
        recovered = await take(stream, 2)
        await publish(server)

        live = await take(stream, 1)

    assert nths(1, 2, 3) == numbers(recovered + live)
    assert [True, True, False] == [event.recovered for event in recovered + live if isinstance(event, ReceivedMessage)]


@pytest.mark.parametrize("form", ["{url}", "{url}/", "{url}/ws", "{websocket_url}", "{address}", "{url}?old=query"])
async def test_every_form_of_the_address_leads_to_the_websocket(server: LiveServer, form: str) -> None:
    address = server.url.removeprefix("http://")
    url = form.format(url=server.url, websocket_url=server.websocket_url, address=address)

    async with opened(server, url=url) as stream:
        assert server.manager.window.epoch == stream.epoch


async def test_keys_of_the_publisher_are_extra_whatever_their_names(server: LiveServer) -> None:
    fields = {"type": "chat", "data": 1, "self": "me", "extra": [2], "recovered": "no", "epoch": "e", "from": 3}
    async with opened(server) as stream:
        await asyncio.to_thread(server.manager.publish_threadsafe, fields)

        [event] = await take(stream, 1)

    assert isinstance(event, ReceivedMessage)
    assert {"self": "me", "extra": [2], "recovered": "no", "epoch": "e", "from": 3} == event.extra
    assert ("chat", 1, False) == (event.type, event.data, event.recovered)


async def test_a_message_without_data_has_none(server: LiveServer) -> None:
    async with opened(server) as stream:
        await asyncio.to_thread(server.publish, "note")

        [event] = await take(stream, 1)

    assert isinstance(event, ReceivedMessage)
    assert None is event.data


async def test_messages_to_others_are_no_gap(server: LiveServer) -> None:
    async with opened(server) as stream:
        await asyncio.to_thread(server.publish, "note", users=["bob"])
        await publish(server)

        events = await take(stream, 1)

    assert nths(2) == numbers(events)


async def test_a_drop_by_the_server_loses_and_doubles_nothing(server: LiveServer) -> None:
    async with opened(server) as stream:
        await publish(server, 2)
        before = await take(stream, 2)
        await asyncio.to_thread(server.drop)
        await publish(server, 3)

        after = await take(stream, 3)

        await publish(server)
        live = await take(stream, 1)

    assert nths(1, 2, 3, 4, 5, 6) == numbers(before + after + live)
    assert [True, True, True] == [event.recovered for event in after if isinstance(event, ReceivedMessage)]
    assert [False] == [event.recovered for event in live if isinstance(event, ReceivedMessage)]
    assert 1 == stream.reconnects


async def test_a_drop_before_anything_was_seen_loses_nothing(server: LiveServer) -> None:
    """The greeting is a position already."""
    await publish(server, 2)
    async with opened(server) as stream:
        stream.drop()
        await publish(server, 2)

        events = await take(stream, 2)

    assert nths(3, 4) == numbers(events)


async def test_a_drop_holds_the_connection_down_as_long_as_asked_and_once(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server) as stream:
        for down in (0.7, 0.0):
            assert stream.drop(down)
            await publish(server)
            await take(stream, 1)

    held, jittered = [line for line in caplog.messages if "/ws: connection lost, reconnecting in " in line]
    assert held.endswith(" 0.7 s")
    assert not jittered.endswith(" 0.7 s")


async def test_without_a_connection_there_is_nothing_to_drop() -> None:
    stream = Stream(NOWHERE, token="x", since=None, epoch=None)

    assert not stream.drop(down=60.0)


async def test_drops_in_the_middle_of_a_flow_lose_and_double_nothing(server: LiveServer) -> None:
    async with opened(server) as stream, asyncio.TaskGroup() as tasks:
        tasks.create_task(publish(server, 120))

        events: list[Event] = []
        for drop_after in (1, 30, 60, 90, 120):
            events += await take(stream, drop_after - len(events))
            stream.drop()

    assert nths(*range(1, 121)) == numbers(events)


async def test_a_close_discards_unread_frames_and_completes_the_handshake(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "websockets.client")
    async with opened(server, close_seconds=PATIENCE) as stream:
        await publish(server, 200)
        await until(lambda: all(each.position == nth(200) for each in server.manager.connections))

    assert received_a_close(caplog)
    assert nth(0) == stream.position


async def test_a_close_while_the_next_event_is_awaited_completes_the_handshake(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "websockets.client")
    async with opened(server, close_seconds=PATIENCE) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)

        await stream.close()

        assert received_a_close(caplog)
        waiting.cancel()


def received_a_close(caplog: pytest.LogCaptureFixture) -> bool:
    """Return whether a client has read the close frame of the server, which the log of websockets shows."""
    lines = [record.getMessage() for record in caplog.records if record.name == "websockets.client"]
    return any(line.startswith("< CLOSE 1000") for line in lines)


@pytest.mark.live
async def test_a_close_gives_up_on_a_server_that_does_not_answer() -> None:
    async with scripted(CONNECTED, reads=False) as url, connect(url, token="x"):
        started = time.monotonic()

    # That of websockets itself is ten seconds.
    assert time.monotonic() - started < 9


async def test_a_position_is_enough_to_continue_in_another_process(server: LiveServer) -> None:
    async with opened(server) as stream:
        await publish(server, 2)
        first = await take(stream, 1)
    await publish(server)

    async with opened(server, since=stream.position, epoch=stream.epoch) as continued:
        rest = await take(continued, 2)

    assert nths(1, 2, 3) == numbers(first + rest)


async def test_eviction_while_away_is_a_gap_and_then_what_is_held(small_server: LiveServer) -> None:
    async with opened(small_server) as stream:
        await publish(small_server)
        await take(stream, 1)
        await publish_while_away(small_server, [{"type": "chat"}] * 10)

        gap, *rest = await take(stream, 6)

    assert Gap(first=nth(2), last=nth(6)) == gap
    assert nths(7, 8, 9, 10, 11) == numbers(rest)


async def test_a_gap_after_position_0_counts_from_the_first_number_of_the_epoch(
    serve: Callable[..., LiveServer],
) -> None:
    server = serve(max_messages=5, first_number=FIRST)
    await publish(server, 6)

    async with opened(server, since=0) as stream:
        gap, message = await take(stream, 2)

    assert Gap(first=FIRST, last=FIRST) == gap
    assert [FIRST + 1] == numbers([message])


async def test_a_gap_of_a_server_that_continues_behind_it_counts_from_the_position() -> None:
    greeting = json.loads(CONNECTED) | {"latest": FIRST + 9, "oldest": FIRST + 5, "outcome": "gap"}
    async with (
        scripted(json.dumps(greeting | {"sequence_number": FIRST + 4})) as url,
        connect(url, token="x", since=FIRST) as stream,
    ):
        [gap] = await take(stream, 1)

    assert Gap(first=FIRST + 1, last=FIRST + 4) == gap


async def test_a_gap_leaves_the_position_and_what_is_retained_in_it_follows() -> None:
    frames = [greeting(nth(5), "gap", to=nth(20), latest=nth(30)), stamped(nth(8)), stamped(nth(25))]
    async with scripted(*frames) as url, connect(url, token="x", since=nth(5)) as stream:
        gap = await anext(stream)
        position = stream.position
        rest = await take(stream, 2)

    assert (Gap(nth(6), nth(20)), nth(5)) == (gap, position)
    assert nths(8, 25) == numbers(rest)


async def test_a_gap_is_reported_once_however_often_the_connection_is_lost_within_it() -> None:
    connections = [
        [greeting(nth(5), "gap", to=nth(20), latest=nth(30)), stamped(nth(8))],
        [greeting(nth(8), "gap", to=nth(20), latest=nth(30)), stamped(nth(12))],
        [greeting(nth(12), "gap", to=nth(26), latest=nth(30)), stamped(nth(28))],
        [greeting(nth(28), "complete", latest=nth(30)), gap_frame(nth(28), nth(29)), stamped(nth(30))],
    ]
    events: list[Event] = []
    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", since=nth(5)) as stream,
    ):
        for count in (2, 1, 2, 2):
            events += await take(stream, count)
            stream.drop()

    expected = [
        ["gap", nth(6), nth(20)],
        ["message", nth(8), True],
        ["message", nth(12), True],
        ["gap", nth(13), nth(26)],
        ["message", nth(28), True],
        ["gap", nth(29), nth(29)],
        ["message", nth(30), True],
    ]
    assert expected == [shape(event) for event in events]
    assert [nth(5), nth(8), nth(12), nth(28)] == [since for since, _ in script.asked]


async def test_a_reset_within_the_same_epoch_sets_the_position_back() -> None:
    connections = [
        [greeting(nth(50), "complete", latest=nth(50))],
        [greeting(nth(9), "reset", latest=nth(30)), stamped(nth(10))],
        [greeting(nth(10), "complete", latest=nth(30)), stamped(nth(30))],
    ]
    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", since=nth(50), epoch="e") as stream,
    ):
        stream.drop()
        events = await take(stream, 2)
        position = stream.position
        stream.drop()
        events += await take(stream, 1)

    assert [["reset", "e"], ["message", nth(10), True], ["message", nth(30), True]] == [*map(shape, events)]
    assert nth(10) == position
    assert [(nth(50), "e"), (nth(50), "e"), (nth(10), "e")] == script.asked


async def test_after_a_reset_a_gap_that_was_reported_before_it_is_reported_again() -> None:
    """Its numbers may be those of other messages."""
    connections = [
        [greeting(nth(5), "gap", to=nth(20), latest=nth(30))],
        [greeting(nth(5), "reset", latest=nth(30), epoch="f")],
        [greeting(nth(5), "gap", to=nth(20), latest=nth(30), epoch="f")],
    ]
    events: list[Event] = []
    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", since=nth(5)) as stream,
    ):
        for _ in connections:
            events += await take(stream, 1)
            stream.drop()

    assert [["gap", nth(6), nth(20)], ["reset", "f"], ["gap", nth(6), nth(20)]] == [*map(shape, events)]


async def test_an_answer_with_an_earlier_number_does_not_set_the_position_back() -> None:
    greeting = json.dumps(json.loads(CONNECTED) | {"latest": FIRST, "sequence_number": FIRST})
    published = f'{{"type":"published","id":"1","sequence_number":{FIRST + 3}}}'
    async with scripted(greeting, stamped(FIRST + 8), published, "a frame without a number") as url:
        _, stream = await taken(url, 2)

    assert FIRST + 8 == stream.position


async def test_eviction_of_what_was_seen_is_no_gap(small_server: LiveServer) -> None:
    async with opened(small_server) as stream:
        await publish(small_server, 2)
        await take(stream, 2)
        await asyncio.to_thread(small_server.drop)
        await publish(small_server, 5)

        events = await take(stream, 5)

    assert nths(3, 4, 5, 6, 7) == numbers(events)


async def test_a_restart_is_a_reset_and_then_what_is_new(server: LiveServer) -> None:
    async with opened(server) as stream:
        await publish(server, 3)
        await take(stream, 3)
        first_epoch = stream.epoch
        await asyncio.to_thread(server.restart)
        await publish(server, 2)

        reset, *rest = await take(stream, 3)

    assert Reset(server.manager.window.epoch) == reset
    assert nths(1, 2) == numbers(rest)
    assert server.manager.window.epoch == stream.epoch != first_epoch


async def test_another_epoch_is_a_reset_although_the_number_exists(server: LiveServer) -> None:
    await publish(server, 3)

    async with opened(server, since=nth(2), epoch="an earlier life") as stream:
        reset, *rest = await take(stream, 4)

    assert Reset(server.manager.window.epoch) == reset
    assert nths(1, 2, 3) == numbers(rest)


async def test_a_fixed_token_that_is_refused_is_not_tried_twice(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        async with opened(server, token="garbage"):
            pass

    assert 4401 == refused.value.code
    assert "the token is invalid or expired" == refused.value.reason


async def test_a_position_that_is_none_is_refused(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        async with opened(server, since=2**53):
            pass

    assert 4400 == refused.value.code


async def test_an_address_without_a_websocket_is_refused(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        async with opened(server, url=f"{server.url}/nothing"):
            pass

    assert refused.value.code in (403, 404)
    assert f"{server.websocket_url.removesuffix('/ws')}/nothing/ws was refused" in refused.value.reason
    assert "check the address" in refused.value.reason


async def test_a_provider_is_asked_for_a_token_for_every_connection(server: LiveServer) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append(server.token())
        return asked[-1]

    async with opened(server, token=token) as stream:
        for _ in range(2):
            stream.drop()
            await publish(server)
            await take(stream, 1)

    assert 3 == len(asked)
    assert 2 == stream.reconnects


async def test_a_provider_may_be_asynchronous(server: LiveServer) -> None:
    asked: list[str] = []

    async def token() -> str:
        asked.append(await asyncio.to_thread(server.token))
        return asked[-1]

    async with opened(server, token=token) as stream:
        stream.drop()
        await publish(server)
        events = await take(stream, 1)

    assert 2 == len(asked)
    assert nths(1) == numbers(events)


async def test_whitespace_around_a_token_is_removed(server: LiveServer) -> None:
    async with opened(server, token=lambda: f" {server.token()}\n") as stream:
        assert server.manager.window.epoch == stream.epoch


@pytest.mark.parametrize("token", ["secret token", "s\u00e9cret", "secret\x7f", ""])
async def test_what_is_no_token_is_not_sent_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        async with connect(NOWHERE, token=token):
            pass

    assert "cret" not in str(refused.value)


async def test_a_token_in_the_reason_of_a_refusal_is_not_shown() -> None:
    async with scripted(close=(4403, "eyJhbGciOi.x.y is not welcome")) as url:
        with pytest.raises(ConnectionRefused) as refused:
            await taken(url, 1)

    assert "[redacted] is not welcome" == refused.value.reason


async def test_a_provider_whose_token_is_refused_is_asked_once_more(server: LiveServer) -> None:
    tokens = iter(["expired", server.token()])

    async with opened(server, token=lambda: next(tokens)) as stream:
        await publish(server)
        events = await take(stream, 1)

    assert nths(1) == numbers(events)


async def test_a_provider_whose_tokens_are_refused_twice_gives_up(server: LiveServer) -> None:
    asked: list[str] = []

    def token() -> str:
        asked.append("garbage")
        return asked[-1]

    with pytest.raises(ConnectionRefused, match="code 4401"):
        async with opened(server, token=token):
            pass

    assert 2 == len(asked)


async def test_a_stream_waits_for_a_server_that_is_not_there_yet(server: LiveServer) -> None:
    await asyncio.to_thread(server.stop)

    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(epoch_of(server))
        await asyncio.to_thread(server.start)

    assert server.manager.window.epoch == opening.result()


async def epoch_of(server: LiveServer) -> str | None:
    async with opened(server) as stream:
        return stream.epoch


async def warning_of(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """Try to connect, and return the first warning."""

    async def watch() -> None:
        async with connect(url, token="x") as stream:
            await anext(stream)

    watching = asyncio.create_task(watch())
    await until(lambda: watching.done() or caplog.messages)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return caplog.messages[0]


async def test_a_dead_port_is_logged_with_the_time_of_the_next_attempt(caplog: pytest.LogCaptureFixture) -> None:
    warning = await warning_of(NOWHERE, caplog)

    assert re.fullmatch(r"ws://127\.0\.0\.1:1/ws: connection refused, reconnecting in 0\.\d s", warning)
    assert [("unmissed.client", logging.WARNING)] == [(record.name, record.levelno) for record in caplog.records[:1]]


async def test_a_status_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(status=503) as url:
        warning = await warning_of(url, caplog)

    assert "/ws: HTTP status 503, reconnecting in " in warning


async def test_a_close_is_logged_with_its_code_and_its_reason_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(CONNECTED, close=(1012, "going\ndown eyJhbGciOi.x.y")) as url:
        warning = await warning_of(url, caplog)

    assert "/ws: closed with code 1012 (going down [redacted]), reconnecting in " in warning


async def test_the_query_and_the_password_of_the_address_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    warning = await warning_of("http://me:secret@127.0.0.1:1/?token=secret#secret", caplog)

    assert warning.startswith("ws://127.0.0.1:1/ws: connection refused, ")


@pytest.mark.parametrize("url", ["ftp://me:secret@127.0.0.1", "ftp://h?token=secret", "ftp://h#secret"])
async def test_a_bad_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        async with connect(url, token="x"):
            pass

    assert "secret" not in str(refused.value)


async def test_a_reconnect_is_logged_with_its_outcome(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="unmissed")
    async with opened(server) as stream:
        stream.drop()
        await publish(server)
        await take(stream, 1)

    lost, reconnected = [record for record in caplog.records if record.name == "unmissed.client"]
    assert "/ws: connection lost, reconnecting in " in lost.getMessage()
    assert f"{server.websocket_url}: reconnected, outcome complete" == reconnected.getMessage()
    assert logging.INFO == reconnected.levelno


DEEP = "[" * 200_000 + "]" * 200_000


async def taken(url: str, count: int) -> tuple[list[Event], Stream]:
    """Return the first events of a server, and the stream."""
    async with asyncio.timeout(PATIENCE), connect(url, token="x") as stream:
        return await take(stream, count), stream


@pytest.mark.parametrize("type", ["chat", '\\"', "\\\\", '\\",\\"sequence_number\\":9', "h\u00e9", ""])
async def test_a_message_that_is_nested_too_deeply_is_passed_over(type: str, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(CONNECTED, stamped(nth(1), f',"data":{DEEP}', type=type), stamped(nth(2))) as url:
        [unreadable, message], _ = await taken(url, 2)

    assert Unreadable(nth(1), "it is nested too deeply") == unreadable
    assert nths(2) == numbers([message])
    assert [logging.ERROR] == [record.levelno for record in caplog.records]
    assert f"/ws: message {nth(1)} cannot be read: it is nested too deeply" in caplog.text


async def test_the_position_moves_past_a_message_that_cannot_be_read() -> None:
    async with scripted(CONNECTED, stamped(nth(7), ',"data":NaN')) as url:
        [event], stream = await taken(url, 1)

    assert Unreadable(nth(7), "NaN is not JSON") == event
    assert nth(7) == stream.position


@pytest.mark.parametrize(
    "frame",
    [
        "nonsense",
        "",
        "[1]",
        "5",
        "null",
        "{}",
        '{"type":5,"sequence_number":9,"timestamp":""}',
        '{"data":{"type":"chat","sequence_number":9,"timestamp":"',
        '{"type":"chat","sequence_number":99999999999999999,"timestamp":"',
        '{"type":"chat","sequence_number":-1,"timestamp":"',
    ],
)
async def test_a_frame_without_a_readable_number_leaves_the_position(frame: str) -> None:
    async with scripted(CONNECTED, stamped(nth(3)), frame, stamped(nth(4))) as url:
        [_, unreadable, message], stream = await taken(url, 3)

    assert isinstance(unreadable, Unreadable)
    assert None is unreadable.sequence_number
    assert (nths(4), nth(4)) == (numbers([message]), stream.position)


async def test_a_frame_of_a_later_version_is_ignored_except_for_its_position() -> None:
    async with scripted(
        CONNECTED, f'{{"type":"following","sequence_number":{nth(5)}}}', '{"type":"news"}', stamped(nth(7))
    ) as url:
        events, stream = await taken(url, 1)

    assert (nths(7), nth(7)) == (numbers(events), stream.position)


def shape(event: Event) -> list[Any]:
    """Return an event in the form of ``FRAMES``."""
    match event:
        case ReceivedMessage(sequence_number=number, recovered=recovered):
            return ["message", number, recovered]
        case Gap(first=first, last=last):
            return ["gap", first, last]
        case Reset(epoch=epoch):
            return ["reset", epoch]
        case _:
            return ["unreadable"]


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case["name"])
async def test_frames_mean_the_same_as_in_a_browser(case: dict[str, Any]) -> None:
    frames = map(json.dumps, case["frames"])
    async with (
        scripted(*frames) as url,
        asyncio.timeout(PATIENCE),
        connect(url, token="x", since=case.get("since"), epoch=case.get("epoch_before")) as stream,
    ):
        events = await take(stream, len(case["events"]))

    assert case["events"] == [shape(event) for event in events]
    assert (case["position"], case["epoch"]) == (stream.position, stream.epoch)


BEFORE = FIRST - 1_000
"""A number of an earlier epoch."""

SNAPSHOTS: dict[str, tuple[list[int], list[list[str]], list[list[Any]], list[tuple[int | None, str | None]]]] = {
    "an older state than the connection is recovered from its own number": (
        [FIRST + 2],
        [[greeting(FIRST + 2, "complete", latest=FIRST + 4), stamped(FIRST + 3), stamped(FIRST + 5)]],
        [["message", FIRST + 3, True], ["message", FIRST + 5, False]],
        [(FIRST + 2, None)],
    ),
    "a state that contains nothing starts with the epoch": (
        [0],
        [[greeting(FIRST - 1, "complete", latest=FIRST), stamped(FIRST)]],
        [["message", FIRST, True]],
        [(0, None)],
    ),
    "after a gap, the number of a new state counts": (
        [FIRST, FIRST + 9],
        [
            [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 8), stamped(FIRST + 3), stamped(FIRST + 8)],
            [greeting(FIRST + 9, "complete", latest=FIRST + 9), stamped(FIRST + 10)],
        ],
        [["gap", FIRST + 1, FIRST + 5], ["message", FIRST + 10, False]],
        [(FIRST, None), (FIRST + 9, "e")],
    ),
    "a state that is as old as the end of the gap contains what is retained within it": (
        [FIRST, FIRST + 5],
        [
            [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 3), stamped(FIRST + 6)],
            [greeting(FIRST + 5, "complete", latest=FIRST + 6), stamped(FIRST + 6)],
        ],
        [["gap", FIRST + 1, FIRST + 5], ["message", FIRST + 6, True]],
        [(FIRST, None), (FIRST + 5, "e")],
    ),
    "a state that stays old is one gap, and then what is retained within it": (
        [FIRST, FIRST],
        [[greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 3), stamped(FIRST + 6)]],
        [["gap", FIRST + 1, FIRST + 5], ["message", FIRST + 3, True], ["message", FIRST + 6, True]],
        [(FIRST, None)],
    ),
    "a state that ends within a gap is followed by what is retained behind it": (
        [FIRST, FIRST + 3],
        [
            [
                greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6),
                *map(stamped, [FIRST + 2, FIRST + 3, FIRST + 4, FIRST + 6]),
            ]
        ],
        [["gap", FIRST + 1, FIRST + 5], ["message", FIRST + 4, True], ["message", FIRST + 6, True]],
        [(FIRST, None)],
    ),
    "a state that stays empty is one gap": (
        [0, 0],
        [[greeting(FIRST - 1, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 6)]],
        [["gap", FIRST, FIRST + 5], ["message", FIRST + 6, True]],
        [(0, None)],
    ),
    "a state that goes back behind a gap while connected is a larger gap, once": (
        [FIRST + 4, FIRST, FIRST],
        [
            [greeting(FIRST + 4, "complete", latest=FIRST + 4), gap_frame(FIRST + 4, FIRST + 7)],
            [greeting(FIRST, "gap", to=FIRST + 7, latest=FIRST + 8), stamped(FIRST + 8)],
        ],
        [["gap", FIRST + 5, FIRST + 7], ["gap", FIRST + 1, FIRST + 7], ["message", FIRST + 8, True]],
        [(FIRST + 4, None), (FIRST, "e")],
    ),
    "a state that goes back within a gap is requested again, without a second gap": (
        [FIRST, FIRST + 2, FIRST + 1],
        [
            [
                greeting(FIRST, "gap", to=FIRST + 3, latest=FIRST + 9),
                gap_frame(FIRST + 2, FIRST + 7),
                stamped(FIRST + 4),
            ],
            [greeting(FIRST + 1, "gap", to=FIRST + 7, latest=FIRST + 9), stamped(FIRST + 4), stamped(FIRST + 8)],
        ],
        [
            ["gap", FIRST + 1, FIRST + 3],
            ["gap", FIRST + 3, FIRST + 7],
            ["message", FIRST + 4, True],
            ["message", FIRST + 8, True],
        ],
        [(FIRST, None), (FIRST + 1, "e")],
    ),
    "a state of an earlier epoch is a reset, and the next one counts": (
        [BEFORE, FIRST + 3],
        [
            [greeting(FIRST - 1, "reset", latest=FIRST + 4), stamped(FIRST)],
            [greeting(FIRST + 3, "complete", latest=FIRST + 4), stamped(FIRST + 4)],
        ],
        [["reset", "e"], ["message", FIRST + 4, True]],
        [(BEFORE, None), (FIRST + 3, "e")],
    ),
    "a state that stays in an earlier epoch is one reset, and then all of this epoch": (
        [BEFORE, BEFORE],
        [[greeting(FIRST - 1, "reset", latest=FIRST), stamped(FIRST)]],
        [["reset", "e"], ["message", FIRST, True]],
        [(BEFORE, None)],
    ),
    "a state that stays in an earlier epoch misses what was evicted in this one": (
        [BEFORE, BEFORE, BEFORE],
        [
            [greeting(FIRST + 2, "reset", latest=FIRST + 3), stamped(FIRST + 3)],
            [greeting(FIRST - 1, "gap", to=FIRST + 2, latest=FIRST + 3), stamped(FIRST + 3)],
        ],
        [["reset", "e"], ["gap", FIRST, FIRST + 2], ["message", FIRST + 3, True]],
        [(BEFORE, None), (FIRST - 1, "e")],
    ),
    "a state of another log with higher numbers is not requested for ever": (
        [FIRST + 1_000_000, FIRST + 2_000_000],
        [[greeting(FIRST - 1, "reset", latest=FIRST), stamped(FIRST)]] * 2,
        [["reset", "e"], ["reset", "e"], ["message", FIRST, True]],
        [(FIRST + 1_000_000, None), (FIRST + 2_000_000, "e")],
    ),
    "a second reset while the state is loaded is a second state": (
        [BEFORE, FIRST + 1, FIRST + 50_002],
        [
            [greeting(FIRST - 1, "reset", latest=FIRST + 1), stamped(FIRST)],
            [greeting(FIRST + 50_000, "reset", latest=FIRST + 50_001, epoch="f", first=FIRST + 50_001)],
            [greeting(FIRST + 50_002, "complete", latest=FIRST + 50_002, epoch="f"), stamped(FIRST + 50_003)],
        ],
        [["reset", "e"], ["reset", "f"], ["message", FIRST + 50_003, False]],
        [(BEFORE, None), (FIRST + 1, "e"), (FIRST + 50_002, "f")],
    ),
}
"""What snapshots return, what the server sends on each connection, the events, and what the server is asked."""


@pytest.mark.live
@pytest.mark.parametrize("case", SNAPSHOTS)
async def test_a_snapshot_of_any_age_leads_to_what_follows_it(case: str) -> None:
    numbers, connections, expected, asked = SNAPSHOTS[case]
    left = [*numbers]

    async def load() -> int:
        return left.pop(0)

    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", snapshot=load) as stream,
    ):
        events = await take(stream, len(expected))

    assert expected == [shape(event) for event in events]
    assert asked == script.asked
    assert not left, "not every snapshot was loaded"


async def test_a_stream_with_a_position_loads_a_state_only_after_a_loss() -> None:
    loads: list[int] = []

    async def load() -> int:
        loads.append(FIRST + 5)
        return FIRST + 5

    connections = [
        [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 6)],
        [greeting(FIRST + 5, "complete", latest=FIRST + 6), stamped(FIRST + 6)],
    ]
    async with (
        performed(Script(connections)) as script,
        connect(script.url, token="x", since=FIRST, snapshot=load) as stream,
    ):
        gap = await anext(stream)
        before = [*loads]
        message = await anext(stream)

    assert (Gap(FIRST + 1, FIRST + 5), []) == (gap, before)
    assert ([FIRST + 6], [FIRST + 5]) == (numbers([message]), loads)


async def test_an_exception_of_a_snapshot_reaches_the_application_and_the_next_call_loads_again() -> None:
    results: list[int | Exception] = [FIRST, OSError("the database is away"), TimeoutError(), FIRST + 9]

    async def load() -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    script = Script(
        [
            [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 6)],
            [greeting(FIRST + 9, "complete", latest=FIRST + 9), stamped(FIRST + 10)],
        ]
    )
    async with performed(script), asyncio.timeout(PATIENCE), connect(script.url, token="x", snapshot=load) as stream:
        with pytest.raises(OSError, match="the database is away"):
            await take(stream, 2)
        with pytest.raises(TimeoutError):
            await anext(stream)
        message = await anext(stream)

    assert [FIRST + 10] == numbers([message])
    assert 0 == stream.reconnects


async def test_an_exception_of_the_first_snapshot_ends_the_connect() -> None:
    async def load() -> int:
        raise LookupError("there is no such order")

    with pytest.raises(LookupError, match="there is no such order"):
        async with connect(NOWHERE, token="x", snapshot=load):
            pass


@pytest.mark.parametrize("number", [None, "1796000000000001", b"1", 1.0, True, -1, 2**53])
async def test_a_snapshot_that_returns_no_number_is_refused(number: Any) -> None:
    async def load() -> Any:
        return number

    with pytest.raises(ConfigurationError, match="return the sequence number that the loaded state contains, or 0"):
        async with connect(NOWHERE, token="x", snapshot=load):
            pass


async def test_a_connection_that_is_lost_within_a_state_does_not_lead_back_behind_it() -> None:
    numbers = [FIRST, FIRST + 3]

    async def load() -> int:
        return numbers.pop(0)

    start = greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6)
    connections = [[start], [start, "nonsense", *map(stamped, [FIRST + 2, FIRST + 3, FIRST + 4])]]
    async with (
        performed(Script(connections)) as script,
        asyncio.timeout(PATIENCE),
        connect(script.url, token="x", snapshot=load) as stream,
    ):
        await take(stream, 1)
        reading = asyncio.create_task(anext(stream))
        await until(lambda: not numbers)
        stream.drop()
        events = [await reading]
        position = stream.position
        events += await take(stream, 1)

    assert [["unreadable"], ["message", FIRST + 4, True]] == [*map(shape, events)]
    assert FIRST + 3 == position


async def test_what_cannot_be_read_and_is_in_the_state_is_not_reported() -> None:
    numbers = [FIRST, FIRST + 3]

    async def load() -> int:
        return numbers.pop(0)

    unreadable = [stamped(number, ',"data":NaN') for number in (FIRST + 2, FIRST + 4)]
    frames = [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), *unreadable]
    async with performed(Script([frames])) as script, connect(script.url, token="x", snapshot=load) as stream:
        _, event = await take(stream, 2)

    assert Unreadable(FIRST + 4, "NaN is not JSON") == event


async def test_a_snapshot_without_what_was_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def load() -> int:
        return FIRST

    frames = [greeting(FIRST, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 6)]
    async with performed(Script([frames])) as script, connect(script.url, token="x", snapshot=load) as stream:
        await take(stream, 2)

    assert f"does not contain {FIRST + 1} to {FIRST + 5}, of which some are lost" in caplog.messages[0]


async def test_a_load_that_is_cancelled_is_repeated() -> None:
    waiting, loads = asyncio.Event(), list[int]()

    async def load() -> int:
        loads.append(len(loads))
        if len(loads) == 2:
            waiting.set()
            await asyncio.Event().wait()
        return FIRST + len(loads)

    frames = [greeting(FIRST + 1, "gap", to=FIRST + 5, latest=FIRST + 6), stamped(FIRST + 6)]
    async with performed(Script([frames])) as script, connect(script.url, token="x", snapshot=load) as stream:
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await waiting.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        message = await anext(stream)

    assert ([FIRST + 6], 3) == (numbers([message]), len(loads))


@pytest.mark.parametrize(
    "text", ["abc.DEF-1_2~+/=", " abc.DEF-1_2~+/=", "abc.DEF-1_2~+/=\r\n", "\tabc.DEF-1_2~+/=\u00a0"]
)
def test_a_clean_token_has_no_whitespace_around_it(text: str) -> None:
    assert "abc.DEF-1_2~+/=" == clean_token(text)


@pytest.mark.parametrize(
    "text", ["", " \n", "secret token", "secret\ntoken", "secret\x00", "s\u00e9cret", "secret\udcff"]
)
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        clean_token(text)

    assert "cret" not in str(refused.value)
    assert not refused.value.__context__
