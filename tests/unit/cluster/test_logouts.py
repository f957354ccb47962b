"""Logouts over several nodes: managers that share a log."""

import asyncio
import math
import signal
import time
from pathlib import Path

import pytest

from engines import NatsServer, RedisServer
from support import ALICE, connect, shape, until
from unmissed import ConnectionManager, Identity, InvalidToken, LogUnavailable, Settings, UnknownConnection
from unmissed.cluster.listing import ConnectionQuery

Managers = list[ConnectionManager]


async def test_a_user_is_logged_out_on_every_node(managers: Managers) -> None:
    one, two, three = managers
    identity = Identity("alice", issued_at=1.0)
    sockets = [connect(manager, identity)[0] for manager in (one, two)]

    assert 2 == await three.log_out("alice")

    assert [(4401, "logged out: log in again")] * 2 == [socket.closed_with for socket in sockets]
    for manager in managers:
        with pytest.raises(InvalidToken):
            manager.check_identity(identity)


async def test_one_connection_of_another_node_is_logged_out(managers: Managers) -> None:
    one, two, _ = managers
    first, second = Identity("alice", issued_at=1.0), Identity("alice", issued_at=2.0)
    ended, connection = connect(one, first)
    other, _ = connect(two, second)

    await two.log_out_connection(connection.id)

    assert (4401, "logged out: log in again") == ended.closed_with
    assert other.closed_with is None
    for manager in managers:
        manager.check_identity(second)
        with pytest.raises(InvalidToken):
            manager.check_identity(first)


async def test_refusing_a_token_closes_every_connection_that_uses_it_on_every_node(managers: Managers) -> None:
    token, renewed = Identity("alice", issued_at=1.0, expires_at=4e9), Identity("alice", issued_at=2.0, expires_at=4e9)
    ended, connection = connect(managers[0], token)
    connection.renewed(renewed, expires_at=math.inf)
    with_token = [connect(manager, identity)[0] for manager in managers for identity in (token, renewed)]
    others = [connect(manager, Identity("alice", issued_at=3.0))[0] for manager in managers]

    await managers[2].log_out_connection(connection.id)

    assert [(4401, "logged out: log in again")] * 7 == [socket.closed_with for socket in (ended, *with_token)]
    assert [None] * 3 == [socket.closed_with for socket in others]
    for manager in managers:
        for identity in (token, renewed):
            with pytest.raises(InvalidToken):
                manager.check_identity(identity)


async def test_a_logout_covers_tokens_that_only_another_node_knows_and_no_later_ones(managers: Managers) -> None:
    ahead, far = time.time() + 60, time.time() + 1e6
    known = [
        Identity("alice", issued_at=ahead),
        Identity("alice", issued_at=far),
        Identity("alice", expires_at=far),
    ]
    sockets = [connect(managers[1], identity)[0] for identity in known]

    assert 3 == await managers[0].log_out("alice")

    assert all(socket.closed_with for socket in sockets)
    for manager in managers:
        for identity in (*known, Identity("alice", issued_at=ahead - 1)):
            with pytest.raises(InvalidToken):
                manager.check_identity(identity)
        for issued_at, expires_at in ((ahead + 1, None), (far + 1, None), (None, far + 1)):
            manager.check_identity(Identity("alice", issued_at=issued_at, expires_at=expires_at))


async def test_a_user_without_tokens_is_logged_out_and_may_come_back(managers: Managers) -> None:
    """What an application authenticates by itself, such as a session: it ends the session."""
    sockets = [connect(manager, ALICE)[0] for manager in managers]

    assert 3 == await managers[0].log_out("alice")
    [back, *_] = [connect(manager, ALICE)[0] for manager in managers]

    assert all(socket.closed_with for socket in sockets)
    assert back.closed_with is None


async def test_who_logs_in_again_is_not_logged_out_when_nodes_repeat_what_they_know(managers: Managers) -> None:
    await managers[0].log_out("alice")
    socket, _ = connect(managers[1], Identity("alice", issued_at=time.time()))

    async with ConnectionManager(managers[0].settings) as late:
        socket_late, _ = connect(late, Identity("alice", issued_at=time.time()))
        await managers[2].log_out("bob")

    assert socket.closed_with is None
    assert (1012, "the server is shutting down: reconnect shortly") == socket_late.closed_with


async def test_a_client_of_another_node_is_told_to_reconnect(managers: Managers) -> None:
    socket, connection = connect(managers[0], ALICE)
    stays, _ = connect(managers[1], ALICE)

    await managers[2].reconnect(connection.id)

    assert (1012, "disconnected by an operator: reconnect") == socket.closed_with
    assert stays.closed_with is None


async def test_a_connection_that_no_node_has_cannot_be_closed(managers: Managers) -> None:
    for close in (managers[0].log_out_connection, managers[0].reconnect):
        with pytest.raises(UnknownConnection):
            await close("nobody")


async def test_a_node_that_starts_later_knows_who_was_logged_out(managers: Managers) -> None:
    identity = Identity("alice", issued_at=1.0)
    await managers[0].log_out("alice")

    async with ConnectionManager(managers[0].settings) as late:
        with pytest.raises(InvalidToken):
            late.check_identity(identity)
        socket, _ = connect(late, Identity("alice", issued_at=4e9))
        await managers[0].emit("a")
        await until(lambda: ("a", late.window.latest) in shape(socket))


@pytest.mark.live
@pytest.mark.parametrize("engine", [RedisServer, pytest.param(NatsServer, marks=pytest.mark.long)])
@pytest.mark.parametrize("stop", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_logout_and_presence_say_that_other_nodes_could_not_be_reached(
    engine: type[RedisServer | NatsServer], stop: signal.Signals, tmp_path: Path
) -> None:
    identity = Identity("alice", issued_at=1.0)
    with engine(tmp_path) as server:
        async with ConnectionManager(Settings.load(log_url=server.url)) as manager:
            socket, _ = connect(manager, identity)
            await manager.log_out("nobody")
            server.signal(stop)

            # Together, since each waits a second for the other nodes.
            logged_out, *others = await asyncio.gather(
                manager.log_out("alice"),
                manager.users(),
                manager.running.cluster.listing.page(ConnectionQuery(limit=1)),
                manager.reconnect("other.1"),
                return_exceptions=True,
            )

            assert [LogUnavailable] * 4 == [type(each) for each in (logged_out, *others)]
            assert "only this node is certain to refuse the tokens" in str(logged_out)
            assert (4401, "logged out: log in again") == socket.closed_with
            with pytest.raises(InvalidToken):
                manager.check_identity(identity)
            assert not manager.connections
