"""Rows 20, 21 and 24: a client that is gone without a word leaves nothing behind, and does not keep its user out."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.frames import Opcode

from raw_client import RawClient, authorization
from support import Serve, native_only, next_frame, portable_is_long, until
from unmissed.testing import LiveServer


@pytest.fixture
def pinged_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("liveness", "fanout"):
        monkeypatch.setattr(f"unmissed.delivery.{module}.PING_SECONDS", 1.0)


def users(server: LiveServer) -> set[str]:
    return {connection.identity.user_id for connection in server.manager.connections}


def connected(server: LiveServer, user_id: str) -> RawClient:
    return RawClient(server.url).handshake(authorization(server, user_id))


async def publish_steadily(server: LiveServer) -> None:
    """Publish 20 messages a second."""
    while True:
        await asyncio.to_thread(server.publish, "tick")
        await asyncio.sleep(0.05)


@native_only
@pytest.mark.usefixtures("pinged_each_second")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "20 messages a second"])
async def test_a_client_behind_a_cut_cable_is_dropped_and_others_are_not(server: LiveServer, *, busy: bool) -> None:
    publishing = asyncio.create_task(publish_steadily(server)) if busy else None
    async with connect(server.websocket_url, additional_headers=server.headers("healthy"), proxy=None) as healthy:
        with connected(server, "silent") as client:
            await until(lambda: {"healthy", "silent"} == users(server))
            client.silence()

            await until(lambda: {"healthy"} == users(server))
        if publishing is not None:
            publishing.cancel()
        await asyncio.to_thread(server.publish, "after")
        types = {"tick"}
        while "after" not in types:
            types.add((await next_frame(healthy))["type"])

        assert healthy.close_code is None


@native_only
async def test_a_user_whose_only_connection_is_silent_gets_in_again(serve: Serve) -> None:
    server = serve(max_connections_per_user=1)
    with connected(server, "alice") as silent:
        await until(lambda: {"alice"} == users(server))
        silent.silence()
        codes = await codes_until_admitted(server, attempts=100)

    assert {4429, None} == set(codes)
    assert None is codes[-1]


@portable_is_long
async def test_a_user_whose_only_connection_is_alive_does_not_get_in(serve: Serve) -> None:
    server = serve(max_connections_per_user=1)
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as alive:
        await alive.recv()
        codes = await codes_until_admitted(server, attempts=25)
        await asyncio.to_thread(server.publish, "after")

        assert [4429] * 25 == codes
        assert "after" == (await next_frame(alive))["type"]


async def codes_until_admitted(server: LiveServer, *, attempts: int) -> list[int | None]:
    """Return the close code of each attempt, eight a second, and None for the one that was admitted."""
    codes: list[int | None] = []
    while len(codes) < attempts and None not in codes:
        with RawClient(server.url) as client:
            client.handshake(authorization(server))
            opcode, data = await asyncio.to_thread(client.next_frame)
            codes.append(int.from_bytes(data[:2]) if opcode is Opcode.CLOSE else None)
        await asyncio.sleep(0.12)
    return codes


async def test_a_storm_of_resets_leaves_nothing_behind(server: LiveServer) -> None:
    for number in range(300):
        client = RawClient(server.url)
        if number % 3 == 0:
            client.send(b"GET /ws HTTP/1.1\r\nHost: te")
        elif number % 3 == 1:
            client.request(authorization(server))
        else:
            client.handshake(authorization(server))
        client.reset()

    await until(lambda: not server.manager.connections)
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        assert "connected" == (await next_frame(websocket))["type"]
