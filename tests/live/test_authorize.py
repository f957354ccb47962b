"""An application that decides who may follow a topic, on both sockets."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support import LOGGED, SOCKETS
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.testing import SECRET, LiveServer


async def member_of_rooms(identity: Identity, topic: str) -> bool:
    return identity.grants(topic) and not topic.endswith(".closed")


async def answer(websocket: ClientConnection, **frame: Any) -> dict[str, Any]:
    await websocket.send(json.dumps(frame))
    found: dict[str, Any] = json.loads(await websocket.recv())
    return found


@pytest.mark.parametrize("kind", SOCKETS)
async def test_it_is_asked_at_the_connect_and_for_each_topic_that_is_followed_later(kind: str) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    app.include_router(create_router(manager, authorize=member_of_rooms))
    with LiveServer(app, manager=manager, settings=manager.settings, **SOCKETS[kind], **LOGGED) as server:
        token = server.token(topics=["rooms.*", "news", "news.closed"])
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(server.websocket_url, additional_headers=headers) as websocket:
            assert ["news"] == json.loads(await websocket.recv())["topics"]
            followed = await answer(websocket, type="follow", topics=["rooms.1"])
            refused = await answer(websocket, type="follow", topics=["rooms.closed"])
            renewed = await answer(websocket, type="authenticate", token=server.token(topics=["rooms.*"]))

            with pytest.raises(ConnectionClosed) as closed:
                async with connect(f"{server.websocket_url}?topics=rooms.closed", additional_headers=headers) as other:
                    await other.recv()

    assert (["rooms.1"], []) == (followed["added"], followed["removed"])
    assert (4403, "error") == (refused["code"], refused["type"])
    assert ([], ["news"]) == (renewed["added"], renewed["removed"])
    assert closed.value.rcvd
    assert 4403 == closed.value.rcvd.code
