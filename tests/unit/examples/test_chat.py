"""The chat example: what its page relies on."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from unmissed.examples import chat
from unmissed.testing import LiveServer


def test_it_is_short() -> None:
    assert len(Path(chat.__file__).read_text().splitlines()) < 90


@pytest.mark.live
async def test_what_somebody_says_reaches_everybody_once_also_when_it_is_repeated() -> None:
    with LiveServer(chat.app, manager=chat.manager) as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            tokens = [(await http.post(f"/token/{name}")).text for name in ("alice", "bob")]
        request = {"type": "command", "id": "c1", "name": "say", "data": "hello"}
        for _ in range(2):
            async with connect(f"{server.websocket_url}?since=0", additional_headers=bearer(tokens[0])) as alice:
                await alice.send(json.dumps(request))
                assert "result" == [frame async for frame in frames(alice, until="result")][-1]["type"]
        async with connect(f"{server.websocket_url}?since=0", additional_headers=bearer(tokens[1])) as bob:
            seen = [frame["data"] async for frame in frames(bob, until="heartbeat") if frame["type"] == "said"]

    assert [{"by": "alice", "text": "hello"}] == seen


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def frames(websocket: Any, *, until: str) -> Any:
    async for text in websocket:
        frame = json.loads(text)
        yield frame
        if frame["type"] == until:
            return
