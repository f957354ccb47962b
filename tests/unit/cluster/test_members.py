"""Members: what the nodes know of each other after notes that arrive, and notes that are lost."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from cluster_doubles import add, remove
from unmissed import Connection
from unmissed.cluster.members import NOTE_MEMBERS, Member, Members, responsible
from unmissed.delivery.registry import Registry


class Node:
    """A node with its members and its connections."""

    def __init__(self, node_id: str, *, max_members: int = 100_000) -> None:
        self.registry = Registry(max_connections=None, max_per_user=None)
        self.woken = 0
        self.members = Members(
            self.registry,
            node_id=node_id,
            patterns=["rooms.*", "lobby"],
            wake=self.wake,
            max_members=max_members,
        )
        self.registry.watchers.append(self.members.watch)

    def wake(self) -> None:
        self.woken += 1

    def connect(self, user_id: str, *topics: str) -> Connection:
        return add(self.registry, user_id, *topics)

    def end(self, connection: Connection) -> None:
        remove(self.registry, connection)

    def recount(self) -> None:
        while self.members.recount(most=500):
            pass

    def notes(self) -> Iterator[dict[str, Any]]:
        self.recount()
        return self.members.changes(active=True)


def send(notes: Iterable[dict[str, Any]], *nodes: Node) -> None:
    for note in notes:
        for node in nodes:
            node.members.take(json.loads(json.dumps(note)))


ALICE, BOB = Member("rooms.1", "alice"), Member("rooms.1", "bob")


def test_a_node_counts_the_connections_that_follow_a_topic_with_presence() -> None:
    node = Node("a")

    for topics in (("rooms.1", "news"), ("rooms.1", "lobby"), ("news",), ()):
        node.connect("alice", *topics)
    node.end(node.connect("bob", "rooms.1"))
    node.recount()

    assert {ALICE: 2, Member("lobby", "alice"): 1} == node.members.here
    assert 5 == node.woken


def test_other_nodes_know_what_has_changed() -> None:
    here, there = Node("a"), Node("b")
    send(here.members.list_all(active=True), there)
    first = here.connect("alice", "rooms.1")
    here.connect("alice", "rooms.1")
    here.connect("bob", "rooms.1")
    send(here.notes(), there)
    there.members.changed.clear()

    here.end(first)
    send(here.notes(), there)

    assert {ALICE} == there.members.changed
    assert {ALICE: 1, BOB: 1} == there.members.nodes["a"].counts
    assert there.members.nodes["a"].complete
    there.connect("alice", "rooms.1")
    there.recount()
    assert 2 == there.members.connections(ALICE, {"a", "unknown"})
    assert 1 == there.members.connections(ALICE, ())


def test_a_member_that_has_come_and_gone_before_a_note_is_in_none() -> None:
    node = Node("a")

    node.end(node.connect("alice", "rooms.1"))

    assert [] == [*node.notes()]


def test_a_note_that_was_missed_is_noticed_by_the_next_and_a_list_replaces_what_is_known() -> None:
    here, there = Node("a"), Node("b")
    send(here.members.list_all(active=True), there)
    alice = here.connect("alice", "rooms.1")
    send(here.notes(), there)
    here.end(alice)
    [_missed] = here.notes()

    send([here.members.beat(active=True)], there)

    assert not there.members.nodes["a"].complete
    here.connect("bob", "rooms.1")
    send(here.notes(), there)
    assert not there.members.nodes["a"].complete
    assert {ALICE: 1, BOB: 1} == there.members.nodes["a"].counts
    there.members.changed.clear()
    send(here.members.list_all(active=True), there)
    assert there.members.nodes["a"].complete
    assert {BOB: 1} == there.members.nodes["a"].counts
    assert ALICE in there.members.changed


def test_a_beat_without_a_missed_note_changes_nothing() -> None:
    here, there = Node("a"), Node("b")
    here.connect("alice", "rooms.1")
    here.recount()
    send(here.members.list_all(active=True), there)

    send([here.members.beat(active=False)] * 2, there)

    assert there.members.nodes["a"].complete
    assert not there.members.nodes["a"].active


def test_a_list_that_changes_while_it_is_sent_is_right_in_the_end() -> None:
    here, there = Node("a"), Node("b")
    clients = [here.connect(f"user {number}", "rooms.1") for number in range(2 * NOTE_MEMBERS + 1)]
    here.recount()
    parts = here.members.list_all(active=True)
    send([next(parts)], there)

    here.end(clients[0])
    here.end(clients[-1])
    here.connect("late", "rooms.1")
    here.recount()
    send(parts, there)
    send(here.notes(), there)

    assert there.members.nodes["a"].complete
    assert here.members.here == there.members.nodes["a"].counts
    assert 2 * NOTE_MEMBERS == len(here.members.here)


@pytest.mark.parametrize("missed", [0, 1, 2])
def test_a_list_with_a_missing_part_is_not_taken_for_all(missed: int) -> None:
    here, there = Node("a"), Node("b")
    for number in range(2 * NOTE_MEMBERS + 1):
        here.connect(f"user {number}", "rooms.1")
    here.recount()
    parts = [*here.members.list_all(active=True)]

    send(parts[:missed] + parts[missed + 1 :], there)
    send([here.members.beat(active=True)], there)

    assert not there.members.nodes["a"].complete
    assert there.members.nodes["a"].listing is None


def test_the_members_of_a_node_that_is_gone_are_forgotten_and_its_own_notes_change_nothing() -> None:
    here, there = Node("a"), Node("b")
    here.connect("alice", "rooms.1")
    here.recount()
    send(here.members.list_all(active=True), here, there)
    there.connect("bob", "rooms.1")
    there.recount()
    assert {} == here.members.nodes
    assert [BOB, ALICE] == [*there.members.all()]

    there.members.forget({"c"})

    assert [BOB] == [*there.members.all()]


def test_a_node_has_no_more_members_than_it_may_and_none_with_an_id_that_is_no_key() -> None:
    node = Node("a", max_members=2)
    node.connect("é" * 101, "rooms.1")
    for name in ("alice", "bob", "carol"):
        node.connect(name, "rooms.1")
    node.recount()

    assert {ALICE, BOB} == node.members.here.keys()
    assert 2 == node.members.left_out
    node.connect("bob", "rooms.1")
    node.recount()
    assert 2 == node.members.here[BOB]


def test_the_members_of_a_node_that_is_gone_are_divided_among_the_others_and_no_others_move() -> None:
    members = [Member("rooms.1", f"user {number}") for number in range(3_000)]
    before = {member: responsible(member, ["a", "b", "c"]) for member in members}

    after = {member: responsible(member, ["c", "b"]) for member in members}

    assert all(800 < [*before.values()].count(node) < 1_200 for node in "abc")
    assert all(1_300 < [*after.values()].count(node) < 1_700 for node in "bc")
    assert all(node == after[member] for member, node in before.items() if node != "a")
