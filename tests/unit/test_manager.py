"""ConnectionManager on fake sockets and a clock that stands still."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from support import BOB, FIRST, ManualLog, connect, flushed, managed, nth, nths, shape, until
from unmissed import (
    AlreadyRunning,
    ConfigurationError,
    ConnectionManager,
    Disconnected,
    IdempotencyConflict,
    InvalidMessage,
    Message,
    NotRunning,
    Outcome,
    Page,
    Settings,
    UnknownConnection,
    WrongThread,
)
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import Draining, InvalidTopic, LogUnavailable, MessageTooLarge, TooManyConnections
from unmissed.core.messages import Draft
from unmissed.core.window import Window
from unmissed.logs.memory import MemoryLog
from unmissed.testing import SECRET, ManualClock


async def test_every_publish_returns_the_stamped_message(manager: ConnectionManager) -> None:
    _, connection = connect(manager)

    messages = [
        await manager.broadcast({"type": "a", "data": 1}),
        await manager.send_message(connection.id, {"type": "b"}),
        await manager.emit("c", {"x": 1}),
        await manager.publish({"type": "d", "users": ["bob"], "extra": True}),
    ]

    assert nths(1, 2, 3, 4) == [message.sequence_number for message in messages]
    assert {"type": "c", "sequence_number": nth(3), "timestamp": messages[2].timestamp, "data": {"x": 1}} == messages[
        2
    ].as_dict()
    assert True is messages[3].as_dict()["extra"]
    assert "users" not in messages[3].as_dict()


async def test_emit_publishes_data_only_if_it_is_given(manager: ConnectionManager) -> None:
    without, null = await manager.emit("a"), await manager.emit("a", None)

    assert {"type", "sequence_number", "timestamp"} == without.as_dict().keys()
    assert None is null.as_dict()["data"]


async def test_python_values_are_accepted_as_data(manager: ConnectionManager) -> None:
    class Point(BaseModel):
        x: Decimal

    message = await manager.emit(
        "values", [datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.50"), UUID(int=7), Point(x=Decimal(2))]
    )

    assert message.as_dict()["data"] == [
        "2026-01-31T00:00:00Z",
        "1.50",
        "00000000-0000-0000-0000-000000000007",
        {"x": "2"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": ""},
        {"type": 7},
        {"type": "heartbeat"},
        {"type": "a", "data": float("nan")},
        {"type": "a", "data": "\ud800"},
        {"type": "a", "data": object()},
        {"type": "a", "data": "x" * 70_000},
        {"type": "a", "sequence_number": nth(7)},
        {"type": "a", "topics": []},
        {"type": "a", "topics": ["b c"]},
        {"type": "a", "users": []},
        {"type": "a", "users": "bob"},
        {"type": "a", "users": [""]},
        {"type": "a", 7: "b"},
        "text",
    ],
)
async def test_a_refused_message_uses_no_number(manager: ConnectionManager, message: Any) -> None:
    with pytest.raises(InvalidMessage):
        await manager.publish(message)

    assert nth(1) == (await manager.emit("next")).sequence_number


async def test_one_bad_message_refuses_its_whole_batch(manager: ConnectionManager) -> None:
    with pytest.raises(InvalidMessage):
        await manager.publish_batch([{"type": "good"}, {"type": "gap"}])

    assert nth(0) == manager.window.latest


@pytest.mark.parametrize("name", ["users", "topics"])
async def test_recipients_are_not_one_string(manager: ConnectionManager, name: str) -> None:
    recipients: Any = {name: "bob"}

    with pytest.raises(InvalidMessage, match=f"write {name}=\\['bob'\\]"):
        await manager.publish({"type": "a"}, **recipients)


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_at_least_one_message_and_at_most_what_the_log_keeps(
    manager: ConnectionManager, count: int
) -> None:
    with pytest.raises(InvalidMessage, match="1 to 500"):
        await manager.publish_batch([{"type": "a"}] * count)


async def test_an_unknown_connection_is_an_error_that_names_the_right_call(manager: ConnectionManager) -> None:
    with pytest.raises(UnknownConnection, match=r"manager\.publish"):
        await manager.send_message("nobody", {"type": "a"})

    assert nth(0) == manager.window.latest


async def test_publishing_before_the_start_names_the_lifespan(clock: ManualClock) -> None:
    manager = managed(clock)

    with pytest.raises(NotRunning, match=r"lifespan=manager\.lifespan.*with statement"):
        await manager.emit("a")
    with pytest.raises(NotRunning, match="lifespan"):
        manager.publish_threadsafe({"type": "a"})


async def test_publishing_from_another_loop_names_the_call_for_threads(manager: ConnectionManager) -> None:
    def elsewhere() -> None:
        asyncio.run(manager.emit("a"))

    with pytest.raises(WrongThread, match="publish_threadsafe"):
        await asyncio.to_thread(elsewhere)


async def test_the_call_for_threads_on_the_own_loop_names_the_awaitable_one(manager: ConnectionManager) -> None:
    with pytest.raises(WrongThread, match=r"await manager\.publish"):
        manager.publish_threadsafe({"type": "a"})


async def test_threads_publish_in_their_own_order(manager: ConnectionManager) -> None:
    def publish(name: str) -> list[int]:
        return [manager.publish_threadsafe({"type": name, "data": step}).sequence_number for step in range(20)]

    numbers = await asyncio.gather(*(asyncio.to_thread(publish, name) for name in "abc"))

    assert all(each == sorted(each) for each in numbers)
    assert nths(*range(1, 61)) == sorted(number for each in numbers for number in each)


async def test_a_refusal_reaches_the_thread_that_caused_it(manager: ConnectionManager) -> None:
    def publish() -> None:
        manager.publish_threadsafe({"type": "gap"})

    with pytest.raises(InvalidMessage):
        await asyncio.to_thread(publish)


async def test_a_batch_is_never_interleaved(manager: ConnectionManager) -> None:
    def publish() -> None:
        for _ in range(20):
            manager.publish_threadsafe({"type": "single"})

    thread = threading.Thread(target=publish)
    thread.start()
    firsts = [(await manager.publish_batch([{"type": "batch"}] * 5)).receipt.first for _ in range(20)]
    await asyncio.to_thread(thread.join)

    kinds = {message["sequence_number"]: message["type"] for message in everything(manager)}
    assert all(kinds[number] == "batch" for first in firsts for number in range(first, first + 5))


def everything(manager: ConnectionManager) -> list[dict[str, Any]]:
    """Return what is retained for everyone."""
    return [message.as_dict() for message in manager.get_messages_since(0).messages]


def slow_messages(count: int) -> Iterator[dict[str, Any]]:
    """Yield messages that take long, as large ones do."""
    for _ in range(count):
        ready_at = time.monotonic() + 0.01
        while time.monotonic() < ready_at:
            pass
        yield {"type": "slow"}


async def test_others_run_while_a_slow_batch_is_built_and_it_stays_one_block(manager: ConnectionManager) -> None:
    other = asyncio.create_task(manager.emit("other"))

    publication = await manager.publish_batch(slow_messages(3))

    assert nth(1) == (await other).sequence_number
    assert nths(2, 3, 4) == [message.sequence_number for message in publication.messages]


async def test_a_batch_is_refused_when_draining_begins_while_it_is_built(manager: ConnectionManager) -> None:
    asyncio.get_running_loop().call_soon(lambda: manager.running.drain(seconds=1))

    with pytest.raises(Draining):
        await manager.publish_batch(slow_messages(3))

    assert nth(0) == manager.window.latest


def types(page: Page) -> list[str]:
    return [message.as_dict()["type"] for message in page.messages]


async def test_get_messages_since_returns_what_everyone_this_user_or_its_topics_may_see(
    manager: ConnectionManager,
) -> None:
    await manager.emit("public")
    await manager.publish({"type": "private"}, users=["bob"])
    await manager.publish({"type": "news"}, topics=["news"])

    assert ["public"] == types(manager.get_messages_since(0))
    assert ["public", "private"] == types(manager.get_messages_since(0, user_id="bob"))
    assert ["news"] == types(manager.get_messages_since(nth(2), user_id="bob", topics=["news"]))
    with pytest.raises(InvalidTopic, match="not one string"):
        manager.get_messages_since(0, topics="news")


async def test_get_messages_since_says_whether_any_are_missing_and_whether_more_follow(clock: ManualClock) -> None:
    async with managed(clock, max_messages=3) as manager:
        for _ in range(5):
            await manager.emit("a")

        pages = [
            manager.get_messages_since(nth(1)),
            manager.get_messages_since(nth(2), limit=2),
            manager.get_messages_since(nth(4), epoch="another"),
        ]

    assert [
        (Outcome.GAP, nths(3, 4, 5), False),
        (Outcome.COMPLETE, nths(3, 4), True),
        (Outcome.RESET, nths(3, 4, 5), False),
    ] == [(page.outcome, [each.sequence_number for each in page.messages], page.has_more) for page in pages]


async def test_get_messages_since_leaves_out_what_has_expired(manager: ConnectionManager, clock: ManualClock) -> None:
    await manager.emit("a")
    clock.advance(900)

    assert (Outcome.GAP, ()) == (manager.get_messages_since(0).outcome, manager.get_messages_since(0).messages)


async def test_a_client_without_a_position_starts_with_what_is_published_next(manager: ConnectionManager) -> None:
    await manager.emit("before")
    socket, _ = connect(manager)
    await manager.emit("after")
    await flushed(manager)

    assert [("connected", nth(1)), ("after", nth(2))] == shape(socket)
    assert "outcome" not in socket.frames[0]


async def test_a_client_with_a_position_gets_what_it_missed_and_then_a_heartbeat(manager: ConnectionManager) -> None:
    for _ in range(3):
        await manager.emit("a")

    socket, _ = connect(manager, since=nth(1), epoch=manager.window.epoch)

    assert [("connected", nth(1)), ("a", nth(2)), ("a", nth(3)), ("heartbeat", nth(3))] == shape(socket)
    assert "complete" == socket.frames[0]["outcome"]


async def test_a_position_ahead_of_the_log_or_of_another_epoch_is_reset_to_all_that_is_held(
    manager: ConnectionManager,
) -> None:
    await manager.emit("a")

    ahead, _ = connect(manager, since=nth(7))
    elsewhere, _ = connect(manager, since=nth(1), epoch="another")

    for socket in (ahead, elsewhere):
        assert ("reset", nth(0)) == (socket.frames[0]["outcome"], socket.frames[0]["sequence_number"])
        assert ("a", nth(1)) in shape(socket)


async def test_a_position_before_the_window_is_a_gap(clock: ManualClock) -> None:
    async with managed(clock, max_messages=2) as manager:
        for _ in range(5):
            await manager.emit("a")

        socket, _ = connect(manager, since=nth(1))

    assert [("connected", nth(1)), ("a", nth(4)), ("a", nth(5)), ("heartbeat", nth(5))] == shape(socket)
    greeting = socket.frames[0]
    assert ("gap", nth(2), nth(3)) == (greeting["outcome"], greeting["from"], greeting["to"])


async def test_a_quiet_log_forgets_on_the_heartbeat(manager: ConnectionManager, clock: ManualClock) -> None:
    await manager.emit("a")
    clock.advance(900)

    manager.running.check()

    assert 0 == len(manager.window)


async def test_caps_on_connections_are_kept(clock: ManualClock) -> None:
    async with managed(clock, max_connections=3, max_connections_per_user=2) as manager:
        first, _ = connect(manager)
        connect(manager)
        with pytest.raises(TooManyConnections, match="this user"):
            connect(manager)
        connect(manager, BOB)
        with pytest.raises(TooManyConnections, match="the server"):
            connect(manager, BOB)

        first.drop()

        connect(manager)


async def test_disconnect_closes_with_code_and_reason(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)

    manager.disconnect(connection.id, code=4001, reason="kicked")

    assert (4001, "kicked") == socket.closed_with


async def test_disconnecting_a_connection_that_is_gone_is_quiet(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)
    staying, _ = connect(manager)
    socket.drop()

    manager.disconnect(connection.id)
    manager.disconnect("unknown")

    assert None is staying.closed_with


async def test_a_running_manager_refuses_another_start_and_goes_on(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    epoch = manager.window.epoch

    with pytest.raises(AlreadyRunning, match="enter it once"):
        await manager.__aenter__()
    with pytest.raises(AlreadyRunning):
        async with manager.lifespan(None):
            pass

    await manager.emit("a")
    await flushed(manager)
    assert epoch == manager.window.epoch
    assert [("connected", nth(0)), ("a", nth(1))] == shape(socket)
    assert None is socket.closed_with


async def test_a_stopped_manager_can_be_started_again(clock: ManualClock) -> None:
    manager = managed(clock)
    async with manager:
        first_epoch = manager.window.epoch

    async with manager:
        assert first_epoch != manager.window.epoch


async def test_a_start_that_fails_leaves_a_manager_that_starts(clock: ManualClock) -> None:
    class ClosedLog(ManualLog):
        error: Exception | None = ConfigurationError("the log cannot be used")

        async def open(self) -> Window:
            if self.error is not None:
                raise self.error
            return await super().open()

    log = ClosedLog(clock)
    manager = managed(clock, log=log)
    with pytest.raises(ConfigurationError, match="the log cannot be used"):
        await manager.__aenter__()
    assert not manager.ready

    log.error = None
    async with manager:
        assert manager.ready


async def test_leaving_the_manager_waits_for_no_hook_no_engine_and_no_log_for_long(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Three seconds, which this test takes."""

    class Deaf:
        """A channel to an engine that has stopped: nothing is sent, and nothing arrives."""

        async def send(self, note: bytes) -> None:  # noqa: ARG002  # the contract
            await asyncio.Event().wait()

        async def receive(self) -> AsyncGenerator[bytes]:
            yield b""
            await asyncio.Event().wait()

    class Stuck(ManualLog):
        async def close(self) -> None:
            await asyncio.Event().wait()

    log = Stuck(clock)
    log.channel = Deaf()
    manager = managed(clock, log=log)

    @manager.on_disconnect
    async def never(event: Disconnected) -> None:  # noqa: ARG001  # hooks receive it
        await asyncio.Event().wait()

    async with asyncio.timeout(60):
        async with manager:
            socket, _ = connect(manager)

    assert socket.closed_with
    assert "the log was not closed in time" in caplog.text
    async with asyncio.timeout(60), managed(clock):
        pass


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({}, True),
        ({"jwt_secret": SECRET}, False),
        ({"jwt_secret": SECRET, "jwt_algorithm": "RS256"}, True),
        ({"jwt_algorithm": "RS256", "node_secret": SECRET}, False),
    ],
)
async def test_a_shared_log_without_a_secret_for_its_notes_is_warned_about(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, given: dict[str, str], *, warned: bool
) -> None:
    class Silent:
        """A channel that carries nothing."""

        async def send(self, note: bytes) -> None: ...

        async def receive(self) -> AsyncGenerator[bytes]:
            yield b""
            await asyncio.Event().wait()

    log = ManualLog(clock)
    log.channel = Silent()
    async with managed(clock, log=log, **given), managed(clock):
        pass

    assert warned is ("set UNMISSED_NODE_SECRET" in caplog.text)


