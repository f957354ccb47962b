"""The last hour of a node, for operators."""

import pytest

from support import ALICE, BOB, connect, flushed, managed, nth
from unmissed import ConnectionManager, issue_token
from unmissed.delivery.history import MAX_ALIKE, MAX_TEXT, History, HistoryEntry, HistoryKind
from unmissed.testing import SECRET, ManualClock


def facts(entry: HistoryEntry) -> tuple[object, ...]:
    return entry.kind, entry.user_id, entry.first, entry.last


def refuse(history: History, client: str, *, code: int = 4401, reason: str = "the token is invalid") -> None:
    history.refused(code, reason, status=401, request="WebSocket /ws", client=client)


async def test_a_client_that_was_too_slow_has_a_gap_with_what_it_has_lost(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    slow, connection = connect(manager, BOB, client="192.0.2.7")
    slow.pause()
    for _ in range(510):
        await manager.emit("a")
    clock.advance(3)

    slow.resume()
    clock.advance(1)
    await manager.emit("b")
    await flushed(manager)

    [entry] = manager.running.history.entries(limit=9)
    assert (HistoryKind.GAP, "bob", nth(1), nth(10)) == facts(entry)
    assert (connection.id, "192.0.2.7", clock() - 1) == (entry.connection_id, entry.client, entry.at)
    [gap] = [frame for frame in slow.frames if frame["type"] == "gap"]
    assert (entry.first, entry.last) == (gap["from"], gap["to"])


@pytest.mark.parametrize(("since", "first"), [(nth(3), nth(4)), (0, nth(1))])
async def test_a_client_that_was_away_too_long_has_a_gap(manager: ConnectionManager, since: int, first: int) -> None:
    for _ in range(510):
        await manager.emit("a")

    connect(manager, since=since)

    [entry] = manager.running.history.entries(limit=9)
    assert (HistoryKind.GAP, "alice", first, nth(10)) == facts(entry)


async def test_a_position_of_another_epoch_is_a_reset(manager: ConnectionManager) -> None:
    connect(manager, since=nth(7))

    [entry] = manager.running.history.entries(limit=9)
    assert (HistoryKind.RESET, "alice", nth(7), None) == facts(entry)


async def test_a_complete_recovery_leaves_no_trace(manager: ConnectionManager) -> None:
    connect(manager, since=nth(0))
    connect(manager)
    await manager.emit("a")

    assert [] == manager.running.history.entries(limit=9)


async def test_a_stall_is_an_entry_besides_the_close(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        stalled, connection = connect(manager)
        stalled.pause()
        for _ in range(2):
            clock.advance(40)
            manager.running.check()

        stall, close = sorted(manager.running.history.entries(limit=9), key=lambda each: each.kind, reverse=True)

    assert (HistoryKind.STALL, HistoryKind.CLOSE) == (stall.kind, close.kind)
    assert {"stalled: the client has taken nothing for 30 s"} == {stall.reason, close.reason}
    assert (None, 1006, {connection.id}) == (stall.code, close.code, {stall.connection_id, close.connection_id})


async def test_a_close_has_its_code_and_reason(manager: ConnectionManager) -> None:
    connect(manager)[1].close(4403, "not here")

    [entry] = manager.running.history.entries(limit=9)
    assert (HistoryKind.CLOSE, 4403, "not here", "alice") == (entry.kind, entry.code, entry.reason, entry.user_id)


def test_refusals_of_one_client_for_one_reason_are_one_entry(clock: ManualClock) -> None:
    history = History(clock=clock)
    for client in ("192.0.2.1", "192.0.2.2") * 50:
        clock.advance(1)
        refuse(history, client)
    refuse(history, "192.0.2.1", reason="another")

    entries = history.entries(limit=9)

    assert {
        ("another", "192.0.2.1", 1),
        ("the token is invalid", "192.0.2.1", 50),
        ("the token is invalid", "192.0.2.2", 50),
    } == {(entry.reason, entry.client, entry.times) for entry in entries}
    assert {clock(), clock() - 1} == {entry.at for entry in entries}
    assert (4401, 401, "WebSocket /ws") == (entries[0].code, entries[0].status, entries[0].request)


async def test_a_flood_of_one_kind_evicts_no_other(manager: ConnectionManager, clock: ManualClock) -> None:
    history = manager.running.history
    connect(manager, since=nth(7))[0].drop(1001, "going away")
    for n in range(5_000):
        clock.advance(0.001)
        refuse(history, f"198.51.100.{n}")
        connect(manager)[0].drop(1000)
        connect(manager)[0].drop(4_500 + n % 400)

    entries = history.entries(limit=10_000)

    assert 2 + 3 * MAX_ALIKE == len(entries)
    assert {"reset", "close", "refused"} == {entry.kind for entry in entries}
    assert ["going away"] == [entry.reason for entry in entries if entry.code == 1001]
    newest = [entry.client for entry in entries if entry.kind == HistoryKind.REFUSED]
    assert [f"198.51.100.{n}" for n in range(4_999, 4_899, -1)] == newest
    [counts] = [counts for _, counts in history.minutes()]
    assert {
        ("reset", None): 1,
        ("close", 1001): 1,
        ("close", 1000): 5_000,
        ("close", None): 5_000,
        ("refused", 4401): 5_000,
    } == counts


def test_what_is_older_than_an_hour_is_neither_listed_nor_counted(clock: ManualClock) -> None:
    history = History(clock=clock)
    started_at = clock()
    refuse(history, "192.0.2.1")
    clock.advance(3_000)
    refuse(history, "192.0.2.2")
    before = history.since, len(history.entries(limit=9)), len(history.minutes())
    clock.advance(700)

    assert (started_at, 2, 2) == before
    assert (clock() - 3_600, 1, 1) == (history.since, len(history.entries(limit=9)), len(history.minutes()))
    clock.advance(3_600)
    assert ([], []) == (history.entries(limit=9), history.minutes())


def test_only_the_last_sixty_minutes_are_kept(clock: ManualClock) -> None:
    history = History(clock=clock)
    for _ in range(500):
        clock.advance(60)
        refuse(history, "192.0.2.1")

    assert 60 == sum(sum(counts.values()) for _, counts in history.minutes())


def test_the_newest_entries_come_first_and_can_be_of_one_kind(clock: ManualClock) -> None:
    history = History(clock=clock)
    for n in range(5):
        clock.advance(1)
        history.lost(f"user-{n}", nth(1), nth(2))
        refuse(history, f"192.0.2.{n}")

    assert ["user-4", "user-3"] == [entry.user_id for entry in history.entries(limit=2, kind="gap")]
    assert {clock()} == {entry.at for entry in history.entries(limit=2)}


def test_long_texts_are_shortened(clock: ManualClock) -> None:
    history = History(clock=clock)
    history.lost("u" * 5_000, nth(1), nth(2))
    refuse(history, "a" * 5_000, reason="r" * 5_000)
    # What is hidden of a forwarded address distinguishes no entries, each of which would hold all of it.
    refuse(history, "a" * 5_001, reason="r" * 5_000)

    assert [2] == [entry.times for entry in history.entries(limit=9, kind="refused")]
    for entry in history.entries(limit=9):
        assert all(len(text) <= MAX_TEXT for text in (entry.reason, entry.client or "", entry.user_id or ""))
    assert history.entries(limit=9, kind="gap")[0].user_id == "u" * 199 + "\N{HORIZONTAL ELLIPSIS}"


async def test_a_token_in_a_reason_is_removed_before_the_reason_is_shortened(manager: ConnectionManager) -> None:
    token = issue_token(SECRET, user_id="alice", expires_in=60)
    connect(manager)[1].close(4403, f"{'x' * 192} {token}")

    [entry] = manager.running.history.entries(limit=9)
    assert f"{'x' * 192} [redac" in entry.reason
    assert token[:4] not in entry.reason


async def test_a_recovery_over_rest_has_a_user_and_no_connection(manager: ConnectionManager) -> None:
    for _ in range(501):
        await manager.emit("a")
    page = manager.get_messages_since(nth(0), user_id=ALICE.user_id)

    manager.running.history.recovered(page.outcome, ALICE.user_id, since=nth(0), lost=page.lost)

    [entry] = manager.running.history.entries(limit=9)
    assert (HistoryKind.GAP, "alice", nth(1), nth(1)) == facts(entry)
    assert entry.connection_id is None
