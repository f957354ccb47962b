"""What lives as long as a request, such as a database session, is released before an endless connection begins."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect

from event_client import EventClient
from support import SOCKETS, until
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.core.rest import EVENTS_PATH
from unmissed.testing import SECRET, LiveServer

pytestmark = pytest.mark.live

MOST = 2


class Pool:
    """Sessions of a database that has two."""

    def __init__(self) -> None:
        self.used = 0
        self.rolled_back = 0

    def take(self) -> None:
        if self.used == MOST:
            raise HTTPException(503, "all sessions of the database are in use")
        self.used += 1

    async def session(self) -> AsyncIterator[str]:
        self.take()
        try:
            yield "session"
        except BaseException:
            self.rolled_back += 1
            raise
        finally:
            self.used -= 1

    def session_in_a_thread(self) -> Iterator[str]:
        self.take()
        try:
            yield "session"
        finally:
            self.used -= 1


Declare = Callable[[ConnectionManager, Pool], FastAPI]


def by_authentication(manager: ConnectionManager, pool: Pool) -> FastAPI:
    async def authenticate(connection: HTTPConnection, _: Annotated[str, Depends(pool.session)]) -> Identity:
        if "x-refused" in connection.headers:
            raise HTTPException(401, "no such user")
        return Identity("alice")

    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=authenticate))
    return app


def by_a_thread(manager: ConnectionManager, pool: Pool) -> FastAPI:
    def authenticate(_: Annotated[str, Depends(pool.session_in_a_thread)]) -> Identity:
        return Identity("alice")

    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=authenticate))
    return app


def by_the_router(manager: ConnectionManager, pool: Pool) -> FastAPI:
    app = FastAPI(lifespan=manager.lifespan)
    router = create_router(manager, authenticate=lambda: Identity("alice"))
    app.include_router(router, dependencies=[Depends(pool.session)])
    return app


def by_the_application(manager: ConnectionManager, pool: Pool) -> FastAPI:
    app = FastAPI(lifespan=manager.lifespan, dependencies=[Depends(pool.session)])
    app.include_router(create_router(manager, authenticate=lambda: Identity("alice")))
    return app


DECLARED: dict[str, Declare] = {
    "authentication": by_authentication,
    "authentication in a thread": by_a_thread,
    "router": by_the_router,
    "application": by_the_application,
}


def served(declare: Declare, pool: Pool, socket: str) -> LiveServer:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    return LiveServer(declare(manager, pool), manager=manager, **SOCKETS[socket])


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("declare", DECLARED.values(), ids=DECLARED)
async def test_a_websocket_holds_nothing_that_its_handshake_needed(declare: Declare, socket: str) -> None:
    pool = Pool()
    async with AsyncExitStack() as clients:
        server = clients.enter_context(served(declare, pool, socket))
        for _ in range(MOST + 1):
            client = await clients.enter_async_context(connect(server.websocket_url))
            assert "connected" == json.loads(await client.recv())["type"]
            assert 0 == pool.used

    assert 0 == pool.rolled_back


@pytest.mark.parametrize("socket", SOCKETS)
@pytest.mark.parametrize("declare", DECLARED.values(), ids=DECLARED)
def test_an_event_stream_holds_nothing_that_its_request_needed(declare: Declare, socket: str) -> None:
    pool = Pool()
    with ExitStack() as clients:
        server = clients.enter_context(served(declare, pool, socket))
        for _ in range(MOST + 1):
            client = clients.enter_context(EventClient(server))
            assert ["connected"] == [event.type for event in client.events(1)]
            assert 0 == pool.used

    assert 0 == pool.rolled_back


@pytest.mark.parametrize("socket", SOCKETS)
async def test_a_refused_client_holds_nothing(socket: str) -> None:
    pool, refused = Pool(), {"x-refused": "yes"}
    with served(by_authentication, pool, socket) as server:
        async with connect(server.websocket_url, additional_headers=refused) as websocket:
            await websocket.wait_closed()
        async with httpx.AsyncClient() as client:
            stream = await client.get(server.url + EVENTS_PATH, headers=refused)
        await until(lambda: pool.used == 0)

    assert (4401, 401) == (websocket.close_code, stream.status_code)


@pytest.mark.parametrize("socket", SOCKETS)
async def test_a_session_that_cannot_be_closed_refuses_the_client(socket: str) -> None:
    async def authenticate() -> AsyncIterator[Identity]:
        yield Identity("alice")
        raise OSError

    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authenticate=authenticate))
    with LiveServer(app, manager=manager, **SOCKETS[socket]) as server:
        async with connect(server.websocket_url) as client:
            await client.wait_closed()

    assert 1011 == client.close_code
