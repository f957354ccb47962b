"""What clients ask for: publishing, and the limits for all requests."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from support import ManualLog, connect, flushed, managed, nth, nths, shape, until
from unmissed import ConnectionManager, Draft, Identity, Publication, Settings
from unmissed.logs.memory import MemoryLog
from unmissed.testing import FakeSocket, ManualClock

PUBLISHER = Identity("alice", scopes=frozenset({"messages:publish"}))


def publish(socket: FakeSocket, request_id: str = "c1", **message: Any) -> None:
    socket.receive(json.dumps({"type": "publish", "id": request_id, "message": {"type": "chat", **message}}))


async def answer_of(socket: FakeSocket, request_id: str = "c1") -> dict[str, Any]:
    """Wait for the last answer to this request."""

    def found() -> list[dict[str, Any]]:
        return [frame for frame in socket.frames if frame.get("id") == request_id]

    await until(found)
    return found()[-1]


async def test_a_client_publishes_and_is_told_the_number_after_the_message(manager: ConnectionManager) -> None:
    socket, other = connect(manager, PUBLISHER)[0], connect(manager)[0]
    await manager.emit("before")

    publish(socket, data={"text": "hello"})

    assert {"type": "published", "id": "c1", "sequence_number": nth(2)} == await answer_of(socket)
    assert [("before", nth(1)), ("chat", nth(2)), ("published", nth(2))] == shape(socket)[1:]
    await flushed(manager)
    assert [("before", nth(1)), ("chat", nth(2))] == shape(other)[1:]
    assert {"text": "hello"} == other.frames[-1]["data"]


async def test_the_answer_of_a_client_that_is_behind_comes_after_what_it_has_not_read(
    manager: ConnectionManager,
) -> None:
    """With an earlier answer, a client that stores the last number it saw would lose the messages before it."""
    socket, _ = connect(manager, PUBLISHER)
    socket.pause()
    await manager.emit("a")
    publish(socket)
    await until(lambda: manager.window.latest == nth(2))
    await manager.emit("b")

    socket.resume()

    await until(lambda: ("published", nth(2)) in shape(socket))
    frames = shape(socket)[1:]
    assert frames.index(("published", nth(2))) > frames.index(("chat", nth(2)))
    assert [("published", nth(2))] == frames[-1:]


async def test_a_repeated_publish_doubles_nothing_and_the_position_does_not_go_back(
    manager: ConnectionManager,
) -> None:
    lost = connect(manager, PUBLISHER)[0]
    publish(lost)
    await answer_of(lost)
    lost.drop()
    await manager.emit("later")
    socket, _ = connect(manager, PUBLISHER)

    publish(socket)

    assert {"type": "published", "id": "c1", "sequence_number": nth(1)} == await answer_of(socket)
    assert nth(2) == manager.window.latest
    assert [("published", nth(1))] == shape(socket)[1:]


async def test_an_id_is_for_one_message_of_one_user(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, PUBLISHER)
    bob, _ = connect(manager, Identity("bob", scopes=PUBLISHER.scopes))
    publish(socket, data=1)
    await answer_of(socket)
    publish(bob, data=2)
    assert nth(2) == (await answer_of(bob))["sequence_number"]

    publish(socket, data=2)

    await until(lambda: socket.frames[-1]["type"] == "error")
    assert (4400, "this idempotency key was used for another message: use a new key") == (
        socket.frames[-1]["code"],
        socket.frames[-1]["detail"],
    )


@pytest.mark.parametrize(
    ("identity", "message", "code", "detail"),
    [
        (Identity("alice"), {}, 4403, "publishing needs a token with the scope messages:publish"),
        (PUBLISHER, {"type": "gap"}, 4400, "the type 'gap' is reserved for the protocol"),
        (PUBLISHER, {"sequence_number": nth(1)}, 4400, "sequence_number is assigned by the server"),
        (
            PUBLISHER,
            {"data": "x" * 58_000, "topics": [f"{n:0200}" for n in range(25)]},
            4400,
            "the message with its audience is over",
        ),
    ],
)
async def test_a_refused_publish_uses_no_number_and_the_connection_stays(
    clock: ManualClock, identity: Identity, message: dict[str, Any], code: int, detail: str
) -> None:
    async with managed(clock, max_message_bytes=60_000) as manager:
        socket, _ = connect(manager, identity)
        for request_id in ("a", "b", "c", "d"):
            publish(socket, request_id, **message)

            answer = await answer_of(socket, request_id)

            assert ("error", code) == (answer["type"], answer["code"])
            assert answer["detail"].startswith(detail)
        assert nth(0) == manager.window.latest
        assert not socket.closed_with


async def test_a_message_that_is_no_object_is_refused(manager: ConnectionManager) -> None:
    socket, _ = connect(manager, PUBLISHER)
    socket.receive('{"type":"publish","id":"c1","message":[]}')

    assert (await answer_of(socket))["detail"].startswith("a message is an object such as")


class BrokenLog(MemoryLog):
    """A log that cannot store anything."""

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        raise RuntimeError(f"disk full: {len(drafts)} {idempotency_key}")


async def test_an_unexpected_error_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async with ConnectionManager(Settings.load(), log=BrokenLog()) as manager:
        socket, _ = connect(manager, PUBLISHER)
        publish(socket)

        answer = await answer_of(socket)

    assert 1011 == answer["code"]
    assert "disk full" not in json.dumps(answer)
    assert "disk full" in caplog.text


async def test_a_flood_of_messages_closes_the_connection_and_nobody_else_notices(clock: ManualClock) -> None:
    async with managed(clock, client_rate=10.0, client_burst=3) as manager:
        socket, other = connect(manager, PUBLISHER)[0], connect(manager)[0]
        for number in range(3):
            publish(socket, str(number))
        clock.advance(0.11)
        publish(socket, "3")
        await until(lambda: manager.window.latest == nth(4))
        assert not socket.closed_with

        publish(socket, "4")

        assert (4429, "too many messages: reconnect later, and send fewer") == socket.closed_with
        await flushed(manager)
        assert nths(1, 2, 3, 4) == [number for kind, number in shape(other) if kind == "chat"]


async def test_a_client_that_reconnects_after_a_flood_does_not_begin_with_a_full_burst(clock: ManualClock) -> None:
    async with managed(clock, client_rate=10.0, client_burst=3) as manager:
        for _ in range(2):
            socket, _ = connect(manager, PUBLISHER)
            for number in range(5):
                publish(socket, f"{clock()} {number}".replace(" ", "-"))
            assert socket.closed_with
        await flushed(manager)
        assert manager.window.latest <= nth(3)

        clock.advance(0.31)
        again, _ = connect(manager, PUBLISHER)
        for number in range(3):
            publish(again, f"again-{number}")

        assert not again.closed_with


async def test_the_connections_of_a_user_share_one_limit_and_other_users_do_not(clock: ManualClock) -> None:
    async with managed(clock, client_rate=10.0, client_burst=3) as manager:
        first, second, other = (connect(manager, identity)[0] for identity in (PUBLISHER, PUBLISHER, Identity("bob")))
        for number, socket in enumerate((first, second, first)):
            publish(socket, str(number))
        publish(second, "3")
        publish(other, "4")

        assert (4429, "too many messages: reconnect later, and send fewer") == second.closed_with
        assert [None, None] == [first.closed_with, other.closed_with]


async def test_a_publish_that_cannot_be_stored_is_answered_with_an_error_and_may_be_repeated(
    clock: ManualClock,
) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log, publish_seconds=0.02) as manager:
        socket, _ = connect(manager, PUBLISHER)
        log.lose("the store is away")

        publish(socket)

        answer = await answer_of(socket)
        assert ("error", "c1", 1013) == (answer["type"], answer["id"], answer["code"])
        assert "the log is unavailable: retry shortly (a publish with the same idempotency key)" == answer["detail"]
        assert None is socket.closed_with

        log.restore()
        publish(socket, "c2")

        assert {"type": "published", "id": "c2", "sequence_number": nth(1)} == await answer_of(socket, "c2")


async def test_an_ephemeral_message_is_answered_without_a_number_and_published_each_time(
    manager: ConnectionManager,
) -> None:
    socket, other = connect(manager, PUBLISHER)[0], connect(manager)[0]

    for _ in range(2):
        publish(socket, ephemeral=True)
    await until(lambda: sum(kind == "published" for kind, _ in shape(socket)) == 2)
    await until(lambda: sum(kind == "chat" for kind, _ in shape(other)) == 2)

    assert {"type": "published", "id": "c1"} == await answer_of(socket)
    assert nth(0) == manager.window.latest


async def test_an_ephemeral_message_needs_the_scope_for_publishing(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    publish(socket, ephemeral=True)

    assert ("error", 4403) == ((frame := await answer_of(socket))["type"], frame["code"])
