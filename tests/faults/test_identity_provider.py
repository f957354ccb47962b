"""Keys that rotate under live connections, a provider that is away, and verifiers of an application."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from event_client import EventClient
from identity_provider import IdentityProvider, jwk_of, token_by
from support import LOGGED, SOCKETS, next_frame, until, wait_until
from unmissed import (
    Bearer,
    ConnectionManager,
    Identity,
    JwtVerifier,
    Settings,
    create_router,
    get_identity,
    issue_token,
)
from unmissed.core.errors import InvalidToken
from unmissed.testing import SECRET, LiveServer

OLD, NEW = SECRET, "another-secret-of-more-than-32-bytes-0123456789"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider() as running:
        yield running


@pytest.fixture(params=SOCKETS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of uvicorn for the socket under test."""
    return {**SOCKETS[request.param], **LOGGED}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def opened(server: LiveServer, token: str) -> ClientConnection:
    """Return a connection that has received its first frame."""
    websocket = await connect(server.websocket_url, additional_headers=bearer(token), proxy=None)
    assert "connected" == (await next_frame(websocket))["type"]
    return websocket


async def renewed(websocket: ClientConnection, token: str) -> dict[str, Any]:
    await websocket.send(json.dumps({"type": "authenticate", "token": token}))
    return await next_frame(websocket)


async def close_code(url: str, token: str) -> int:
    """Return the code that a connection with this token is closed with."""
    async with connect(url, additional_headers=bearer(token), subprotocols=["x"], proxy=None) as websocket:  # type: ignore[list-item]  # any name
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    assert closed.value.rcvd
    return closed.value.rcvd.code


@pytest.mark.parametrize("transport", ["websocket", "first frame", "rest", "events"])
async def test_a_key_that_the_server_does_not_know_yet_opens_every_transport(
    provider: IdentityProvider, options: dict[str, Any], transport: str
) -> None:
    token = token_by("second")
    with LiveServer(settings=Settings.load(jwks_url=provider.url), **options) as server:
        provider.publish(jwk_of("first"), jwk_of("second"))
        match transport:
            case "websocket":
                await (await opened(server, token)).close()
            case "first frame":
                async with connect(server.websocket_url, proxy=None) as websocket:
                    assert "connected" == (await renewed(websocket, token))["type"]
            case "rest":
                async with httpx.AsyncClient(base_url=server.url, headers=bearer(token)) as http:
                    assert 200 == (await http.get("/websocket/messages")).status_code
            case _:
                with EventClient(server, headers=bearer(token)) as client:
                    assert "connected" == client.events(1)[0].type

    assert 2 == provider.asked


async def test_a_provider_that_rotates_disconnects_nobody(provider: IdentityProvider, options: dict[str, Any]) -> None:
    with LiveServer(settings=Settings.load(jwks_url=provider.url), **options) as server:
        users = [f"u{number}" for number in range(100)]
        websockets = await asyncio.gather(*(opened(server, token_by("first", sub=user)) for user in users))
        provider.publish(jwk_of("second"))

        renewing = [renewed(each, token_by("second", sub=user)) for user, each in zip(users, websockets, strict=True)]
        answers = await asyncio.gather(*renewing)
        connected = len(server.manager.connections)
        await asyncio.gather(*(each.close() for each in websockets))

    assert ({"authenticated"}, 100) == ({answer["type"] for answer in answers}, connected)
    assert 2 == provider.asked


async def test_a_server_without_its_provider_is_not_ready_and_refuses_no_token_for_good(
    provider: IdentityProvider, options: dict[str, Any]
) -> None:
    provider.stop()
    token = token_by("first")
    with LiveServer(settings=Settings.load(jwks_url=provider.url), **options) as server:
        async with httpx.AsyncClient(base_url=server.url, headers=bearer(token)) as http:
            ready, page = await http.get("/readyz"), await http.get("/websocket/messages")
            code = await close_code(server.websocket_url, token)
            provider.start()

            async def is_ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await until(is_ready)
            later = await http.get("/websocket/messages")
        await (await opened(server, token)).close()

    assert (503, 503, 1013, 200) == (ready.status_code, page.status_code, code, later.status_code)
    assert "urn:unmissed:problem:service-unavailable" == page.json()["type"]
    assert "1" == page.headers["retry-after"]
    assert "the keys of the identity provider are not available" in page.json()["detail"] == ready.json()["detail"]


async def test_a_mounted_application_whose_lifespan_does_not_run_is_ready_and_loads_keys_for_a_token(
    provider: IdentityProvider, options: dict[str, Any]
) -> None:
    manager = ConnectionManager(Settings.load(jwks_url=provider.url))
    mounted, app = FastAPI(), FastAPI(lifespan=manager.lifespan)
    mounted.include_router(create_router(manager))
    app.mount("/live", mounted)
    with LiveServer(app, manager=manager, **options) as server:
        async with httpx.AsyncClient(base_url=f"{server.url}/live", headers=bearer(token_by("first"))) as http:
            paths = ("/readyz", "/readyz/clients", "/websocket/messages")
            statuses = [(await http.get(path)).status_code for path in paths]

    assert [200, 200, 200] == statuses