async def test_draining_says_when_to_come_back_and_takes_nobody_new(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    manager.running.drain(seconds=5)

    assert "reconnect" == socket.frames[-1]["type"]
    assert 0 <= socket.frames[-1]["after_ms"] <= 5_000
    assert socket.closed_with
    assert socket.closed_with[0] == CloseCode.SERVICE_RESTART
    assert not manager.ready
    with pytest.raises(Draining):
        connect(manager)


async def test_leaving_the_manager_closes_everyone(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        socket, _ = connect(manager)

    assert socket.closed_with
    assert socket.closed_with[0] == CloseCode.SERVICE_RESTART


async def test_leaving_the_manager_delivers_what_clients_take_and_waits_for_nobody(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        healthy, slow = connect(manager)[0], connect(manager)[0]
        slow.pause()
        for _ in range(2):
            await manager.emit("a")

    assert [("a", nth(1)), ("a", nth(2))] == shape(healthy)[1:]
    assert healthy.closed_with
    assert slow.closed_with


async def test_an_idempotency_key_gives_its_first_receipt_again(manager: ConnectionManager) -> None:
    first = await manager.publish_batch([{"type": "a"}] * 2, idempotency_key="k")

    again = await manager.publish_batch([{"type": "a"}] * 2, idempotency_key="k")

    assert replace(first, repeated=True) == again
    assert nth(2) == manager.window.latest


Call = Callable[[ConnectionManager, object, str | None], Awaitable[Message]]

CALLS: dict[str, Call] = {
    "publish": lambda manager, data, key: manager.publish({"type": "a", "data": data}, idempotency_key=key),
    "broadcast": lambda manager, data, key: manager.broadcast({"type": "a", "data": data}, idempotency_key=key),
    "emit": lambda manager, data, key: manager.emit("a", data, idempotency_key=key),
    "send_message": lambda manager, data, key: manager.send_message(
        manager.connections[0].id, {"type": "a", "data": data}, idempotency_key=key
    ),
    "publish_threadsafe": lambda manager, data, key: asyncio.to_thread(
        manager.publish_threadsafe, {"type": "a", "data": data}, idempotency_key=key
    ),
}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
async def test_a_repeated_key_returns_the_first_message_and_publishes_nothing(
    manager: ConnectionManager, clock: ManualClock, call: Call
) -> None:
    connect(manager)
    first = await call(manager, [1], "order-42")
    clock.advance(10)

    again = await call(manager, [1], "order-42")

    assert first == again
    assert nth(1) == manager.window.latest
    assert 1 == manager.running.measures.published


@every_call
async def test_a_key_with_other_content_is_refused_and_publishes_nothing(
    manager: ConnectionManager, call: Call
) -> None:
    connect(manager)
    await call(manager, 1, "order-42")

    with pytest.raises(IdempotencyConflict):
        await call(manager, 2, "order-42")

    assert nth(1) == manager.window.latest


@every_call
async def test_without_a_key_a_repeated_message_is_published_again(manager: ConnectionManager, call: Call) -> None:
    connect(manager)

    numbers = [(await call(manager, 1, None)).sequence_number for _ in range(2)]

    assert nths(1, 2) == numbers


async def test_a_key_with_other_recipients_is_refused(manager: ConnectionManager) -> None:
    await manager.emit("a", users=["alice"], idempotency_key="k")

    for recipients in (dict[str, Any](), {"users": ["bob"]}, {"users": ["alice"], "topics": ["news"]}):
        with pytest.raises(IdempotencyConflict):
            await manager.emit("a", **recipients, idempotency_key="k")


async def test_a_key_of_the_application_is_none_of_a_user(manager: ConnectionManager) -> None:
    ours = await manager.emit("a", idempotency_key="k")

    theirs = await manager.publish_batch([{"type": "a"}], idempotency_key="k", publisher="alice")

    assert nths(1, 2) == [ours.sequence_number, theirs.receipt.first]


@pytest.mark.parametrize("key", ["", 42, UUID(int=7), b"order", "\ud800"])
async def test_a_key_that_is_no_text_is_refused_and_uses_no_number(manager: ConnectionManager, key: Any) -> None:
    with pytest.raises(InvalidMessage, match="idempotency key"):
        await manager.emit("a", idempotency_key=key)

    assert nth(0) == manager.window.latest


async def test_what_was_published_can_be_read_from_the_message_and_from_the_window(manager: ConnectionManager) -> None:
    message = await manager.emit("order.shipped", {"id": 42}, topics=["orders.42", "news"], users=["bob", "alice"])

    assert ("order.shipped", {"id": 42}) == (message.type, message.data)
    assert (["orders.42", "news"], ["alice", "bob"]) == (message.topics, message.users)
    assert [message] == [*manager.window]


async def test_the_running_manager_checks_by_itself(clock: ManualClock) -> None:
    async with managed(clock, heartbeat_seconds=0.02) as manager:
        socket, _ = connect(manager)
        clock.advance(1)

        await until(lambda: len(socket.frames) > 1)

        assert ("heartbeat", nth(0)) == shape(socket)[1]


async def test_the_largest_message_fits_into_the_smallest_log(clock: ManualClock) -> None:
    async with managed(clock, max_message_bytes=1_000, max_bytes=1_352) as manager:
        await manager.emit("a", "x" * (1_000 - len('{"type":"a","data":""}')))

        assert 1 == len(manager.window)


async def test_a_batch_that_the_log_could_not_hold_is_refused(clock: ManualClock) -> None:
    async with managed(clock, max_message_bytes=1_000, max_bytes=1_352) as manager:
        with pytest.raises(MessageTooLarge, match="the batch"):
            await manager.publish_batch([{"type": "a", "data": "x" * 800}] * 2)

        assert nth(0) == manager.window.latest


async def test_the_users_of_a_batch_count_in_what_the_log_could_hold(clock: ManualClock) -> None:
    async with managed(clock, max_message_bytes=4_000, max_bytes=4_352) as manager:
        with pytest.raises(MessageTooLarge, match="the batch"):
            await manager.publish_batch([{"type": "a", "users": [*"abcdefghij"]}] * 3)

        assert nth(0) == manager.window.latest


async def test_nothing_is_published_while_draining(manager: ConnectionManager) -> None:
    manager.running.drain(seconds=1)

    with pytest.raises(Draining):
        await manager.emit("a")


class ReplayingLog(MemoryLog):
    """A log that holds 500 messages when it opens, as one that outlives its process does."""

    async def open(self) -> Window:
        window = await super().open()
        await self.publish([Draft.of({"type": "stored"}, max_bytes=1_000)] * 500)
        return window


async def test_a_log_may_replay_what_it_holds_when_it_opens() -> None:
    async with ConnectionManager(Settings(), log=ReplayingLog(first_number=FIRST)) as manager:
        socket, _ = connect(manager, since=nth(400))
        await manager.emit("new")
        await flushed(manager)

        assert (500, nth(501)) == (len(manager.window), manager.window.latest)
        assert nths(*range(401, 501)) == [number for kind, number in shape(socket) if kind == "stored"]
        assert ("new", nth(501)) == shape(socket)[-1]


async def test_a_stopped_manager_is_not_running(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        await manager.emit("a")

    assert not manager.ready
    assert () == manager.connections
    with pytest.raises(NotRunning):
        manager.get_messages_since(0)
    with pytest.raises(NotRunning):
        await manager.emit("b")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("the store is away", "the store is away"), (None, "the log did not store the message in time")],
)
async def test_a_publish_that_takes_too_long_is_refused_with_the_reason_of_the_log(
    clock: ManualClock, reason: str | None, expected: str
) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log, publish_seconds=0.02) as manager:
        log.lose(reason)

        with pytest.raises(LogUnavailable, match="a publish with the same idempotency key") as refused:
            await manager.emit("a")

        assert expected == refused.value.reason
        assert nth(0) == manager.window.latest
        log.restore()
        assert nth(1) == (await manager.emit("b")).sequence_number


async def test_a_publish_waits_for_a_log_that_comes_back_in_time(clock: ManualClock) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log) as manager:
        log.lose("the store is away")
        asyncio.get_running_loop().call_later(0.01, log.restore)

        message = await manager.emit("a")

    assert nth(1) == message.sequence_number


