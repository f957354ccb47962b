"""Ephemeral messages in the fan-out: live, after what was published before, and never late."""

import asyncio

from support import ALICE, BOB, connect, flushed, managed, nth, pause_over, shape, until
from unmissed import ConnectionManager, Identity
from unmissed.core.audience import EVERYONE
from unmissed.core.ephemeral import Ephemeral
from unmissed.delivery.fanout import SLICE
from unmissed.testing import FakeSocket, ManualClock


def kinds(socket: FakeSocket) -> list[str]:
    return [kind for kind, _ in shape(socket)[1:]]


async def test_an_ephemeral_message_has_no_number_and_is_not_stored(manager: ConnectionManager) -> None:
    socket, connection = connect(manager)

    await manager.publish({"type": "typing", "data": 1}, ephemeral=True)
    await until(lambda: kinds(socket))

    frame = socket.frames[-1]
    assert ({"type", "timestamp", "data"}, "typing") == (set(frame), frame["type"])
    assert (nth(0), 0, nth(0)) == (manager.window.latest, len(manager.window), connection.position)
    assert ["connected"] == [kind for kind, _ in shape(connect(manager)[0])]


async def test_it_comes_after_what_was_published_before_and_before_what_follows(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    await manager.emit("first")
    await manager.emit("typing", ephemeral=True)
    await manager.emit("second")
    await flushed(manager)
    await until(lambda: len(kinds(socket)) == 3)

    assert kinds(socket).index("first") < kinds(socket).index("typing")


async def test_only_those_who_may_see_it_get_it(manager: ConnectionManager) -> None:
    alice, bob = connect(manager, ALICE)[0], connect(manager, BOB)[0]
    carol = connect(manager, Identity("carol", topics=frozenset({"news"})))[0]

    await manager.publish_batch(
        [{"type": "for alice", "users": ["alice"]}, {"type": "for news", "topics": ["news"]}], ephemeral=True
    )
    await manager.emit("for all", ephemeral=True)
    await until(lambda: all(kinds(socket) for socket in (alice, bob, carol)))

    await until(lambda: [2, 1, 2] == [len(kinds(socket)) for socket in (alice, bob, carol)])
    assert [["for alice", "for all"], ["for all"], ["for news", "for all"]] == [*map(kinds, (alice, bob, carol))]


async def test_a_client_that_takes_no_data_or_is_behind_never_gets_it(manager: ConnectionManager) -> None:
    """The second socket pauses with an unread message, and the third without one."""
    reads, behind, stalled = (connect(manager)[0] for _ in range(3))
    behind.pause()
    await manager.emit("a")
    await flushed_but(manager, behind)
    stalled.pause()

    await manager.emit("typing", ephemeral=True)
    await until(lambda: "typing" in kinds(reads))
    behind.resume()
    stalled.resume()
    await manager.emit("b")
    await flushed(manager)

    assert [["a", "typing", "b"], ["a", "b"], ["a", "b"]] == [*map(kinds, (reads, behind, stalled))]
    assert 1 == manager.running.measures.ephemeral_delivered


async def flushed_but(manager: ConnectionManager, behind: FakeSocket) -> None:
    await until(lambda: sum(each.lag == 0 for each in manager.connections) == 2)
    assert [] == kinds(behind)


async def test_connections_of_later_slices_get_it_once_also_if_a_flush_must_be_finished(clock: ManualClock) -> None:
    async with managed(clock) as manager:
        sockets = [connect(manager, Identity(f"user-{n}"))[0] for n in range(2 * SLICE + 1)]
        await manager.emit("typing", ephemeral=True)
        reached = sum(bool(kinds(socket)) for socket in sockets)

        # It does not wait for the rest of the flush.
        manager.running._fan_out.flush()  # noqa: SLF001
        await asyncio.sleep(0)

    assert SLICE == reached
    assert {("typing",)} == {tuple(kinds(socket)) for socket in sockets}


async def test_a_client_whose_state_is_being_sent_is_not_up_to_date(manager: ConnectionManager) -> None:
    for n in range(3):
        await manager.publish({"type": "m", "key": str(n), "data": "x" * 60_000})
    await flushed(manager)
    await pause_over()
    live, (loading, _) = connect(manager)[0], connect(manager, state=True)
    parts = len(kinds(loading))

    await manager.emit("typing", ephemeral=True)
    await until(lambda: len(kinds(loading)) == 3)

    assert parts < 3
    assert (["typing"], ["state"] * 3) == (kinds(live), kinds(loading))


async def test_a_message_of_another_node_waits_for_what_came_before_it(
    manager: ConnectionManager, clock: ManualClock
) -> None:
    socket, _ = connect(manager)
    ends_at = clock() + 1.0
    live = [Ephemeral(b'{"type":"typing-%d"}' % n, EVERYONE, nth(n), ends_at) for n in (1, 3)]

    manager.running._fan_out.send_live(live)  # noqa: SLF001
    await manager.emit("first")
    await until(lambda: "typing-1" in kinds(socket))
    await manager.emit("second")
    clock.advance(1.0)
    await manager.emit("third", ephemeral=True)
    await until(lambda: "third" in kinds(socket))
    await manager.emit("fourth")
    await flushed(manager)

    assert ["first", "typing-1", "second", "third", "fourth"] == kinds(socket)
    assert 1 == manager.running.measures.ephemeral_dropped


async def test_what_a_client_is_sent_is_one_write_for_all_that_waits(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)
    await manager.emit("a")

    for n in range(3):
        await manager.emit(f"typing-{n}", ephemeral=True)
    await until(lambda: len(kinds(socket)) == 4)

    assert ["a", "typing-0", "typing-1", "typing-2"] == kinds(socket)
