"""The promises, checked against a plain list while anything happens in any order.

P1 no duplicates; P2 in order; P3 no silent loss; P4 no false gap; P5 one number, one payload; P6 a restart is a reset;
P8 nothing is shown to somebody else. Half of the clients keep nothing but a number, and the wall clock may be set back
between two lives. Clients follow and unfollow topics, renew their tokens with other topics, publish, and repeat what
they published, at any time. They load states that are older or newer than their connection, or of an earlier epoch, and
continue after them. Several nodes may share the log.
"""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from places import LASTING, SHARED, new_url
from unmissed import Access, ConnectionManager, Draft, Identity, Message, Settings
from unmissed.cluster.nodes import Nodes, Timing
from unmissed.logs.base import WindowListener
from unmissed.testing import FakeSocket, ManualClock

MAX_MESSAGES = 6
MAX_AGE = 60.0
USERS = ("alice", "bob")
TOPICS = ("news", "sport")


@dataclass
class Published:
    """One message, as the publisher knows it."""

    epoch: str
    number: int
    users: tuple[str, ...]
    topics: tuple[str, ...]
    payload: bytes
    at: float

    def is_for(self, client: "Client") -> bool:
        """Return whether this client, with the topics it follows now, is to see the message."""
        everyone = not self.users and not self.topics
        return everyone or client.user in self.users or not client.topics.isdisjoint(self.topics)


@dataclass
class Model:
    """All that was ever published, and what of it must still be there: a plain list."""

    published: list[Published] = field(default_factory=list)
    requests: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """The number of what each client published, by epoch, user and id."""
    epoch: str = ""
    margin: float = 0.0
    """Seconds by which the ages of messages may be off, where they are not those of the clock under test."""
    unknown_through: dict[int, int] = field(default_factory=dict)
    """For each node, the number through which a log that it opened again does not know for whom the evicted were."""

    def evicted(self, number: int, *, now: float) -> bool:
        """Return whether a number of this epoch may be evicted by now."""
        mine = [each for each in self.published if each.epoch == self.epoch]
        [age] = [now - each.at for each in mine if each.number == number]
        return sum(each.number > number for each in mine) >= MAX_MESSAGES or age >= MAX_AGE - self.margin


@dataclass
class Client:
    """A client as the contract describes it: its position is the highest ``sequence_number`` since ``connected``."""

    user: str
    keeps_epoch: bool = True
    socket: FakeSocket = field(default_factory=FakeSocket)
    read: int = 0
    epoch: str | None = None
    position: int | None = None
    topics: set[str] = field(default_factory=set)
    epoch_before: str | None = None
    seen: dict[tuple[str, int], bytes] = field(default_factory=dict)
    lost: list[tuple[int, int]] = field(default_factory=list)
    """The gaps in this epoch that were declared, and what a reset has declared lost."""
    told: int = 0
    """The last number of the last gap that was declared on this connection."""
    loaded: int | None = None
    """What its state contains, apart from messages: those of this epoch up to this number. None if it loaded none."""
    node: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """The number that the answer to each id must have."""
    renewals: list[set[str]] = field(default_factory=list)
    """The topics of the tokens that were sent on this connection and not answered yet."""
    connected: bool = False

    def has_lost(self, number: int) -> bool:
        """Return whether this number was declared lost."""
        return any(first <= number <= last for first, last in self.lost)

    def contain(self, state: Published | None) -> None:
        """Forget all but what this state contains."""
        self.seen.clear()
        self.lost.clear()
        self.loaded = state.number if state else 0


def identity_of(token: str) -> Identity:
    """Return the identity of a token such as ``alice news sport``: the user and the granted topics."""
    user, *topics = token.split()
    return Identity(user, scopes=frozenset({"messages:publish"}), topics=frozenset(topics))