class Awaiting(MemoryLog):
    """A log whose start takes as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = asyncio.Event()

    async def open(self) -> Window:
        await self.may_open.wait()
        return await super().open()


async def test_of_two_starts_at_the_same_time_one_is_refused(clock: ManualClock) -> None:
    log = Awaiting()
    manager = managed(clock, log=log)
    first = asyncio.create_task(manager.__aenter__())
    await asyncio.sleep(0)

    with pytest.raises(AlreadyRunning):
        await manager.__aenter__()

    log.may_open.set()
    await first
    assert manager.ready
    await manager.__aexit__(None, None, None)


async def test_a_start_that_is_cancelled_leaves_a_manager_that_starts(clock: ManualClock) -> None:
    log = Awaiting()
    manager = managed(clock, log=log)
    first = asyncio.create_task(manager.__aenter__())
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait([first])
    log.may_open.set()

    async with manager:
        assert manager.ready
    assert 1 == len(asyncio.all_tasks())


async def test_a_start_that_fails_after_the_log_is_open_closes_it(clock: ManualClock) -> None:
    class ClosableLog(ManualLog):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    log = ClosableLog(clock)

    with pytest.raises(ConfigurationError, match="at least 32"):
        await managed(clock, log=log, jwt_secret="too short").__aenter__()

    assert 1 == log.closed
    assert 1 == len(asyncio.all_tasks())


async def test_a_start_that_is_cancelled_while_other_nodes_are_asked_leaves_nothing_behind(clock: ManualClock) -> None:
    class Mute:
        """A channel to an engine that does not answer."""

        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def send(self, note: bytes) -> None: ...

        async def receive(self) -> AsyncGenerator[bytes]:
            self.asked.set()
            await asyncio.Event().wait()
            yield b""

    log = ManualLog(clock)
    log.channel = channel = Mute()
    manager = managed(clock, log=log)
    starting = asyncio.create_task(manager.__aenter__())
    await channel.asked.wait()

    starting.cancel()
    await asyncio.wait([starting])

    assert 1 == len(asyncio.all_tasks())
    assert not manager.ready
    log.channel = None
    async with manager:
        assert manager.ready


def test_the_manager_has_no_more_public_names_than_applications_need(unstarted: ConnectionManager) -> None:
    assert 34 >= len([name for name in dir(unstarted) if not name.startswith("_")])


async def test_a_manager_that_runs_has_the_attributes_of_one_that_does_not(unstarted: ConnectionManager) -> None:
    before = vars(unstarted).keys() | set()

    async with unstarted:
        assert before == vars(unstarted).keys()


async def test_clients_stay_connected_while_the_log_is_unavailable(clock: ManualClock) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log) as manager:
        socket, _ = connect(manager)
        log.lose("the store is away")
        manager.running.check()
        newcomer, _ = connect(manager)
        log.restore()
        await manager.emit("a")
        await flushed(manager)

        assert ("a", nth(1)) in shape(socket)
        assert ("a", nth(1)) in shape(newcomer)
