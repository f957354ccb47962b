"""The promises with rules, values by key and ephemeral messages, against a plain list, in any order of events.

P1 no duplicates; P2 in order; P3 no silent loss, and a replaced message is none; P4 no false gap, and each is declared
once; P12 what one rule keeps is never evicted by another. Clients keep one number and fold the values: without a gap,
what they show is the truth. Some load a state, which may be cut anywhere, some poll, and some read slowly. An ephemeral
message comes after everything that was published before it, or never.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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

from places import LASTING, new_url
from retention_model import Fate, Identity, Model, fold, identity_of
from support import connect, managed
from unmissed import Identity as User
from unmissed import Message
from unmissed.core.audience import Audience, keys_of, visible
from unmissed.core.ephemeral import LiveBatch
from unmissed.core.evictions import Evictions
from unmissed.core.messages import Value
from unmissed.core.reader import ClientReader
from unmissed.core.window import Window
from unmissed.delivery.connection import Connection
from unmissed.running import RestQuery
from unmissed.testing import FakeSocket, ManualClock

RULES = "rooms.*=10/80s, rooms.big*=12/20s, @*=10/60s"
ADDRESSED: tuple[dict[str, list[str]], ...] = (
    {},
    {"topics": ["rooms.1"]},
    {"topics": ["rooms.big"]},
    {"topics": ["news", "rooms.1"]},
    {"users": ["alice"]},
    {"users": ["alice", "bob"]},
)
VALUES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"key": "k"},
    {"key": "k", "append": True},
    {"key": "k", "deleted": True},
    {"key": "l"},
)
LARGE = 30_000
"""Characters of a large value: three of them do not fit into one part of a state."""


@dataclass
class Client:
    """A client that keeps the highest number of any frame, and the state that follows from its messages."""

    user: str
    topics: frozenset[str] = frozenset()
    wants_state: bool = False
    socket: FakeSocket = field(default_factory=FakeSocket)
    read: int = 0
    connected: bool = False
    position: int | None = None
    seen: set[int] = field(default_factory=set[int])
    lost: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    told: int = 0
    """The last number of the last gap that was declared on this connection."""
    state: dict[Identity, list[int]] = field(default_factory=dict[Identity, list[int]])
    unknown: set[Identity] = field(default_factory=set[Identity])
    """The values that it cannot know, because something was lost."""
    loading: list[Message] | None = None
    """The parts of a state that have arrived, until the last one."""
    live: list[int] = field(default_factory=list[int])
    """The ephemeral messages that it has received."""

    @property
    def keys(self) -> frozenset[str]:
        return keys_of(self.user, self.topics)

    @property
    def is_current(self) -> bool:
        return self.connected and self.socket.writable and self.loading is None

    def sees(self, message: Message) -> bool:
        return visible(message.audience, self.keys)


class RetentionPromises(RuleBasedStateMachine):
    """Publishers, clients and a failing network. A log in a file is closed and opened again."""

    def __init__(self, url: str, *, lasting: bool) -> None:
        super().__init__()
        self.url = url
        self.lasting = lasting

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(1_795_409_482.0)
        self.manager = managed(
            self.clock,
            max_messages=12,
            max_age=50.0,
            retention=RULES,
            first_number="clock",
            stall_seconds=1e6,
            log_url=self.url,
        )
        self.run(self.manager.__aenter__())
        self.model = Model(self.manager.window.retention)
        self.live: list[tuple[int, list[Client]]] = []
        """For each ephemeral message: the latest number before it, and the clients that must receive it."""
        self.restarted_at = 0
        rooms = frozenset({"rooms.1", "rooms.big"})
        self.clients = [
            Client("alice"),
            Client("alice", rooms, wants_state=True),
            Client("bob", rooms | {"news"}),
            Client("carol", frozenset({"rooms.1"}), wants_state=True),
        ]
        self.poller = Client("alice", rooms, position=0)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.manager.__aexit__(None, None, None))
            self.loop.close()

    def run(self, action: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(action)

    def call(self, act: Any) -> None:
        async def calling() -> None:
            act()

        self.run(calling())

    def settle(self) -> None:
        """Flush without the pause between two flushes, and give large states their turns of the event loop."""

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.call(self.manager.running._fan_out._throttle.flush_now)  # noqa: SLF001
        self.run(turns())
        for client in self.clients:
            self.read(client)

    # What happens

    @rule(
        to=st.sampled_from(ADDRESSED),
        values=st.lists(st.sampled_from(VALUES), min_size=1, max_size=10),
        large=st.booleans(),
    )
    def publish(self, to: dict[str, list[str]], values: list[dict[str, Any]], *, large: bool) -> None:
        data = "x" * LARGE if large else "x"
        batch = [{"type": "m", "data": data, **to, **value} for value in values]
        publication = self.run(self.manager.publish_batch(batch))
        for message in publication.messages:
            self.model.append(message)

    @rule(to=st.sampled_from(ADDRESSED), before=st.integers(0, 2))
    def publish_ephemeral(self, to: dict[str, list[str]], before: int) -> None:
        """Perhaps right after messages that have not been flushed yet."""
        audience, number = Audience.of(**to), len(self.live)
        expected = [each for each in self.clients if each.is_current and visible(audience, each.keys)]

        async def publishing() -> None:
            for _ in range(before):
                message = await self.manager.publish({"type": "m", **to})
                self.model.append(message)
            self.live.append((self.manager.window.latest, expected))
            await self.manager.publish({"type": "typing", "data": number, **to}, ephemeral=True)

        self.run(publishing())
        self.settle()
        assert [client for client in self.clients if number in client.live] == expected

    @rule(seconds=st.sampled_from([1.0, 7.0, 25.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.manager.window.expire(self.clock())
        self.model.expire(self.clock())

    @rule(index=st.integers(0, 3), cut=st.sampled_from([None, None, 1, 2, 3]), slow=st.booleans())
    def connect(self, index: int, cut: int | None, *, slow: bool) -> None:
        """Connect, and perhaps lose the connection after so many frames, or read nothing yet after them."""
        client = self.clients[index]
        self.drop(index)
        # A state that was cut must be asked for again.
        since = None if client.loading is not None else client.position
        if since is None and not client.wants_state:
            since = 0
        client.position, client.read, client.connected = since, 0, True

        def connecting() -> None:
            user = User(client.user, topics=client.topics)
            client.socket, _ = connect(self.manager, user, topics=client.topics, since=since, state=client.wants_state)

        self.call(connecting)
        if slow:
            client.socket.pause()
        elif cut is not None:
            self.settle_others(client)
            self.read(client, most=cut)
            self.call(client.socket.drop)
            client.connected = False

    def settle_others(self, cut: Client) -> None:
        """Let everything be written to a client, which reads only the beginning of it."""
        self.clients.remove(cut)
        self.settle()
        self.clients.append(cut)

    @rule(index=st.integers(0, 3))
    def drop(self, index: int) -> None:
        client = self.clients[index]
        if client.connected:
            self.call(client.socket.drop)
            self.read(client)
        client.connected = False

    @rule(index=st.integers(0, 3))
    def stall(self, index: int) -> None:
        self.clients[index].socket.pause()

    @precondition(lambda self: any(not client.socket.writable for client in self.clients if client.connected))
    @rule()
    def all_read_again(self) -> None:
        for client in self.clients:
            if client.connected:
                self.call(client.socket.resume)

    @rule(limit=st.sampled_from([None, 1, 3]))
    def poll(self, limit: int | None) -> None:
        client = self.poller
        assert client.position is not None
        query = RestQuery(client.user, client.topics, client.position, limit=limit)
        page = self.run(self.manager.running.recover(query))
        client.told = 0
        if client.position == 0:
            client.position = self.manager.window.first_number - 1
        if page.lost is not None:
            self.take_gap(client, *page.lost, again=True)
        for message in page.messages:
            self.take_message(client, message.sequence_number)
        self.nothing_is_missing(client, client.position, page.sequence_number)
        client.position = page.sequence_number
        if not page.has_more:
            self.shows_the_truth(client)

    @precondition(lambda self: self.lasting)
    @rule()
    def restart(self) -> None:
        self.run(self.manager.__aexit__(None, None, None))
        for client in self.clients:
            self.read(client)
            client.connected = False
        self.run(self.manager.__aenter__())
        self.restarted_at = self.manager.window.latest

    # What clients read

    def read(self, client: Client, *, most: int | None = None) -> None:
        frames = client.socket.frames
        for frame in frames[client.read : None if most is None else client.read + most]:
            self.take(client, frame)
        client.read = len(frames)

    def take(self, client: Client, frame: dict[str, Any]) -> None:
        number = frame.get("sequence_number")
        match frame["type"]:
            case "connected":
                self.take_connected(client, frame)
            case "state":
                self.take_state(client, frame, number)
            case "typing":
                self.take_ephemeral(client, frame)
            case "gap":
                assert client.position is not None
                assert number is not None
                assert frame["from"] == number + 1 > client.position
                self.nothing_is_missing(client, client.position, number)
                self.take_gap(client, frame["from"], frame["to"])
            case "m":
                assert number is not None
                assert {"key", "append", "deleted"} & frame.keys() == self.fields_of(number)
                self.take_message(client, number)
            case _:
                assert client.position is not None
                assert number is not None
                self.nothing_is_missing(client, client.position, number)
        if number is not None:
            assert frame["type"] == "connected" or number >= (client.position or 0), "P2: the position went back"
            client.position = number

    def take_connected(self, client: Client, frame: dict[str, Any]) -> None:
        client.told, client.loading = 0, [] if frame.get("state") else None
        match frame.get("outcome"):
            case None:
                assert client.wants_state
            case "gap":
                assert client.position is not None
                assert frame["sequence_number"] == max(client.position, frame["first"] - 1) == frame["from"] - 1
                self.take_gap(client, frame["from"], frame["to"])
            case outcome:
                assert outcome == "complete", "P6: a reset without a new epoch"
                assert client.loading is None

    def take_state(self, client: Client, frame: dict[str, Any], number: int | None) -> None:
        assert client.loading is not None, "a state that was not asked for"
        client.loading += [self.model.messages[each["sequence_number"]] for each in frame["values"]]
        assert frame["has_more"] == (number is None)
        if number is None:
            return
        assert number == client.position, "a state is cut where delivery begins"
        loaded, client.loading = client.loading, None
        numbers = [each.sequence_number for each in loaded]
        assert len(numbers) == len(set(numbers))
        assert all(map(client.sees, loaded)), "P8: shown to somebody else"
        assert not any(each.value is None or each.value.deleted for each in loaded), "no value"
        client.seen, client.lost = set(), [(first, last) for first, last in client.lost if last > number]
        client.state, client.unknown = fold(loaded), self.identities(client, number, client.told)
        truth = self.truth(client, number)
        for identity in client.state.keys() | truth.keys():
            parts = truth.get(identity, [])
            found = client.state.get(identity)
            assert found is None or found == parts, "P3: a part of a value, or one that had ended by then"
            if found is None:
                assert not all(self.model.fates[each] is Fate.RETAINED for each in parts), "P3: a value is missing"
                client.unknown.add(identity)

    def take_ephemeral(self, client: Client, frame: dict[str, Any]) -> None:
        assert "sequence_number" not in frame
        number = frame["data"]
        after, expected = self.live[number]
        assert client in expected, "recovered, or for others, or the client was behind"
        assert number not in client.live, "P1: duplicate"
        assert client.position is not None
        self.nothing_is_missing(client, client.position, after)
        client.live.append(number)

    def take_message(self, client: Client, number: int) -> None:
        message = self.model.messages[number]
        assert client.loading is None, "before the state was complete"
        assert number not in client.seen, "P1: duplicate"
        assert client.position is not None
        assert number > client.position, "P2: out of order"
        assert client.sees(message), "P8: shown to somebody else"
        client.seen.add(number)
        self.nothing_is_missing(client, client.position, number)
        fold([message], client.state)
        if message.value is not None and not message.value.append:
            client.unknown.discard(identity_of(message))
        client.position = number

    def take_gap(self, client: Client, first: int, last: int, *, again: bool = False) -> None:
        assert again or client.told < last, "P4: declared twice"
        assert first <= last
        if last > self.restarted_at:
            assert self.model.fates[last] is Fate.EVICTED, "P4, P12: declared lost, but held"
            assert client.sees(self.model.messages[last]), "P4: declared lost, but meant for others"
        client.lost.append((first, last))
        client.told = last
        client.unknown |= self.identities(client, 0, last)

    # What must hold

    def nothing_is_missing(self, client: Client, after: int, through: int) -> None:
        for number, message in self.model.messages.items():
            if after < number <= through and client.sees(message) and number not in client.seen:
                assert self.model.fates[number] is not Fate.RETAINED, "P3, P12: passed, but held"
                lost = any(first <= number <= last for first, last in client.lost)
                assert lost or self.model.superseded(number), "P3: silent loss"

    def shows_the_truth(self, client: Client) -> None:
        """Compare the state of a client that is up to date, apart from what it cannot know after a gap."""
        truth = self.truth(client, self.manager.window.latest)
        for identity in (truth.keys() | client.state.keys()) - client.unknown:
            assert truth.get(identity) == client.state.get(identity), "P3: not the truth"

    def truth(self, client: Client, through: int) -> dict[Identity, list[int]]:
        messages = self.model.messages.items()
        return fold(message for number, message in messages if number <= through and client.sees(message))

    def identities(self, client: Client, after: int, through: int) -> set[Identity]:
        """Return the values that messages in (after, through] are about."""
        between = (each for number, each in self.model.messages.items() if after < number <= through)
        return {identity for each in between if client.sees(each) and (identity := identity_of(each)) is not None}

    def fields_of(self, number: int) -> set[str]:
        value = self.model.messages[number].value
        if value is None:
            return set()
        return {"key"} | {name for name in ("append", "deleted") if getattr(value, name)}

    @invariant()
    def a_client_that_reads_shows_the_truth(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.settle()
        for client in self.clients:
            if client.connected and client.socket.writable:
                assert client.loading is None
                assert client.position is not None
                self.nothing_is_missing(client, client.position, self.manager.window.latest)
                self.shows_the_truth(client)


@pytest.mark.timeout(600)
@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_promise_of_retention_is_kept_on(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    def machine() -> RetentionPromises:
        return RetentionPromises(new_url(kind, request, tmp_path), lasting=kind in LASTING)

    settings = hypothesis_settings()
    if kind in LASTING:
        phases = (Phase.explicit, Phase.reuse, Phase.generate)  # Shrinking takes minutes on a disk.
        settings = hypothesis_settings(settings, max_examples=settings.max_examples // 4, phases=phases)
    run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type]  # any function will do


class MovingAtGaps(RetentionPromises):
    """Its clients continue after a gap, as if nothing in it were retained."""

    def take_gap(self, client: Client, first: int, last: int, *, again: bool = False) -> None:
        super().take_gap(client, first, last, again=again)
        client.position = last


def evicts_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evictions, "add", lambda *_: None)


def evicts_across_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a number of messages that all rules share."""
    append = Window.append

    def wrong(self: Window, message: Message, **options: Any) -> None:
        append(self, message, **options)
        if len(self) > 15:
            self._make_room()

    monkeypatch.setattr(Window, "append", wrong)


