"""The WebSocket on a live server, on both sockets: bytes as a client sees them."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support import nth, nths
from unmissed.testing import LiveServer

Serve = Callable[..., LiveServer]


def opened(server: LiveServer, query: str = "", *, user_id: str = "alice", **options: Any) -> connect:
    headers = {"additional_headers": server.headers(user_id), **options}
    return connect(f"{server.websocket_url}{query}", proxy=None, **headers)


async def frame(websocket: ClientConnection) -> dict[str, Any]:
    taken: dict[str, Any] = json.loads(await asyncio.wait_for(websocket.recv(), 10))
    return taken


async def close_code(websocket: ClientConnection) -> int | None:
    with suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            while True:
                await websocket.recv()
    return websocket.close_code


async def test_the_first_frame_says_where_the_connection_starts(server: LiveServer) -> None:
    server.publish("before")

    async with opened(server) as websocket:
        connected = await frame(websocket)
        await asyncio.to_thread(server.publish, "after", {"x": 1})
        message = await frame(websocket)

    assert ("connected", nth(1), nth(1), nth(1)) == tuple(
        connected[key] for key in ("type", "sequence_number", "oldest", "latest")
    )
    assert ("after", nth(2), {"x": 1}) == (message["type"], message["sequence_number"], message["data"])


async def test_what_was_missed_comes_first_and_then_a_heartbeat(server: LiveServer) -> None:
    for number in range(3):
        server.publish("a", number)

    async with opened(server, f"?since={nth(1)}&epoch={server.manager.window.epoch}") as websocket:
        frames = [await frame(websocket) for _ in range(4)]

    assert ["connected", "a", "a", "heartbeat"] == [each["type"] for each in frames]
    assert nths(1, 2, 3, 3) == [each["sequence_number"] for each in frames]


async def test_a_token_may_come_as_a_subprotocol_that_is_not_echoed(server: LiveServer) -> None:
    async with connect(server.websocket_url, subprotocols=["unmissed.bearer", server.token()], proxy=None) as websocket:  # type: ignore[list-item]
        assert "connected" == (await frame(websocket))["type"]
        assert "unmissed.bearer" == websocket.subprotocol


@pytest.mark.parametrize("header", ["Bearer of.a.proxy", "Basic dXNlcjpwdw==", "Negotiate YII=", "Bearer "])
async def test_the_subprotocol_of_a_page_comes_before_the_header_of_a_proxy(server: LiveServer, header: str) -> None:
    for _ in range(2):
        async with connect(
            server.websocket_url,
            subprotocols=["unmissed.bearer", server.token()],  # type: ignore[list-item]
            additional_headers={"Authorization": header},
            proxy=None,
        ) as websocket:
            assert "connected" == (await frame(websocket))["type"]


async def test_a_token_in_the_url_comes_before_the_header_of_a_proxy_where_it_is_allowed(serve: Serve) -> None:
    server = serve(allow_query_token=True)
    url = f"{server.websocket_url}?token={server.token()}"
    async with connect(url, additional_headers={"Authorization": "Bearer of.a.proxy"}, proxy=None) as websocket:
        assert "connected" == (await frame(websocket))["type"]


async def test_a_token_may_come_in_the_first_frame(server: LiveServer) -> None:
    async with connect(server.websocket_url, proxy=None) as websocket:
        await websocket.send(json.dumps({"type": "authenticate", "token": server.token()}))

        assert "connected" == (await frame(websocket))["type"]


async def test_a_token_in_the_url_counts_only_where_it_is_allowed(serve: Serve) -> None:
    strict, relaxed = serve(), serve(allow_query_token=True)

    async with connect(f"{relaxed.websocket_url}?token={relaxed.token()}", proxy=None) as websocket:
        assert "connected" == (await frame(websocket))["type"]
    async with connect(f"{strict.websocket_url}?token={strict.token()}", proxy=None) as websocket:
        assert 4401 == await close_code(websocket)
        assert "set UNMISSED_ALLOW_QUERY_TOKEN" in (websocket.close_reason or "")


async def test_a_token_in_the_url_that_is_not_allowed_is_ignored_next_to_another(server: LiveServer) -> None:
    async with opened(server, f"?token={server.token('mallory')}") as websocket:
        assert "connected" == (await frame(websocket))["type"]


@pytest.mark.parametrize(
    ("query", "options", "code"),
    [
        ("", {"additional_headers": {"Authorization": "Bearer nonsense"}}, 4401),
        ("?since=abc", {"additional_headers": {"Authorization": "Bearer nonsense"}}, 4401),
        ("?since=abc", {}, 4400),
        ("?since=1&since=2", {}, 4400),
        ("", {"origin": "https://evil.example"}, 4403),
        ("", {"origin": "null"}, 4403),
    ],
)
async def test_a_refusal_is_a_close_code_that_a_browser_can_see(
    server: LiveServer, query: str, options: dict[str, Any], code: int
) -> None:
    async with opened(server, query, **options) as websocket:
        assert code == await close_code(websocket)
        assert websocket.close_reason


async def test_the_own_host_and_allowed_origins_may_connect(serve: Serve) -> None:
    server = serve(allowed_origins="https://app.example.com")

    for origin in (server.url, "https://app.example.com"):
        async with opened(server, origin=origin) as websocket:
            assert "connected" == (await frame(websocket))["type"]
    async with opened(server, origin="https://app.example.com.evil") as websocket:
        assert 4403 == await close_code(websocket)


async def test_a_refused_origin_is_named_with_the_host_in_the_close_reason(server: LiveServer) -> None:
    host = server.url.removeprefix("http://")

    async with opened(server, origin="https://evil.example") as websocket:
        await close_code(websocket)

    assert f"origin 'https://evil.example' does not match Host '{host}'" in (websocket.close_reason or "")


async def test_a_client_that_does_not_authenticate_is_closed_with_4408(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmissed.api.identity.AUTHENTICATION_SECONDS", 0.05)

    async with connect(server.websocket_url, proxy=None) as websocket:
        assert 4408 == await close_code(websocket)


async def test_too_many_connections_of_one_user_are_closed_with_4429(serve: Serve) -> None:
    server = serve(max_connections_per_user=1)

    async with opened(server) as first:
        await frame(first)
        async with opened(server) as second, opened(server, user_id="bob") as other:
            assert 4429 == await close_code(second)
            assert "connected" == (await frame(other))["type"]


async def test_nonsense_is_answered_and_then_ended_and_others_do_not_notice(server: LiveServer) -> None:
    async with opened(server) as other, opened(server) as websocket:
        await frame(other)
        await frame(websocket)
        for nonsense in ("{", b"\x00", '{"type":' + "9" * 5_000 + "}"):
            await websocket.send(nonsense)
            assert "error" == (await frame(websocket))["type"]

        assert 4400 == await close_code(websocket)
        await asyncio.to_thread(server.publish, "a")
        assert "a" == (await frame(other))["type"]


async def test_a_frame_over_the_limit_is_closed_with_1009(serve: Serve) -> None:
    server = serve()

    async with opened(server) as websocket:
        await frame(websocket)
        with suppress(ConnectionClosed):
            await websocket.send("x" * 17_000_000)

        assert 1009 == await close_code(websocket)


async def test_a_message_to_one_user_reaches_nobody_else(server: LiveServer) -> None:
    async with opened(server, user_id="alice") as alice, opened(server, user_id="bob") as bob:
        await frame(alice)
        await frame(bob)
        await asyncio.to_thread(server.publish, "secret", users=["alice"])
        await asyncio.to_thread(server.publish, "public")

        assert ["secret", "public"] == [(await frame(alice))["type"] for _ in range(2)]
        assert "public" == (await frame(bob))["type"]


async def test_a_restart_is_told_as_a_reset(server: LiveServer) -> None:
    for _ in range(3):
        server.publish("a")
    epoch = server.manager.window.epoch
    await asyncio.to_thread(server.restart)
    server.publish("b")

    async with opened(server, f"?since={nth(3)}&epoch={epoch}") as websocket:
        frames = [await frame(websocket) for _ in range(3)]

    assert "reset" == frames[0]["outcome"]
    assert epoch != frames[0]["epoch"]
    assert ["connected", "b", "heartbeat"] == [each["type"] for each in frames]


async def test_a_stop_says_when_to_come_back_and_closes_with_1012(server: LiveServer) -> None:
    async with opened(server) as websocket:
        await frame(websocket)
        stopping = asyncio.create_task(asyncio.to_thread(server.restart))

        assert "reconnect" == (await frame(websocket))["type"]
        assert 1012 == await close_code(websocket)
        await stopping


async def test_connections_that_are_gone_are_forgotten(server: LiveServer) -> None:
    async with opened(server) as websocket:
        await frame(websocket)
        assert 1 == len(server.manager.connections)
        websocket.transport.abort()

        while server.manager.connections:
            await asyncio.sleep(0)
