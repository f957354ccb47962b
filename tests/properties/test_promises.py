"""The promises, checked against a plain list while anything happens in any order.

P1 no duplicates; P2 in order; P3 no silent loss; P4 no false gap; P5 one number, one payload; P6 a restart is a reset.
Half of the clients keep nothing but a number, and the wall clock may be set back between two lives.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unmissed import ConnectionManager, Identity, Settings
from unmissed.testing import FakeSocket, ManualClock

MAX_MESSAGES = 6
MAX_AGE = 60.0
USERS = ("alice", "bob")


@dataclass
class Published:
    """One message, as the publisher knows it."""

    epoch: str
    number: int
    users: tuple[str, ...] | None
    payload: bytes
    at: float


@dataclass
class Model:
    """All that was ever published, and what of it must still be there: a plain list."""

    published: list[Published] = field(default_factory=list)
    epoch: str = ""

    def evicted(self, number: int, *, now: float) -> bool:
        """Return whether a number of this epoch may be evicted by now."""
        mine = [each for each in self.published if each.epoch == self.epoch]
        [age] = [now - each.at for each in mine if each.number == number]
        return sum(each.number > number for each in mine) >= MAX_MESSAGES or age >= MAX_AGE


@dataclass
class Client:
    """A client as the contract describes it: its position is the last ``sequence_number`` of any frame."""

    user: str
    keeps_epoch: bool = True
    socket: FakeSocket = field(default_factory=FakeSocket)
    read: int = 0
    epoch: str | None = None
    position: int | None = None
    epoch_before: str | None = None
    start: dict[str, int] = field(default_factory=dict)
    seen: dict[tuple[str, int], bytes] = field(default_factory=dict)
    lost: set[tuple[str, int]] = field(default_factory=set)
    connected: bool = False


class Promises(RuleBasedStateMachine):
    """Publishers, clients, a failing network and a restarting server."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.wall_clock = ManualClock(1_795_409_482.0)
        settings = Settings(
            max_messages=MAX_MESSAGES, max_age=MAX_AGE, heartbeat_seconds=20, stall_seconds=1e6, first_number="clock"
        )
        self.manager = ConnectionManager(settings, clock=self.clock, wall_clock=self.wall_clock)
        self.clients = [Client(user, keeps_epoch) for user in USERS for keeps_epoch in (True, False)]
        self.model = Model()
        self.run(self.manager.__aenter__())
        self.model.epoch = self.manager.epoch

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.manager.__aexit__(None, None, None))
            self.loop.close()

    def run(self, action: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(action)

    def settle(self) -> None:
        """Run every flush that was requested."""
        self.run(asyncio.sleep(0))
        for connection in self.manager.connections:
            self.call(connection.deliver)

    def call(self, act: Any) -> None:
        async def calling() -> None:
            act()

        self.run(calling())

    @rule(to=st.sampled_from([None, ("alice",), ("bob",), USERS]), count=st.integers(1, MAX_MESSAGES))
    def publish(self, to: tuple[str, ...] | None, count: int) -> None:
        message = {"type": "m", "data": len(self.model.published)}
        batch = [message if to is None else {**message, "users": list(to)}] * count
        publication = self.run(self.manager.publish_batch(batch))
        self.model.published += [
            Published(self.model.epoch, each.sequence_number, to, each.payload, self.clock())
            for each in publication.messages
        ]

    @rule(seconds=st.sampled_from([1.0, 25.0, MAX_AGE - 0.001, MAX_AGE]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def check(self) -> None:
        for client in self.clients:
            client.socket.pong()
        self.call(self.manager.check)

    @rule()
    def flush(self) -> None:
        self.settle()

    @rule(index=st.integers(0, 3))
    def connect(self, index: int) -> None:
        client = self.clients[index]
        if client.connected:
            client.socket.drop()
            self.read(client)
        client.socket, client.read, client.connected = FakeSocket(), 0, True
        client.epoch_before = client.epoch
        epoch = client.epoch if client.keeps_epoch else None
        self.call(
            lambda: self.manager.connect(
                client.socket, identity=Identity(client.user), since=client.position, epoch=epoch
            )
        )

    @rule(index=st.integers(0, 3))
    def drop(self, index: int) -> None:
        self.call(self.clients[index].socket.drop)
        self.read(self.clients[index])
        self.clients[index].connected = False

    @rule(index=st.integers(0, 3))
    def stall(self, index: int) -> None:
        self.clients[index].socket.pause()

    @precondition(lambda self: any(not client.socket.writable for client in self.clients if client.connected))
    @rule()
    def all_read_again(self) -> None:
        for client in self.clients:
            if client.connected:
                self.call(client.socket.resume)

    @rule(clock_step=st.sampled_from([60.0, 0.0, -3_600.0]))
    def restart(self, clock_step: float) -> None:
        self.run(self.manager.__aexit__(None, None, None))
        self.wall_clock.advance(clock_step)
        for client in self.clients:
            self.read(client)
            client.connected = False
        self.run(self.manager.__aenter__())
        assert self.model.epoch != self.manager.epoch
        self.model.epoch = self.manager.epoch

    def read(self, client: Client) -> None:
        frames = client.socket.frames
        for frame, payload in zip(frames[client.read :], client.socket.payloads[client.read :], strict=True):
            self.take(client, frame, payload)
        client.read = len(frames)

    def take(self, client: Client, frame: dict[str, Any], payload: bytes) -> None:
        number = frame["sequence_number"]
        match frame["type"]:
            case "connected":
                self.take_connected(client, frame)
            case "gap":
                assert client.position is not None
                assert frame["from"] > client.position
                self.take_gap(client, frame["from"], frame["to"])
            case "m":
                assert client.epoch is not None
                assert (client.epoch, number) not in client.seen, "P1: duplicate"
                assert client.position is not None
                assert number > client.position, "P2: out of order"
                client.seen[client.epoch, number] = payload
        client.position = number

    def take_connected(self, client: Client, frame: dict[str, Any]) -> None:
        before, epoch = client.epoch_before, frame["epoch"]
        if before is not None:
            assert client.position is not None
            assert (frame["outcome"] == "reset") == (before != epoch), "P6: reset after a restart, and only then"
        if frame.get("outcome") == "gap":
            assert client.position is not None
            self.take_gap(client, client.position + 1, frame["sequence_number"])
        if epoch not in client.start:
            client.start[epoch] = frame["sequence_number"]
        client.epoch = epoch

    def take_gap(self, client: Client, first: int, last: int) -> None:
        assert first <= last
        assert self.model.evicted(last, now=self.clock()), "P4: declared lost, but held"
        client.lost |= {(self.model.epoch, number) for number in range(first, last + 1)}

    @invariant()
    def every_promise_holds(self) -> None:
        if not hasattr(self, "loop"):
            return
        for client in self.clients:
            self.read(client)
            for published in self.model.published:
                payload = client.seen.get((published.epoch, published.number))
                if payload is not None:
                    assert published.payload == payload, "P5: other bytes"
                    assert published.users is None or client.user in published.users, "P8: seen by another user"
            if client.connected and client.epoch is not None and client.position is not None:
                self.nothing_is_missing(client, through=client.position)

    def nothing_is_missing(self, client: Client, *, through: int) -> None:
        for published in self.model.published:
            if published.epoch == client.epoch and client.start[published.epoch] < published.number <= through:
                key = (published.epoch, published.number)
                meant = published.users is None or client.user in published.users
                assert not meant or key in client.seen or key in client.lost, "P3: silent loss"

    @invariant()
    def a_client_that_reads_is_up_to_date(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.settle()
        for client in self.clients:
            self.read(client)
            if client.connected and client.socket.writable:
                meant = [
                    published.number
                    for published in self.model.published
                    if published.epoch == self.model.epoch
                    and (published.users is None or client.user in published.users)
                ]
                assert client.position is not None
                assert client.position >= max(meant, default=0), "P3: not delivered"


TestPromises = Promises.TestCase
