"""The acceptance tests: what a client that comes back is given."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from support import FIRST, flushed, nth, nths
from unmissed import ConnectionManager, Identity, Settings, create_app, issue_token
from unmissed.testing import SECRET, FakeSocket, ManualClock

PATH = "/websocket/messages"


def headers(user_id: str = "alice") -> dict[str, str]:
    token = issue_token(SECRET, user_id=user_id, expires_in=60, scope="messages:publish")
    return {"Authorization": f"Bearer {token}"}


async def publish(manager: ConnectionManager, count: int) -> None:
    for number in range(1, count + 1):
        await manager.broadcast({"type": "count", "data": number})


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["sequence_number"] for message in messages]


def delivered(socket: FakeSocket) -> list[dict[str, Any]]:
    return [frame for frame in socket.frames if "timestamp" in frame]


async def test_ac1_a_request_with_a_valid_token_is_answered(client: httpx.AsyncClient) -> None:
    response = await client.get(PATH, params={"since": 0})

    assert 200 == response.status_code
    assert [] == response.json()["messages"]


async def test_ac2_only_messages_after_since_are_returned(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    await publish(manager, 5)

    response = await client.get(PATH, params={"since": nth(3)})

    assert nths(4, 5) == numbers(response.json()["messages"])
    assert "complete" == response.json()["outcome"]


async def test_ac3_the_list_is_empty_when_nothing_is_new(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    await publish(manager, 5)

    response = await client.get(PATH, params={"since": nth(5)})

    assert [] == response.json()["messages"]
    assert "complete" == response.json()["outcome"]


async def test_ac4_of_501_messages_the_newest_500_are_returned_and_the_gap_is_told(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    await publish(manager, 501)

    body = (await client.get(PATH, params={"since": 0})).json()

    assert nths(*range(2, 502)) == numbers(body["messages"])
    assert "gap" == body["outcome"]
    assert (nth(2), nth(501)) == (body["oldest"], body["latest"])


async def test_what_a_client_lost_from_0_on_begins_with_the_first_number_of_the_epoch(clock: ManualClock) -> None:
    """The interval from 0 would have more than 10^15 numbers."""
    app = create_app(Settings.load(jwt_secret=SECRET, first_number=FIRST, max_messages=2), clock=clock)
    manager: ConnectionManager = app.state.manager
    socket, transport = FakeSocket(), httpx.ASGITransport(app)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers()) as client:
        await publish(manager, 3)

        body = (await client.get(PATH, params={"since": 0})).json()
        manager.connect(socket, identity=Identity("alice"), since=0)

        assert "gap" == body["outcome"]
        assert (FIRST, FIRST + 1) == (body["first"], body["oldest"])
        assert (FIRST, FIRST + 1) == (socket.frames[0]["first"], socket.frames[0]["oldest"])


async def test_a_client_that_saw_the_last_evicted_message_has_no_gap(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    await publish(manager, 501)

    body = (await client.get(PATH, params={"since": nth(1)})).json()

    assert 500 == len(body["messages"])
    assert "complete" == body["outcome"]


@pytest.mark.parametrize(("age", "kept"), [(899.999, nths(1)), (900.0, [])])
async def test_ac5_a_message_is_kept_until_it_is_900_seconds_old(
    client: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock, age: float, kept: list[int]
) -> None:
    await publish(manager, 1)
    clock.advance(age)

    body = (await client.get(PATH, params={"since": 0})).json()

    assert kept == numbers(body["messages"])
    assert ("complete" if kept else "gap") == body["outcome"]


async def test_a_window_emptied_by_age_is_complete_only_for_a_client_that_saw_everything(
    client: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    await publish(manager, 3)
    clock.advance(900)

    outcomes = [(await client.get(PATH, params={"since": since})).json()["outcome"] for since in nths(2, 3, 4)]

    assert ["gap", "complete", "reset"] == outcomes


@pytest.mark.parametrize("query", ["since=0", "since=abc", ""])
async def test_ac7_without_a_token_the_answer_is_401_whatever_else_is_wrong(
    client: httpx.AsyncClient, query: str
) -> None:
    response = await client.get(f"{PATH}?{query}", headers={"Authorization": ""})

    assert 401 == response.status_code
    assert "Bearer" == response.headers["www-authenticate"]
    assert "application/problem+json" == response.headers["content-type"]


async def test_ten_connections_and_one_broadcast_take_one_number(manager: ConnectionManager) -> None:
    sockets = [FakeSocket() for _ in range(10)]
    for socket in sockets:
        manager.connect(socket, identity=Identity("alice"))

    await publish(manager, 3)
    await flushed(manager)

    assert nth(3) == manager.window.latest
    assert [numbers(delivered(socket)) for socket in sockets] == [nths(1, 2, 3)] * 10


async def test_live_and_recovered_bytes_are_the_same_for_every_client(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    sockets = [FakeSocket() for _ in range(3)]
    for socket in sockets:
        manager.connect(socket, identity=Identity("alice"))
    await manager.broadcast({"type": "note", "data": {"text": "Grüße 👋", "at": datetime(2026, 1, 31, tzinfo=UTC)}})
    await flushed(manager)

    response = await client.get(PATH, params={"since": 0})

    live = {socket.payloads[-1] for socket in sockets}
    assert 1 == len(live)
    assert live.pop() in response.content
    assert "Grüße 👋".encode() in response.content


async def test_what_is_published_while_nobody_is_connected_is_recovered(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    await publish(manager, 2)

    body = (await client.get(PATH, params={"since": 0})).json()

    assert nths(1, 2) == numbers(body["messages"])


async def test_a_failed_send_loses_nothing(manager: ConnectionManager) -> None:
    broken, healthy = FakeSocket(), FakeSocket()
    manager.connect(broken, identity=Identity("alice"))
    manager.connect(healthy, identity=Identity("bob"))
    broken.drop()

    await publish(manager, 2)
    await flushed(manager)
    back = FakeSocket()
    manager.connect(back, identity=Identity("alice"), since=0, epoch=manager.window.epoch)

    assert nths(1, 2) == numbers(delivered(healthy))
    assert nths(1, 2) == numbers(delivered(back))


async def test_a_restart_is_told_as_a_reset(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    await publish(manager, 3)
    epoch = manager.window.epoch
    await manager.__aexit__(None, None, None)
    await manager.__aenter__()
    await publish(manager, 5)

    for query in (f"since={nth(2)}", f"since={nth(2)}&epoch={epoch}", f"since={nth(7)}&epoch={epoch}"):
        body = (await client.get(f"{PATH}?{query}")).json()

        assert "reset" == body["outcome"]
        assert nths(5, 6, 7, 8, 9) == numbers(body["messages"])
        assert epoch != body["epoch"]


async def test_a_message_to_the_user_of_a_connection_is_seen_and_recovered_by_nobody_else(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    alice, elsewhere, bob = FakeSocket(), FakeSocket(), FakeSocket()
    connection = manager.connect(alice, identity=Identity("alice"))
    manager.connect(elsewhere, identity=Identity("alice"))
    manager.connect(bob, identity=Identity("bob"))

    await manager.send_message(connection.id, {"type": "secret", "data": 42})
    await flushed(manager)

    assert nths(1) == numbers(delivered(alice)) == numbers(delivered(elsewhere))
    assert [] == delivered(bob)
    for user_id, expected in (("alice", nths(1)), ("bob", [])):
        body = (await client.get(PATH, headers=headers(user_id))).json()
        assert expected == numbers(body["messages"])
        assert ("complete", nth(1)) == (body["outcome"], body["latest"])


async def test_limit_pages_through_what_is_visible(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    await publish(manager, 2)
    await manager.publish({"type": "private"}, users=["bob"])
    await publish(manager, 2)

    pages, since, more = [], 0, True
    while more:
        body = (await client.get(PATH, params={"since": since, "limit": 2})).json()
        pages.append(numbers(body["messages"]))
        since, more = pages[-1][-1], body["has_more"]

    assert [nths(1, 2), nths(4, 5)] == pages


def plain_clients(seed: int) -> Iterator[int]:
    """Yield how many messages are published before a client that knows only ``since`` asks again."""
    chance = random.Random(seed)
    while True:
        yield chance.randrange(0, 60)


@pytest.mark.parametrize("seed", range(5))
async def test_a_plain_client_that_knows_only_since_misses_and_doubles_nothing(
    client: httpx.AsyncClient, manager: ConnectionManager, seed: int
) -> None:
    seen: list[int] = []
    for count in plain_clients(seed):
        await publish(manager, count)
        last = seen[-1] if seen else 0
        seen += numbers((await client.get(PATH, params={"since": last})).json()["messages"])
        if manager.window.latest > nth(500):
            break

    assert [*range(FIRST, manager.window.latest + 1)] == seen