def replaces_with_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a piece for a value, which replaces what it is added to."""
    append = Window.append

    def wrong(self: Window, message: Message, **options: Any) -> None:
        value = message.value
        full = value if value is None else Value(value.key, deleted=value.deleted)
        append(self, replace(message, value=full), **options)

    monkeypatch.setattr(Window, "append", wrong)


def misses_values_in_states(monkeypatch: pytest.MonkeyPatch) -> None:
    value_ending_with = Window.value_ending_with

    def wrong(self: Window, message: Message, *, through: int) -> Sequence[Message]:
        return () if message.key == "l" else value_ending_with(self, message, through=through)

    monkeypatch.setattr(Window, "value_ending_with", wrong)


def shows_tombstones_as_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "value_ending_with", lambda _, message, through: (message,) if message.value else ())  # noqa: ARG005


def overtakes_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write ephemeral messages before those that were published earlier."""

    def wrong(self: Connection, batch: LiveBatch) -> int:
        chunk = batch.visible_to(self.reader.keys)
        if chunk is not None and self._socket.writable:
            self._socket.write(chunk)
        self.deliver()
        return 0

    monkeypatch.setattr(Connection, "deliver_live", wrong)


def declares_gaps_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which loss the first frame of a connection has declared."""
    create = ClientReader.__init__

    def wrong(self: ClientReader, *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **{**options, "told": 0})

    monkeypatch.setattr(ClientReader, "__init__", wrong)


def moves_no_further(_: pytest.MonkeyPatch) -> None:
    """The server is sound, and its clients are not."""


@pytest.mark.hypothesis
@pytest.mark.parametrize(
    ("plant", "machine", "reason"),
    [
        (moves_no_further, MovingAtGaps, "P2|P3"),
        (evicts_without_a_trace, RetentionPromises, "P3: silent loss"),
        (evicts_across_rules, RetentionPromises, "P12"),
        (replaces_with_pieces, RetentionPromises, "P3"),
        (misses_values_in_states, RetentionPromises, "P3: a value is missing"),
        (shows_tombstones_as_values, RetentionPromises, "no value"),
        (overtakes_messages, RetentionPromises, "P2|P3|behind"),
        (declares_gaps_again, RetentionPromises, "P4: declared twice"),
    ],
)
@pytest.mark.long
def test_the_promises_of_retention_notice(
    plant: Callable[[pytest.MonkeyPatch], None],
    machine: type[RetentionPromises],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run in which a planted fault is not noticed would prove nothing."""

    def created() -> RetentionPromises:
        return machine("memory:", lasting=False)

    plant(monkeypatch)
    settings = hypothesis_settings(max_examples=300, phases=(Phase.generate,), derandomize=True, database=None)

    with pytest.raises(AssertionError, match=reason):
        run_state_machine_as_test(created, settings=settings)  # type: ignore[arg-type]  # any function will do
