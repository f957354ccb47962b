"""WebSocket clients that keep only what the protocol asks of them, and lose their connection all the time."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from unmissed.verify.events import Acknowledged, Delivered, Ended, GapDeclared, Joined, Reached, Reader
from unmissed.verify.frames import decoded, message_of
from unmissed.verify.proxied import ProxiedNode, bearer
from unmissed.verify.recorder import Recorder

_OPEN_SECONDS = 3.0
_LIFE_SECONDS = 1.0
_SHORT_SECONDS, _LONG_SECONDS, _LONG_SHARE = 0.1, 4.0, 0.1
_PAUSED_SHARE = 0.3
_LOST = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed)


class Client:
    """One client. It stores its position, and its epoch if ``sends_epoch``, and nothing else."""

    def __init__(
        self,
        reader: Reader,
        *,
        nodes: Sequence[ProxiedNode],
        token: str,
        sends_epoch: bool,
        chance: random.Random,
        recorder: Recorder,
    ) -> None:
        self.reader = reader
        self._nodes = nodes
        self._headers = bearer(token)
        self._sends_epoch = sends_epoch
        self._chance = chance
        self._recorder = recorder
        self._position: int | None = None
        self._epoch: str | None = None
        recorder.introduce(reader)

    async def run(self) -> None:
        """Connect, misbehave and lose the connection, until cancelled."""
        while True:
            with suppress(*_LOST):
                await self._live()
            long = self._chance.random() < _LONG_SHARE
            await asyncio.sleep(self._chance.expovariate(1 / (_LONG_SECONDS if long else _SHORT_SECONDS)))

    async def finish(self, marker: Acknowledged) -> None:
        """Connect until everything up to this message has arrived."""
        while not self._has(marker):
            with suppress(*_LOST):
                websocket = await self._connect()
                try:
                    while not self._has(marker):
                        self._take(await websocket.recv(decode=False))
                finally:
                    websocket.transport.abort()
            await asyncio.sleep(_SHORT_SECONDS)
        self._recorder.add(Ended(self._recorder.clock(), self.reader.name, marker.epoch, marker.number))

    def _has(self, marker: Acknowledged) -> bool:
        return self._epoch == marker.epoch and self._position is not None and self._position >= marker.number

    async def _connect(self) -> ClientConnection:
        node = self._chance.choice(self._nodes)
        epoch = self._epoch if self._sends_epoch else None
        return await open_websocket(
            node.websocket_url(since=self._position, epoch=epoch),
            host="127.0.0.1",
            port=node.proxy.port,
            additional_headers=self._headers,
            compression=None,
            proxy=None,
            max_size=None,
            open_timeout=_OPEN_SECONDS,
            close_timeout=_SHORT_SECONDS,
            ping_interval=None,
        )

    async def _live(self) -> None:
        """Read for a random time, with a pause perhaps, and leave with or without a close."""
        websocket = await self._connect()
        try:
            await self._read(websocket, seconds=self._chance.expovariate(1 / _LIFE_SECONDS))
            if self._chance.random() < _PAUSED_SHARE:
                await self._pause(websocket, seconds=self._chance.expovariate(1 / _LIFE_SECONDS))
                await self._read(websocket, seconds=self._chance.expovariate(1 / _LIFE_SECONDS))
            if self._chance.random() < 0.5:
                await websocket.close()
        finally:
            websocket.transport.abort()

    async def _read(self, websocket: ClientConnection, *, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._take(await websocket.recv(decode=False))

    async def _pause(self, websocket: ClientConnection, *, seconds: float) -> None:
        """Stall: take no messages from the connection. Or freeze: do not even read its socket, or answer pings."""
        if self._chance.random() < 0.5:
            self._recorder.note("client stalled")
            await asyncio.sleep(seconds)
            return
        self._recorder.note("client frozen")
        websocket.transport.pause_reading()
        await asyncio.sleep(seconds)
        websocket.transport.resume_reading()

    def _take(self, raw: bytes) -> None:
        frame = decoded(raw)
        number = frame.get("sequence_number")
        if frame["type"] == "connected":
            self._join(frame)
        elif number is not None:
            self._receive(raw, frame, number)
            self._position = number if self._position is None else max(self._position, number)

    def _join(self, frame: dict[str, Any]) -> None:
        event = Joined(
            self._recorder.clock(),
            self.reader.name,
            frame["epoch"],
            self._position,
            frame["sequence_number"],
            frame.get("outcome"),
            frame["oldest"],
            frame["latest"],
        )
        self._recorder.add(event)
        self._position, self._epoch = event.position, event.epoch

    def _receive(self, raw: bytes, frame: dict[str, Any], number: int) -> None:
        now, name, epoch = self._recorder.clock(), self.reader.name, self._epoch or ""
        if "timestamp" in frame:
            message = message_of(raw, frame)
            self._deliver(Delivered(now, name, epoch, number, message.digest, message.message_id, message.content))
        elif frame["type"] == "gap":
            self._recorder.add(GapDeclared(now, name, epoch, frame["from"], frame["to"]))
        elif number > (self._position or 0):
            self._recorder.add(Reached(now, name, epoch, number))

    def _deliver(self, event: Delivered) -> None:
        self._recorder.add(event)


class BrokenClient(Client):
    """Loses the first message of each connection, and then one in ten, and does not notice.

    A run in which nobody notices that proves nothing.
    """

    _received = 0

    def _join(self, frame: dict[str, Any]) -> None:
        self._received = 0
        super()._join(frame)

    def _deliver(self, event: Delivered) -> None:
        if self._received % 10:
            super()._deliver(event)
        self._received += 1