async def test_known_keys_work_while_the_provider_hangs_and_the_event_loop_goes_on(
    provider: IdentityProvider, options: dict[str, Any]
) -> None:
    with LiveServer(settings=Settings.load(jwks_url=provider.url), **options) as server:
        provider.answering.clear()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            waiting = asyncio.create_task(http.get("/websocket/messages", headers=bearer(token_by("unknown"))))
            await until(lambda: provider.asked == 2)
            known = [await http.get("/websocket/messages", headers=bearer(token_by("first"))) for _ in range(5)]
            websocket = await opened(server, token_by("first", sub="bob"))
            assert not waiting.done()
            provider.answering.set()
            refused = await waiting
        await websocket.close()

    assert ([200] * 5, 401) == ([answer.status_code for answer in known], refused.status_code)


async def test_a_secret_that_is_rotated_under_a_hundred_connections_logs_nobody_out(options: dict[str, Any]) -> None:
    """Each client reconnects with the token that it has, and renews it with one of either secret."""

    def token(number: int, secret: str) -> str:
        return issue_token(secret, user_id=f"u{number}", expires_in=600)

    before, during = (
        Settings.load(jwt_secret=OLD, drain_seconds=0.1),
        Settings.load(jwt_secret=NEW, jwt_previous_secret=OLD),
    )
    with LiveServer(settings=before, **options) as server:
        first = await asyncio.gather(*(opened(server, token(number, OLD)) for number in range(100)))
    for each in first:
        await each.wait_closed()
    with LiveServer(settings=during, **options) as server:
        tokens = [token(number, OLD if number % 4 else NEW) for number in range(100)]
        second = await asyncio.gather(*(opened(server, each) for each in tokens))
        renewing = [renewed(each, token(number, (OLD, NEW)[number % 2])) for number, each in enumerate(second)]
        answers = await asyncio.gather(*renewing)
        server.call(server.manager.running.check)
        connected, own = len(server.manager.connections), server.token()
        await asyncio.gather(*(each.close() for each in second))

    assert {1012} == {each.close_code for each in first}
    assert {"authenticated"} == {answer["type"] for answer in answers}
    assert 100 == connected
    # What the server itself issues is signed with the new secret.
    assert "alice" == JwtVerifier(NEW).verify(own).user_id


class Sessions:
    """Looks tokens up in a table, as an application with sessions of its own does."""

    def __init__(self) -> None:
        self.asked = 0

    async def verify(self, token: str) -> Identity:
        self.asked += 1
        await asyncio.sleep(0)
        if not token.startswith("session-"):
            raise InvalidToken("the session has ended")
        return Identity(token.removeprefix("session-"), scopes=frozenset({"messages:publish"}))


async def test_an_async_verifier_serves_every_route_the_handshake_and_renewals(options: dict[str, Any]) -> None:
    sessions, manager = Sessions(), ConnectionManager(Settings.load())
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=Bearer(sessions)))

    @app.get("/me")
    async def me(identity: Annotated[Identity, Depends(get_identity)]) -> str:
        return identity.user_id

    with LiveServer(app, manager=manager, **options) as server:
        async with httpx.AsyncClient(base_url=server.url, headers=bearer("session-alice")) as http:
            answers = [
                await http.post("/websocket/messages", json={"type": "a"}),
                await http.get("/websocket/messages"),
                await http.get("/me"),
                await http.get("/websocket/messages", headers=bearer("other")),
                await http.get("/websocket/status"),
            ]
        websocket = await opened(server, "session-alice")
        accepted, refused = await renewed(websocket, "session-alice"), await renewed(websocket, "other")
        async with connect(server.websocket_url, proxy=None) as late:
            await late.send('{"type":"authenticate","token":"session-bob"}')
            by_frame = await next_frame(late)
        code = await close_code(server.websocket_url, "other")
        with EventClient(server, headers=bearer("session-carol")) as client:
            events = client.events(1)
        await websocket.close()

    assert [201, 200, 200, 401, 403] == [answer.status_code for answer in answers]
    assert ("authenticated", "error", 4401) == (accepted["type"], refused["type"], refused["code"])
    assert ("connected", 4401, "connected") == (by_frame["type"], code, events[0].type)


async def test_a_function_in_code_decides_who_a_token_of_a_provider_is(
    provider: IdentityProvider, options: dict[str, Any]
) -> None:
    manager = ConnectionManager(Settings.load(jwks_url=provider.url, jwt_audience="chat"))
    app = FastAPI(lifespan=manager.lifespan)
    by_object_id = Bearer.of(manager.settings, identity=lambda claims: Identity(claims["oid"]))
    app.include_router(create_router(manager, authenticate=by_object_id))
    with LiveServer(app, manager=manager, **options) as server:
        wait_until(lambda: provider.asked == 1)
        websocket = await opened(server, token_by("first", oid="42", aud=["chat"]))
        [connection] = server.manager.connections
        assert "42" == connection.identity.user_id
        await websocket.close()


def test_two_applications_in_one_process_share_nothing_of_a_provider(provider: IdentityProvider) -> None:
    settings = Settings.load(jwks_url=provider.url)
    with ExitStack() as stack:
        servers = [stack.enter_context(LiveServer(settings=settings, **LOGGED)) for _ in range(2)]
        answers = [
            httpx.get(f"{each.url}/websocket/messages", headers=bearer(token_by("first"))).status_code
            for each in servers
        ]

    assert ([200, 200], 2) == (answers, provider.asked)
