"""The registry: limits, who is replaced at a limit, and connections by key."""

import asyncio
import json
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from support import ALICE, BOB, connect, managed
from unmissed import Connection
from unmissed.core.errors import TooManyConnections
from unmissed.delivery.registry import Index
from unmissed.testing import ManualClock


async def test_a_user_at_the_limit_replaces_the_connection_that_has_been_silent_longest(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=2) as manager:
        first, _ = connect(manager)
        second, _ = connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager)
        clock.advance(2)
        second.pong()

        connect(manager)

        assert (True, False) == (first.aborted, second.aborted)


async def test_only_one_connection_replaces_a_silent_one(clock: ManualClock) -> None:
    """A socket tells its end later, and until then others may connect."""
    async with managed(clock, max_connections_per_user=1) as manager:
        socket, _ = connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager)
        clock.advance(2)
        socket.abort = lambda: None  # type: ignore[method-assign]

        _, second = connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager)

        assert [second] == list(manager.connections)


async def test_connections_that_answer_are_not_replaced(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        socket, _ = connect(manager)
        for _ in range(5):
            with pytest.raises(TooManyConnections):
                connect(manager)
            socket.pong()
            clock.advance(2)

        assert not socket.aborted


async def test_a_silent_connection_has_two_seconds_to_answer(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        socket, _ = connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager)
        clock.advance(1.9)

        with pytest.raises(TooManyConnections):
            connect(manager)

        assert not socket.aborted


async def test_a_connection_that_is_not_read_is_not_silent(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        never = asyncio.Event()
        manager.command("slow")(lambda data: never.wait())  # noqa: ARG005  # the client sends it
        socket, _ = connect(manager)
        number = 0
        while not socket.reading_paused:
            socket.receive(json.dumps({"type": "command", "id": str(number), "name": "slow", "data": "x" * 30_000}))
            number += 1

        for _ in range(2):
            with pytest.raises(TooManyConnections):
                connect(manager)
            clock.advance(3)

        assert not socket.aborted


async def test_a_newer_connection_replaces_the_oldest_event_stream(clock: ManualClock) -> None:
    """It cannot be asked whether its client is there, and a proxy acknowledges what the client never gets."""
    async with managed(clock, max_connections_per_user=2) as manager:
        oldest, _ = connect(manager, transport="events")
        clock.advance(1)
        older, _ = connect(manager, transport="events")

        newer, _ = connect(manager)
        newest, _ = connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager)

        reason = "replaced by a newer connection of this user: reconnect later"
        assert [(4429, reason)] * 2 == [oldest.closed_with, older.closed_with]
        assert [None, None] == [newer.closed_with, newest.closed_with]
        assert {4429: 2} == manager.running.measures.closes


async def test_a_silent_websocket_is_replaced_before_an_event_stream(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=2) as manager:
        websocket, connection = connect(manager)
        stream, _ = connect(manager, transport="events")
        connection.liveness.ping(clock())
        clock.advance(2)

        connect(manager)

        assert (True, None) == (websocket.aborted, stream.closed_with)


async def test_an_event_stream_that_takes_nothing_makes_room_at_once(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        stream, _ = connect(manager, transport="events")
        stream.pause()
        stream.drop = lambda *_: None  # type: ignore[method-assign]  # it waits for its client

        _, second = connect(manager)

        assert [second] == list(manager.connections)


async def test_an_event_stream_at_the_limit_of_the_server_is_not_replaced(clock: ManualClock) -> None:
    async with managed(clock, max_connections=1) as manager:
        stream, _ = connect(manager, transport="events")

        with pytest.raises(TooManyConnections):
            connect(manager)

        assert stream.closed_with is None


async def test_the_limit_of_one_user_is_not_the_limit_of_another(clock: ManualClock) -> None:
    async with managed(clock, max_connections_per_user=1) as manager:
        socket, _ = connect(manager)
        connect(manager, BOB)
        socket.drop()

        connect(manager, ALICE)

        assert 2 == len(manager.connections)


KEYS = ("@alice", "#news", "#sport")
CONNECTIONS = tuple(Connection.__new__(Connection) for _ in range(3))


class Indexed(RuleBasedStateMachine):
    """An index beside a set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.pairs: set[tuple[str, Connection]] = set()

    @rule(keys=st.lists(st.sampled_from(KEYS)), connection=st.sampled_from(CONNECTIONS))
    def add(self, keys: list[str], connection: Connection) -> None:
        self.index.add(keys, connection)
        self.pairs |= {(key, connection) for key in keys}

    @rule(keys=st.lists(st.sampled_from(KEYS)), connection=st.sampled_from(CONNECTIONS))
    def remove(self, keys: list[str], connection: Connection) -> None:
        self.index.remove(keys, connection)
        self.pairs -= {(key, connection) for key in keys}

    @invariant()
    def every_key_has_its_connections(self) -> None:
        for key in KEYS:
            assert {found for name, found in self.pairs if name == key} == set(self.index.get(key))
        assert {found for _, found in self.pairs} == self.index.any_of(KEYS)
        kept = cast("Any", self.index)._found  # noqa: SLF001
        assert {key for key, _ in self.pairs} == set(kept), "no key is kept without connections"


TestIndexed = Indexed.TestCase
TestIndexed.settings = settings(max_examples=settings().max_examples // 4)