class HeldListener:
    """A listener whose node appends nothing that others publish while it is held, as if the store were far away."""

    def __init__(self, listener: WindowListener, passing: asyncio.Event) -> None:
        self._listener = listener
        self._passing = passing

    def make_room(self, messages: Sequence[Draft | Message]) -> None:
        self._listener.make_room(messages)

    def appended(self) -> None:
        self._listener.appended()

    async def wait_for_readers(self, messages: Sequence[Draft | Message]) -> None:
        await self._passing.wait()
        await self._listener.wait_for_readers(messages)

    def before_restart(self) -> None:
        self._listener.before_restart()


def hold_listener(manager: ConnectionManager) -> asyncio.Event:
    """Return an event without which this node appends nothing that others publish."""
    passing = asyncio.Event()
    passing.set()
    log = manager._log  # noqa: SLF001
    subscribe = log.subscribe
    log.subscribe = lambda listener: subscribe(HeldListener(listener, passing))  # type: ignore[method-assign]
    return passing


class Promises(RuleBasedStateMachine):
    """Publishers, clients, a failing network and a restarting server. A lasting log continues after a restart."""

    def __init__(self, url: str, *, lasting: bool, margin: float, nodes: int) -> None:
        super().__init__()
        self.margin = margin
        self.url = url
        self.lasting = lasting
        self.nodes = nodes

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.wall_clock = ManualClock(1_795_409_482.0)
        settings = Settings(
            max_messages=MAX_MESSAGES,
            max_age=MAX_AGE,
            heartbeat_seconds=20,
            stall_seconds=1e6,
            first_number="clock",
            log_url=self.url,
            node_secret="a secret that all nodes have, of more than 32 bytes",
        )
        self.managers = [
            ConnectionManager(settings, clock=self.clock, wall_clock=self.wall_clock) for _ in range(self.nodes)
        ]
        self.passing = [hold_listener(manager) for manager in self.managers]
        self.clients = [Client(user, keeps_epoch) for user in USERS for keeps_epoch in (True, False)]
        self.model = Model(margin=self.margin)
        for manager in self.managers:
            self.run(manager.__aenter__())
        self.model.epoch = self.managers[0].window.epoch

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for manager in self.managers:
                self.run(manager.__aexit__(None, None, None))
            self.loop.close()

    def run(self, action: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(action)

    def settle(self) -> None:
        """Let all nodes catch up, and flush without the pause between two flushes, which is in real time."""
        self.run(asyncio.sleep(0))
        latest = max(manager.window.latest for manager in self.managers)
        for manager in self.managers:
            self.run(manager.running.catch_up(latest))
            self.call(manager.running._fan_out._throttle.flush_now)  # noqa: SLF001

    def call(self, act: Any) -> None:
        async def calling() -> None:
            act()

        self.run(calling())

    @rule(
        users=st.sampled_from([(), (), (), ("alice",), ("bob",), USERS]),
        topics=st.sampled_from([(), ("news",), ("sport",), TOPICS]),
        count=st.integers(1, MAX_MESSAGES),
        node=st.integers(0, 1),
    )
    def publish(self, users: tuple[str, ...], topics: tuple[str, ...], count: int, node: int) -> None:
        recipients = {name: list(names) for name, names in (("users", users), ("topics", topics)) if names}
        message = {"type": "m", "data": len(self.model.published), **recipients}
        publication = self.run(self.managers[node % self.nodes].publish_batch([message] * count))
        self.model.published += [
            Published(self.model.epoch, each.sequence_number, users, topics, each.payload, self.clock())
            for each in publication.messages
        ]

    @precondition(lambda self: any(client.connected for client in self.clients))
    @rule(choice=st.integers(0, 3), topic=st.sampled_from(TOPICS))
    def follow_or_unfollow(self, choice: int, topic: str) -> None:
        connected = [client for client in self.clients if client.connected]
        client = connected[choice % len(connected)]
        kind = "unfollow" if topic in client.topics else "follow"
        self.call(lambda: client.socket.receive(f'{{"type":"{kind}","topics":["{topic}"]}}'))

    @precondition(lambda self: any(client.connected for client in self.clients))
    @rule(choice=st.integers(0, 3), topics=st.sampled_from([(), ("news",), ("sport",), TOPICS]))
    def renew(self, choice: int, topics: tuple[str, ...]) -> None:
        connected = [client for client in self.clients if client.connected]
        client = connected[choice % len(connected)]
        client.renewals.append(set(topics))
        token = " ".join([client.user, *topics])
        self.call(lambda: client.socket.receive(f'{{"type":"authenticate","token":"{token}"}}'))

    @precondition(lambda self: any(client.connected for client in self.clients))
    @rule(choice=st.integers(0, 3), request_id=st.sampled_from("abc"))
    def publish_as_client(self, choice: int, request_id: str) -> None:
        connected = [client for client in self.clients if client.connected]
        client = connected[choice % len(connected)]
        manager = self.managers[client.node]
        before, number = (
            manager.window.latest,
            self.model.requests.get((self.model.epoch, client.user, request_id)),
        )
        message = {"type": "m", "data": f"{client.user} {request_id}"}
        frame = json.dumps({"type": "publish", "id": request_id, "message": message})
        self.run(self.requested(client, frame))
        client.answers[request_id] = number or before + 1
        if number is None or manager.window.latest > before:
            assert number is None or self.model.evicted(number, now=self.clock()), "published twice"
            assert before + 1 == manager.window.latest
            client.answers[request_id] = before + 1
            self.model.requests[self.model.epoch, client.user, request_id] = before + 1
            [stamped] = manager.window.messages_after(before)
            self.model.published.append(Published(self.model.epoch, before + 1, (), (), stamped.payload, self.clock()))

    async def requested(self, client: Client, frame: str) -> None:
        """Send a request, and wait until it is answered."""
        client.socket.receive(frame)
        await asyncio.gather(*self.managers[client.node].running._requests._tasks)  # noqa: SLF001

    @rule(seconds=st.sampled_from([1.0, 25.0, MAX_AGE - 0.001, MAX_AGE]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def check(self) -> None:
        for client in self.clients:
            client.socket.pong()
        for manager in self.managers:
            self.call(manager.running.check)

    @rule()
    def flush(self) -> None:
        self.settle()

    @rule(index=st.integers(0, 3), node=st.integers(0, 1))
    def connect(self, index: int, node: int) -> None:
        client = self.clients[index]
        if client.connected:
            client.socket.drop()
            self.read(client)
        client.socket, client.read, client.connected, client.node = FakeSocket(), 0, True, node % self.nodes
        client.epoch_before = client.epoch
        client.renewals.clear()
        epoch = client.epoch if client.keeps_epoch else None
        manager = self.managers[client.node]
        self.run(manager.running.catch_up(client.position))
        self.call(
            lambda: manager.connect(
                client.socket,
                identity=identity_of(" ".join([client.user, *TOPICS])),
                access=Access(identity_of),
                since=client.position,
                epoch=epoch,
                topics=client.topics,
            )
        )

    @rule(
        index=st.integers(0, 3), node=st.integers(0, 1), age=st.integers(0, 2 * MAX_MESSAGES), count=st.integers(0, 2)
    )
    def load(self, index: int, node: int, age: int, count: int) -> None:
        """A client loads a state that contains all but the newest messages, or none, and continues after it.

        Up to two messages are published through another node, and then the node of the client is behind the state.
        """
        node %= self.nodes
        other = (node + 1) % self.nodes
        if count:
            if other != node:
                self.passing[node].clear()
            self.publish((), (), count, other)
            self.loop.call_soon(self.passing[node].set)
        states = self.model.published[: len(self.model.published) - age]
        self.continue_after(index, node, states[-1] if states else None)

    def continue_after(self, index: int, node: int, state: Published | None) -> None:
        """Move to the number of a state. Only the server knows what follows it."""
        client = self.clients[index]
        self.read(client)
        client.contain(state)
        client.position, client.epoch = (state.number, state.epoch) if state else (0, None)
        client.connected = False
        self.connect(index, node)

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

    @rule(clock_step=st.sampled_from([60.0, 0.0, -3_600.0]), node=st.integers(0, 1))
    def restart(self, clock_step: float, node: int) -> None:
        node %= self.nodes
        manager = self.managers[node]
        self.run(manager.__aexit__(None, None, None))
        # A lasting log continues the ages of its messages on the wall clock.
        self.wall_clock.advance(0 if self.lasting else clock_step)
        for client in self.clients:
            self.read(client)
            client.connected = client.connected and client.node != node
        self.run(manager.__aenter__())
        assert self.lasting == (self.model.epoch == manager.window.epoch)
        self.model.epoch = manager.window.epoch
        self.model.unknown_through[node] = manager.window.evicted_through

    def read(self, client: Client) -> None:
        frames = client.socket.frames
        for frame, payload in zip(frames[client.read :], client.socket.payloads[client.read :], strict=True):
            self.take(client, frame, payload)
        client.read = len(frames)

    def take(self, client: Client, frame: dict[str, Any], payload: bytes) -> None:
        if frame["type"] == "error":
            assert 4403 == frame["code"]
            return
        number = frame["sequence_number"]
        if frame["type"] == "published":
            assert client.answers[frame["id"]] == number
            assert client.position is not None
            number = max(number, client.position)
        if frame["type"] == "connected":
            self.take_connected(client, frame)
        else:
            assert client.epoch is not None
            assert client.position is not None
            match frame["type"]:
                case "gap":
                    assert frame["from"] == number + 1 > client.position
                    self.nothing_is_missing(client, client.position, number)
                    self.take_gap(client, frame["from"], frame["to"])
                case "m":
                    assert (client.epoch, number) not in client.seen, "P1: duplicate"
                    assert number > client.position, "P2: out of order"
                    client.seen[client.epoch, number] = payload
                    self.nothing_is_missing(client, client.position, number)
                case _:
                    self.nothing_is_missing(client, client.position, number)
        if frame["type"] in ("following", "authenticated"):
            client.topics = (client.topics | set(frame["added"])) - set(frame["removed"])
        if frame["type"] == "authenticated":
            assert client.topics <= client.renewals.pop(0), "P8: not granted any more"
        client.position = number

    def take_connected(self, client: Client, frame: dict[str, Any]) -> None:
        before, epoch = client.epoch_before, frame["epoch"]
        client.topics, client.told = set(frame.get("topics", ())), 0
        if before is not None:
            assert client.position is not None
            assert (frame["outcome"] == "reset") == (before != epoch), "P6: reset after a restart, and only then"
        client.epoch = epoch
        match frame.get("outcome"):
            case "complete":
                assert client.position is not None
                self.nothing_is_missing(client, client.position, frame["sequence_number"])
            case "gap":
                assert client.position is not None
                assert frame["sequence_number"] == max(client.position, frame["first"] - 1) == frame["from"] - 1
                self.take_gap(client, frame["from"], frame["to"])
            case "reset":
                client.loaded = None
                client.lost.append((frame["sequence_number"] + 1, frame["latest"]))

    def take_gap(self, client: Client, first: int, last: int) -> None:
        assert client.told < last, "P4: declared twice"
        assert first <= last
        assert self.model.evicted(last, now=self.clock()), "P4: declared lost, but held"
        [lost] = [each for each in self.model.published if each.epoch == self.model.epoch and each.number == last]
        known = last > self.model.unknown_through.get(client.node, 0)
        assert not known or lost.is_for(client), "P4: declared lost, but meant for others"
        client.lost.append((first, last))
        client.told = last

    @invariant()
    def every_promise_holds(self) -> None:
        if not hasattr(self, "loop"):
            return
        for client in self.clients:
            self.read(client)
            for published in self.model.published:
                payload = client.seen.get((published.epoch, published.number))
                assert payload in (None, published.payload), "P5: other bytes"

    def nothing_is_missing(self, client: Client, after: int, through: int) -> None:
        """Check what a frame says that moves the position of a client, with the topics that it follows."""
        for published in self.model.published:
            if published.epoch == client.epoch and after < published.number <= through:
                seen = (published.epoch, published.number) in client.seen
                lost = client.has_lost(published.number)
                assert seen or lost or not published.is_for(client), "P3: silent loss"
                held = not self.model.evicted(published.number, now=self.clock())
                assert seen or not (held and lost and published.is_for(client)), "P3: declared lost, but held"
                assert not seen or published.is_for(client), "P8: shown to somebody else"

    @invariant()
    def a_state_has_no_holes(self) -> None:
        """Check messages that do not depend on the topics that a client followed at some time."""
        if not hasattr(self, "loop"):
            return
        for client in self.clients:
            if client.loaded is None or client.position is None:
                continue
            for published in self.model.published:
                number = published.number
                passed = published.epoch == client.epoch and client.loaded < number <= client.position
                if passed and not published.topics and published.is_for(client):
                    seen = (published.epoch, number) in client.seen
                    lost = client.has_lost(number)
                    assert seen or lost, "P3: neither in the state nor delivered"

    @invariant()
    def a_client_that_reads_is_up_to_date(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.settle()
        for client in self.clients:
            self.read(client)
            if client.connected and client.socket.writable:
                # A gap does not move the position, and if nothing follows it, the next heartbeat does.
                meant = [
                    published.number
                    for published in self.model.published
                    if published.epoch == self.model.epoch
                    and published.is_for(client)
                    and not client.has_lost(published.number)
                ]
                assert client.position is not None
                assert client.position >= max(meant, default=0), "P3: not delivered"


@pytest.fixture
def _nodes_that_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody logs out here, so that a node that starts need not wait a second for what others refuse."""
    defaults = cast("Any", Nodes.__init__).__kwdefaults__
    monkeypatch.setitem(defaults, "timing", Timing(start_seconds=0.02))


@pytest.mark.timeout(600)
@pytest.mark.hypothesis
@pytest.mark.parametrize(
    ("kind", "nodes"),
    [
        *((kind, 1) for kind in ("memory", "sqlite")),
        *(pytest.param(kind, 1, marks=(pytest.mark.live, pytest.mark.long)) for kind in SHARED),
        *(pytest.param(kind, 2, marks=pytest.mark.live) for kind in SHARED),
    ],
)
@pytest.mark.usefixtures("_nodes_that_start_at_once")
def test_every_promise_is_kept_on(kind: str, nodes: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    def machine() -> Promises:
        url = new_url(kind, request, tmp_path)
        return Promises(url, lasting=kind in LASTING, margin=1.0 if kind in SHARED else 0.0, nodes=nodes)

    settings = hypothesis_settings()
    if kind in LASTING:
        phases = (Phase.explicit, Phase.reuse, Phase.generate)  # Shrinking takes minutes on a disk or a server.
        settings = hypothesis_settings(settings, max_examples=settings.max_examples // 4, phases=phases)
    run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]  # any function will do


class IgnoringOldStates(Promises):
    """Its clients stay connected if the state that they loaded is older than their position."""

    def continue_after(self, index: int, node: int, state: Published | None) -> None:
        client = self.clients[index]
        self.read(client)
        number = state.number if state else 0
        if client.connected and client.position is not None and number < client.position:
            client.contain(state)
        else:
            super().continue_after(index, node, state)


def test_the_promises_notice_clients_that_ignore_how_old_their_state_is() -> None:
    """A run in which nobody notices them would prove nothing."""

    def machine() -> Promises:
        return IgnoringOldStates("memory:", lasting=False, margin=0.0, nodes=1)

    settings = hypothesis_settings(max_examples=200, phases=(Phase.generate,), derandomize=True, database=None)
    with pytest.raises(AssertionError, match="P3: neither in the state nor delivered"):
        run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]  # any function will do
