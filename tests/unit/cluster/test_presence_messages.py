"""Presence as messages: what the log says of the members, whatever nodes and notes do."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from cluster_doubles import NodeDouble, Notes, add, remove
from support import FIRST
from unmissed import Connection, Draft, Message, Publication, Retention, Settings
from unmissed.cluster.presence_messages import PresenceMessages
from unmissed.core.errors import CommandError, LogUnavailable
from unmissed.core.receipts import key_of_presence
from unmissed.delivery.registry import Registry
from unmissed.logs.memory import MemoryLog
from unmissed.testing import ManualClock

if TYPE_CHECKING:
    from unmissed.cluster.nodes import Nodes

ROOM = "rooms.1"


class Cluster:
    """Nodes on one log. Time passes in steps of a tenth of a second, in which each node makes a step."""

    def __init__(self, clock: ManualClock, log: MemoryLog) -> None:
        self.clock = clock
        self.log = log
        self.notes = Notes()
        self.nodes: dict[str, Node] = {}
        self.published: list[Message] = []
        self.grace_seconds = 10.0
        self.silent: dict[str, float] = {}
        """When nodes were lost that the others have not missed yet."""

    async def start(self, node_id: str) -> "Node":
        """Start a node on the log as it is."""
        node = self.nodes[node_id] = Node(node_id, self)
        self.notes.nodes[node_id] = node.double
        return node

    def kill(self, node_id: str) -> None:
        """End a node without a word. The others miss it after three seconds."""
        del self.nodes[node_id], self.notes.nodes[node_id]
        self.silent[node_id] = self.clock.now

    def stop(self, node_id: str) -> list[str]:
        """End a node in order, and return the users of its clients."""
        users = [each.identity.user_id for each in self.nodes[node_id].registry]
        del self.nodes[node_id], self.notes.nodes[node_id]
        return users

    async def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            now = self.clock.now
            lost = {node for node, at in self.silent.items() if now - at < 3}
            for node in [*self.nodes.values()]:
                node.double.others = frozenset(lost | (self.nodes.keys() - {node.id}))
                node.double.any_overdue = any(now - self.silent[each] > 1.2 for each in lost)
                await node.presence.step()

    def listed(self, topic: str = ROOM) -> dict[str, Any]:
        """Return what a client that follows a topic knows from its messages."""
        found: dict[str, Any] = {}
        for message in self.messages(topic):
            assert message.value is not None
            found[message.value.key] = message.data
            if message.value.deleted:
                del found[message.value.key]
        return found

    def messages(self, topic: str = ROOM) -> list[Message]:
        return [message for message in self.published if message.topics == [topic]]

    def counts(self) -> dict[str, int]:
        """Return how many messages there are about each user."""
        return dict(Counter(message.value.key for message in self.messages() if message.value is not None))

    @property
    def log_window(self) -> Any:
        return self.log._window  # noqa: SLF001


class Node:
    def __init__(self, node_id: str, cluster: Cluster) -> None:
        self.id = node_id
        self.registry = Registry(max_connections=None, max_per_user=None)
        self.double = NodeDouble(node_id, cluster.notes)
        self.active = True
        self.error: Exception | None = None
        self._cluster = cluster
        self.presence = PresenceMessages(
            cluster.log_window,
            self.registry,
            nodes=cast("Nodes", self.double),
            settings=Settings.load(presence="rooms.*,lobby", presence_grace_seconds=cluster.grace_seconds),
            publish=self._publish,
            is_active=lambda: self.active,
            clock=cluster.clock,
        )

    async def _publish(self, draft: Draft, key: str) -> Publication:
        if self.error is not None:
            raise self.error
        publication = await self._cluster.log.publish([draft], idempotency_key=key)
        if not publication.repeated:
            self._cluster.published += publication.messages
        return publication

    def connect(self, user_id: str, *topics: str) -> Connection:
        return add(self.registry, user_id, *(topics or (ROOM,)))

    def end(self, *connections: Connection) -> None:
        for connection in connections:
            remove(self.registry, connection)


RETENTION = Retention(max_messages=100_000, max_age=900.0)


@pytest.fixture
async def cluster(clock: ManualClock) -> Cluster:
    log = MemoryLog(retention=RETENTION, first_number=FIRST, clock=clock, wall_clock=clock)
    await log.open()
    return Cluster(clock, log)


def connections(**counts: int) -> dict[str, Any]:
    return {user_id: {"connections": count} for user_id, count in counts.items()}


async def test_who_comes_is_listed_and_who_is_gone_for_the_grace_is_not(cluster: Cluster) -> None:
    node = await cluster.start("a")
    alice = node.connect("alice", ROOM, "news")
    node.connect("bob")
    await cluster.run(0.1)
    assert connections(alice=1, bob=1) == cluster.listed()
    assert [] == cluster.messages("news")

    node.end(alice)
    await cluster.run(9.9)
    assert connections(alice=1, bob=1) == cluster.listed()
    await cluster.run(0.3)

    assert connections(bob=1) == cluster.listed()
    assert {"alice": 2, "bob": 1} == cluster.counts()
    last = cluster.messages()[-1].as_dict()
    assert ("presence", "alice", True, {"connections": 0}) == tuple(last[k] for k in ("type", "key", "deleted", "data"))


async def test_who_returns_is_listed_again(cluster: Cluster) -> None:
    """Three times: each message has another idempotency key."""
    node = await cluster.start("a")

    for _ in range(3):
        node.end(node.connect("alice"), node.connect("alice"))
        await cluster.run(0.1)
        alice = node.connect("alice")
        await cluster.run(0.1)
        assert connections(alice=1) == cluster.listed()
        node.end(alice)
        await cluster.run(11)
        assert {} == cluster.listed()

    assert {"alice": 6} == cluster.counts()


async def test_further_connections_are_counted_once_they_last(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "abc"]
    first = nodes[0].connect("alice")
    await cluster.run(2)

    for node in nodes:
        node.end(node.connect("alice"))
    await cluster.run(2)
    assert {"alice": 1} == cluster.counts()
    for node in nodes[1:]:
        node.connect("alice")
    nodes[0].end(first)
    await cluster.run(1.4)
    assert {"alice": 1} == cluster.counts()
    await cluster.run(0.5)

    assert connections(alice=2) == cluster.listed()
    assert {"alice": 2} == cluster.counts()


async def test_a_client_that_moves_to_another_node_is_no_message(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "abc"]
    at = {f"user {number}": (nodes[0], nodes[0].connect(f"user {number}")) for number in range(50)}
    await cluster.run(2)

    for turn in range(1, 7):
        for user_id, (node, connection) in at.items():
            node.end(connection)
            at[user_id] = nodes[turn % 3], nodes[turn % 3].connect(user_id)
        await cluster.run(3)

    assert dict.fromkeys(at, 1) == cluster.counts()


async def test_the_users_of_a_dead_node_leave_once_and_those_that_moved_do_not(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "abc"]
    for number in range(90):
        nodes[number % 3].connect(f"user {number}")
    await cluster.run(2)
    started = {f"user {number}": 1 for number in range(90)}
    assert started == cluster.counts()

    cluster.kill("a")
    for number in range(0, 45, 3):
        nodes[1].connect(f"user {number}")
    await cluster.run(12)
    assert started == cluster.counts()
    await cluster.run(2)

    gone = {f"user {number}" for number in range(45, 90, 3)}
    assert started.keys() - gone == cluster.listed().keys()
    assert {**started, **dict.fromkeys(gone, 2)} == cluster.counts()


async def test_a_rolling_restart_of_everything_is_no_message(cluster: Cluster) -> None:
    names = [*"abc"]
    for name in names:
        await cluster.start(name)
    for number in range(60):
        cluster.nodes[names[number % 3]].connect(f"user {number}")
    await cluster.run(2)

    for name in "abc":
        moving = cluster.stop(name)
        await cluster.run(0.5)
        for user_id in moving:
            random.choice([*cluster.nodes.values()]).connect(user_id)
        await cluster.run(2)
        await cluster.start(name * 2)
        await cluster.run(3)
    await cluster.run(20)

    assert {f"user {number}": 1 for number in range(60)} == cluster.counts()
    assert connections(**{f"user {number}": 1 for number in range(60)}) == cluster.listed()


async def test_who_did_not_come_back_after_a_restart_of_everything_leaves_after_the_grace(cluster: Cluster) -> None:
    node = await cluster.start("a")
    for name in ("alice", "bob", "carol"):
        node.connect(name)
    await cluster.run(1)
    cluster.stop("a")

    again = await cluster.start("b")
    await cluster.run(3)
    again.connect("alice")
    again.connect("carol")
    again.connect("carol")
    await cluster.run(6.5)
    assert connections(alice=1, bob=1, carol=2) == cluster.listed()
    await cluster.run(1)

    assert connections(alice=1, carol=2) == cluster.listed()
    assert {"alice": 1, "bob": 2, "carol": 2} == cluster.counts()


async def test_nodes_that_all_think_they_are_responsible_publish_once(cluster: Cluster) -> None:
    """They do not hear each other, and each has a connection of the user."""
    nodes = [await cluster.start(name) for name in "abc"]
    cluster.notes.lost = lambda: True
    alice = [node.connect("alice") for node in nodes]
    await cluster.run(8)

    for node, connection in zip(nodes, alice, strict=True):
        node.end(connection)
    await cluster.run(30)

    assert {"alice": 2} == cluster.counts()
    assert {} == cluster.listed()


async def test_a_node_that_cannot_hear_the_others_lets_nobody_leave(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "ab"]
    for number in range(20):
        nodes[1].connect(f"user {number}")
    await cluster.run(2)

    nodes[0].double.problem = "deaf"
    for _ in range(300):
        cluster.clock.advance(0.1)
        nodes[0].double.others = frozenset()
        await nodes[0].presence.step()
    nodes[0].double.problem = None
    nodes[0].double.others = frozenset()
    await nodes[0].presence.step()
    await cluster.run(30)

    assert {f"user {number}": 1 for number in range(20)} == cluster.counts()


async def test_a_node_that_does_not_know_the_members_of_the_others_lets_nobody_leave(cluster: Cluster) -> None:
    """Its first notes are lost. Without a grace, nothing else would protect them."""
    cluster.grace_seconds = 0.0
    node = await cluster.start("a")
    for number in range(20):
        node.connect(f"user {number}")
    await cluster.run(1)

    cluster.notes.lost = lambda: True
    await cluster.start("b")
    await cluster.run(2)
    cluster.notes.lost = lambda: False
    await cluster.run(5)

    assert {f"user {number}": 1 for number in range(20)} == cluster.counts()


async def test_a_node_that_learns_late_that_it_is_deaf_lets_nobody_leave(cluster: Cluster) -> None:
    """The leases of the other nodes end before it knows."""
    cluster.grace_seconds = 1.0
    nodes = [await cluster.start(name) for name in "ab"]
    for number in range(20):
        nodes[1].connect(f"user {number}")
    await cluster.run(2)

    for tenths in range(100):
        nodes[0].double.problem = "deaf" if tenths > 5 else None
        nodes[0].double.others = frozenset()
        cluster.clock.advance(0.1)
        await nodes[0].presence.step()
    nodes[0].double.problem = None
    await cluster.run(30)

    assert {f"user {number}": 1 for number in range(20)} == cluster.counts()


async def test_a_key_that_was_used_for_what_the_log_does_not_show_is_replaced(cluster: Cluster) -> None:
    key = key_of_presence(ROOM, "alice", epoch=cluster.log_window.epoch, replaces=0, attempt=0)
    other = Draft.of({"type": "other"}, max_bytes=1_000)
    await cluster.log.publish([other], idempotency_key=key)
    node = await cluster.start("a")

    node.connect("alice")
    await cluster.run(1.3)

    assert connections(alice=1) == cluster.listed()


async def test_another_value_with_the_key_of_a_user_says_nothing_about_the_user(cluster: Cluster) -> None:
    node = await cluster.start("a")
    profile = Draft.of({"type": "profile", "key": "alice", "topics": [ROOM], "data": {}}, max_bytes=1_000)
    await cluster.log.publish([profile])

    node.connect("alice")
    await cluster.run(1)

    assert connections(alice=1) == cluster.listed()


async def test_a_node_that_shuts_down_leaves_the_messages_to_the_others(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "ab"]
    joined = [nodes[number % 2].connect(f"user {number}") for number in range(40)]
    await cluster.run(2)

    nodes[0].active = False
    for number, connection in enumerate(joined):
        nodes[number % 2].end(connection)
    nodes[0].connect("late")
    await cluster.run(12)

    assert {} == cluster.listed()
    assert {f"user {number}": 2 for number in range(40)} == cluster.counts()


async def test_a_node_with_other_settings_is_waited_for_only_for_some_seconds(cluster: Cluster) -> None:
    """It sends no notes about members, so it is responsible for none."""
    node = await cluster.start("a")
    cluster.silent["old"] = cluster.clock.now + 1e9
    alice = node.connect("alice")
    await cluster.run(1)

    node.end(alice)
    await cluster.run(16)

    assert {} == cluster.listed()


async def test_a_member_is_published_again_before_its_message_is_too_old(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "ab"]
    nodes[0].connect("alice")
    await cluster.run(1)
    [first] = cluster.messages()

    for _ in range(200):
        await cluster.run(0.1)
        cluster.clock.advance(10)
        cluster.log.expire()

    assert connections(alice=1) == cluster.listed()
    assert [cluster.messages()[-1]] == [*cluster.log_window]
    assert first not in cluster.log_window
    assert 6 > len(cluster.messages())


async def test_in_another_epoch_everybody_is_listed_again(cluster: Cluster) -> None:
    node = await cluster.start("a")
    node.connect("alice")
    await cluster.run(1)

    cluster.log_window.restart(epoch="another", first_number=cluster.log_window.latest + 1_000)
    await cluster.run(0.1)

    assert ["alice"] == [message.key for message in cluster.log_window]


async def test_what_cannot_be_published_now_is_published_later(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node = await cluster.start("a")
    node.error = LogUnavailable("down")
    node.connect("alice")
    node.connect("bob")
    await cluster.run(5)
    assert {} == cluster.listed()

    node.error = None
    await cluster.run(1.1)

    assert connections(alice=1, bob=1) == cluster.listed()
    assert 1 == caplog.text.count("presence cannot be published or exchanged at the moment: down")


# State


async def test_the_state_of_a_user_is_in_the_message_until_it_is_removed(cluster: Cluster) -> None:
    node = await cluster.start("a")
    node.connect("alice")

    await node.presence.set_state("alice", ROOM, {"status": "away"})
    await cluster.run(1)
    assert {"alice": {"connections": 1, "state": {"status": "away"}}} == cluster.listed()
    await node.presence.set_state("alice", ROOM, {"status": "away"})
    assert {"alice": 1} == cluster.counts()
    await node.presence.set_state("alice", ROOM, None)
    await cluster.run(1)

    assert connections(alice=1) == cluster.listed()
    assert {"alice": 2} == cluster.counts()


async def test_the_last_state_wins_and_survives_a_reconnect_to_another_node(cluster: Cluster) -> None:
    nodes = [await cluster.start(name) for name in "ab"]
    alice = [node.connect("alice") for node in nodes]
    await cluster.run(2)
    await nodes[0].presence.set_state("alice", ROOM, "first")
    await nodes[1].presence.set_state("alice", ROOM, "second")

    for node, connection in zip(nodes, alice, strict=True):
        node.end(connection)
    await cluster.run(5)
    nodes[0].connect("alice")
    await cluster.run(2)

    assert {"alice": {"connections": 1, "state": "second"}} == cluster.listed()


async def test_the_state_does_not_survive_the_user(cluster: Cluster) -> None:
    node = await cluster.start("a")
    alice = node.connect("alice")
    await node.presence.set_state("alice", ROOM, "typing")
    node.end(alice)
    await cluster.run(11)
    assert {"connections": 0} == cluster.messages()[-1].data

    node.connect("alice")
    await cluster.run(1)

    assert connections(alice=1) == cluster.listed()


async def test_a_user_may_set_its_state_on_a_node_that_has_none_of_its_connections(cluster: Cluster) -> None:
    """A client with an event stream sends its command over HTTP, to any node."""
    nodes = [await cluster.start(name) for name in "ab"]
    nodes[0].connect("alice")
    await cluster.run(2)

    await nodes[1].presence.set_state("alice", ROOM, 1)

    assert {"alice": {"connections": 1, "state": 1}} == cluster.listed()


@pytest.mark.parametrize(
    ("topic", "state", "reason"),
    [
        ("news", 1, "the topic news has no presence: UNMISSED_PRESENCE does not name it"),
        ("rooms.2", 1, "follow rooms.2 first"),
        (ROOM, "x" * 2_047, "the state has 2049 bytes of JSON, and at most 2048 are allowed"),
        (ROOM, "\ud800", "the state cannot be sent as JSON"),
    ],
)
async def test_a_state_that_cannot_be_set_is_refused_and_changes_nothing(
    cluster: Cluster, topic: str, state: Any, reason: str
) -> None:
    node = await cluster.start("a")
    node.connect("alice", ROOM, "news")
    await cluster.run(1)

    with pytest.raises(CommandError, match=reason):
        await node.presence.set_state("alice", topic, state)

    await node.presence.set_state("alice", ROOM, "x" * 2_046)
    assert {"alice": 2} == cluster.counts()


async def test_a_state_that_cannot_be_published_is_refused(cluster: Cluster) -> None:
    node = await cluster.start("a")
    node.connect("alice")
    node.error = LogUnavailable("redis://secret is down")

    with pytest.raises(CommandError, match=r"^the state cannot be published at the moment: try again$"):
        await node.presence.set_state("alice", ROOM, 1)


# Anything


@pytest.mark.parametrize("seed", range(10))
async def test_after_any_course_of_events_the_log_lists_those_who_are_connected(cluster: Cluster, seed: int) -> None:
    """Clients come, go and move, nodes start, stop and are killed, and one of five notes is lost."""
    chance, names = random.Random(seed), iter(map(str, range(1_000)))
    cluster.notes.lost = lambda: chance.random() < 0.2
    await cluster.start(next(names))

    for _ in range(150):
        for act in chance.choices([come, go, move], k=chance.randrange(6)):
            act(cluster, chance)
        match chance.randrange(30):
            case 0 if len(cluster.nodes) < 4:
                await cluster.start(next(names))
            case 1 if len(cluster.nodes) > 1:
                cluster.kill(chance.choice([*cluster.nodes]))
            case 2 if len(cluster.nodes) > 1:
                cluster.stop(chance.choice([*cluster.nodes]))
        await cluster.run(chance.choice([0.1, 0.3, 1]))
    cluster.notes.lost = lambda: False
    await cluster.run(40)

    truth = Counter(each.identity.user_id for node in cluster.nodes.values() for each in node.registry)
    assert connections(**truth) == cluster.listed()


def come(cluster: Cluster, chance: random.Random) -> None:
    chance.choice([*cluster.nodes.values()]).connect(f"user {chance.randrange(20)}")


def go(cluster: Cluster, chance: random.Random) -> None:
    for node, connection in someone(cluster, chance):
        node.end(connection)


def move(cluster: Cluster, chance: random.Random) -> None:
    for node, connection in someone(cluster, chance):
        node.end(connection)
        chance.choice([*cluster.nodes.values()]).connect(connection.identity.user_id)


def someone(cluster: Cluster, chance: random.Random) -> Iterator[tuple[Node, Connection]]:
    found = [(node, each) for node in cluster.nodes.values() for each in node.registry]
    if found:
        yield chance.choice(found)
