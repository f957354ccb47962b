"""Attendance: which messages about members are due, and when."""

import pytest

from support import nth
from unmissed import Message
from unmissed.cluster.attendance import Attendance, Due, Entry
from unmissed.cluster.members import Member
from unmissed.core.audience import Audience

ALICE, BOB = Member("rooms.1", "alice"), Member("rooms.1", "bob")
NOW = 5_000.0


@pytest.fixture
def attendance() -> Attendance:
    return Attendance(grace_seconds=10.0, max_age=lambda topic: {"rooms.1": 900.0}[topic], entry_seconds=1_800.0)


def entry(connections: int, *, number: int = 1, at: float = NOW) -> Entry:
    audience = Audience.of(topics=["rooms.1"])
    return Entry(Message(nth(number), "2026-01-31T12:00:00.000Z", b"{}", audience, at), connections)


def due(attendance: Attendance, *, now: float) -> list[tuple[str, Due]]:
    return [(member.user_id, pending.due) for member, pending in attendance.take_due(now=now)]


def test_a_member_that_is_not_listed_is_announced_at_once(attendance: Attendance) -> None:
    attendance.compare(ALICE, 1, now=NOW)

    assert [("alice", Due.JOIN)] == due(attendance, now=NOW)
    assert [] == due(attendance, now=NOW + 1_000)


def test_a_member_that_returns_within_the_grace_has_not_left(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(1)
    attendance.compare(ALICE, 0, now=NOW)
    assert [] == due(attendance, now=NOW + 9.99)

    attendance.compare(ALICE, 1, now=NOW + 9.99)

    assert [] == due(attendance, now=NOW + 1_000)
    attendance.compare(ALICE, 0, now=NOW + 20)
    attendance.compare(ALICE, 0, now=NOW + 25)
    assert [] == due(attendance, now=NOW + 29.99)
    assert [("alice", Due.LEAVE)] == due(attendance, now=NOW + 30)


def test_a_count_that_is_the_same_again_soon_is_no_change(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(1)
    for at, connections in ((0.0, 2), (0.5, 3), (0.9, 1)):
        attendance.compare(ALICE, connections, now=NOW + at)
    assert [] == due(attendance, now=NOW + 5)

    for at, connections in ((6.0, 2), (6.9, 3)):
        attendance.compare(ALICE, connections, now=NOW + at)

    assert [] == due(attendance, now=NOW + 7.4)
    assert [("alice", Due.COUNT)] == due(attendance, now=NOW + 7.5)


def test_who_leaves_after_a_change_of_the_count_has_the_whole_grace(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(2)
    attendance.compare(ALICE, 1, now=NOW)
    attendance.compare(ALICE, 0, now=NOW + 0.5)

    assert [] == due(attendance, now=NOW + 10)
    assert [("alice", Due.LEAVE)] == due(attendance, now=NOW + 10.5)


def test_what_another_node_has_published_is_due_no_more(attendance: Attendance) -> None:
    attendance.compare(ALICE, 1, now=NOW)
    attendance.compare(BOB, 1, now=NOW)
    attendance.entries[ALICE] = entry(1)

    attendance.compare(ALICE, 1, now=NOW)

    assert [("bob", Due.JOIN)] == due(attendance, now=NOW)
    assert [ALICE, BOB] == [*attendance.members()]


def test_what_was_not_published_is_due_again_after_a_comparison_or_when_it_is_retried(attendance: Attendance) -> None:
    attendance.compare(ALICE, 1, now=NOW)
    [(_, pending)] = attendance.take_due(now=NOW)
    assert 0 == pending.attempt

    attendance.compare(ALICE, 1, now=NOW + 1)
    assert [("alice", Due.JOIN)] == due(attendance, now=NOW + 1)
    attendance.retry(ALICE, at=NOW + 2, attempt=1)

    assert NOW + 2 == attendance.next_at()
    assert [] == due(attendance, now=NOW + 1.9)
    [(member, pending)] = attendance.take_due(now=NOW + 2)
    assert (ALICE, Due.JOIN, 1) == (member, pending.due, pending.attempt)


def test_a_retry_of_what_is_due_no_more_does_nothing(attendance: Attendance) -> None:
    attendance.retry(ALICE, at=NOW, attempt=1)

    assert None is attendance.next_at()


def test_a_message_is_published_again_at_half_of_its_age(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(1)
    attendance.compare(ALICE, 1, now=NOW + 449)
    assert [] == due(attendance, now=NOW + 449)

    attendance.compare(ALICE, 1, now=NOW + 450)

    assert [("alice", Due.REFRESH)] == due(attendance, now=NOW + 450)


def test_who_has_left_is_remembered_for_longer_than_idempotency_keys(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(0)
    attendance.compare(ALICE, 0, now=NOW + 1_799)
    assert {ALICE} == attendance.entries.keys()

    attendance.compare(ALICE, 0, now=NOW + 1_800)

    assert {} == attendance.entries
    assert [] == due(attendance, now=NOW + 10_000)


def test_in_another_epoch_nobody_is_listed(attendance: Attendance) -> None:
    attendance.entries[ALICE] = entry(1)

    attendance.begin()

    attendance.compare(ALICE, 1, now=NOW)
    assert [("alice", Due.JOIN)] == due(attendance, now=NOW)
