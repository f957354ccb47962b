"""Servers that follow a script: what they send on one connection after the other, and what they were asked."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from support import FIRST

Answer = Callable[[dict[str, Any]], list[str]]
"""Returns what answers the next frame of the client."""


def stamped(number: int, rest: str = ',"data":1', *, type: str = "chat") -> str:
    return f'{{"type":"{type}","sequence_number":{number},"timestamp":"2026-01-31T12:00:00.000Z"{rest}}}'


def greeting(
    start: int, outcome: str, *, latest: int, to: int | None = None, epoch: str = "e", first: int = FIRST
) -> str:
    """Return the greeting of a connection on which what is retained after ``start`` follows: a gap lasts to ``to``."""
    lost = {} if to is None else {"from": start + 1, "to": to}
    numbers = {"first": first, "oldest": first, "latest": latest, "sequence_number": start, **lost}
    return json.dumps({"type": "connected", "connection_id": "c", "epoch": epoch, **numbers, "outcome": outcome})


def gap_frame(position: int, to: int) -> str:
    """Return the frame that declares a gap on a connection."""
    return json.dumps({"type": "gap", "from": position + 1, "to": to, "sequence_number": position})


@dataclass
class Script:
    """What a server sends on one connection after the other, and what it was asked."""

    connections: Sequence[Sequence[str | Answer]]
    url: str = ""

    def __post_init__(self) -> None:
        self.queries: list[dict[str, str]] = []

    @property
    def asked(self) -> list[tuple[int | None, str | None]]:
        """The position and the epoch in the address of each connection."""
        return [(int(each["since"]) if "since" in each else None, each.get("epoch")) for each in self.queries]

    async def answer(self, websocket: ServerConnection) -> None:
        """Send the frames of the next connection."""
        assert websocket.request is not None
        frames = self.connections[len(self.queries)]
        self.queries.append(dict(parse_qsl(urlsplit(websocket.request.path).query)))
        for frame in frames:
            answers = [frame] if isinstance(frame, str) else frame(json.loads(await websocket.recv()))
            for each in answers:
                await websocket.send(each)
        await websocket.wait_closed()


@asynccontextmanager
async def performed(script: Script) -> AsyncIterator[Script]:
    """Run a server that follows this script."""
    async with serve_websockets(script.answer, "127.0.0.1", 0, close_timeout=0.1) as other:
        [socket] = other.sockets
        script.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        yield script
