"""One node among several: managers that share a log."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from engines import RedisServer
from support import ALICE, connect, flushed, shape, until
from unmissed import ConnectionManager, Identity, Settings, UnknownConnection
from unmissed.testing import SECRET

Managers = list[ConnectionManager]


async def test_a_message_reaches_its_users_and_topics_on_every_node(managers: Managers) -> None:
    one, two, three = managers
    alice, _ = connect(one, ALICE)
    bob, _ = connect(two, Identity("bob", topics=frozenset({"news"})))

    await three.emit("for alice", users=["alice"])
    await three.emit("for news", topics=["news"])
    await three.emit("for everyone")
    await until(lambda: len({manager.window.latest for manager in managers}) == 1)
    for manager in managers:
        await flushed(manager)

    assert ["for alice", "for everyone"] == [kind for kind, _ in shape(alice)[1:]]
    assert ["for news", "for everyone"] == [kind for kind, _ in shape(bob)[1:]]


async def test_users_of_every_node_are_counted(managers: Managers) -> None:
    one, two, three = managers
    connect(one, ALICE)
    connect(two, ALICE)
    connect(two, Identity("bob", topics=frozenset({"news"})))

    assert {"alice": 2, "bob": 1} == await three.users()
    assert {"bob": 1} == await one.users("news")


async def test_the_followers_of_a_topic_are_listed_and_counted_over_all_nodes(managers: Managers) -> None:
    one, two, three = managers
    for manager, names in ((one, "abz"), (two, "bcb"), (three, "a")):
        for name in names:
            connect(manager, Identity(name, topics=frozenset({"news"})))

    every, first = await one.followers("news", limit=4), await three.followers("news", limit=2)

    assert ({"a": 2, "b": 3, "c": 1, "z": 1}, 4, 7) == (every.users, every.total_users, every.total_connections)
    assert ({"a": 2, "b": 3}, 7) == (first.users, first.total_connections)
    assert 4 <= first.total_users <= 6


async def test_send_message_says_that_the_connection_is_elsewhere(managers: Managers) -> None:
    one, two, _ = managers
    _, connection = connect(one, ALICE)
    latest = two.window.latest

    with pytest.raises(UnknownConnection, match=f"another node, {one.running.node_id}, has the connection") as refusal:
        await two.send_message(connection.id, {"type": "a"})

    assert one.running.node_id == refusal.value.node
    assert latest == two.window.latest


@pytest.mark.live
async def test_nodes_of_another_database_or_name_or_secret_of_one_redis_hear_nothing(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = redis_server.url.removesuffix("0")
    production = {"log_url": f"{server}0?name=shop", "jwt_secret": SECRET}
    strangers = (
        {"log_url": f"{server}1?name=shop", "jwt_secret": SECRET},
        {"log_url": f"{server}0?name=staging", "jwt_secret": SECRET},
        {"log_url": f"{server}0?name=shop", "jwt_secret": f"another {SECRET}"},
    )
    async with AsyncExitStack() as stack:
        # Together, since each waits a second for other nodes.
        one, two, *others = await asyncio.gather(
            *(
                stack.enter_async_context(ConnectionManager(Settings.load(**settings)))
                for settings in (production, production, *strangers)
            )
        )
        socket, connection = connect(one, Identity("alice", issued_at=1.0))
        await until(lambda: one.running.cluster.nodes.others and two.running.cluster.nodes.others)

        for stranger in others:
            assert {} == await stranger.users()
            assert 0 == await stranger.log_out("alice")
            with pytest.raises(UnknownConnection):
                await stranger.log_out_connection(connection.id)

        assert {"alice": 1} == await two.users()
        assert socket.closed_with is None
    assert "ignoring notes that no node of this log has sent" in caplog.text


async def test_ephemeral_messages_reach_the_clients_of_every_node_once_and_after_what_came_before(
    managers: Managers,
) -> None:
    one, two, three = managers
    sockets = [connect(manager, ALICE)[0] for manager in managers]

    await two.emit("before")
    await two.emit("typing", {"é": 1}, users=["alice"], ephemeral=True)
    await two.emit("after")
    await until(lambda: all(len(shape(socket)) == 4 for socket in sockets))

    for socket in sockets:
        kinds = [kind for kind, _ in shape(socket)[1:]]
        assert kinds.index("before") < kinds.index("typing")
    assert 1 == len({payload for socket in sockets for payload in socket.payloads if b"typing" in payload})
    assert [0, 1, 0] == [manager.running.measures.ephemeral_published for manager in (one, two, three)]
