"""WebSocket clients, which lose their connections all the time, and a broken one, which also loses messages."""

import asyncio
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from unmissed.lab.verify.deployment import Gateway
from unmissed.lab.verify.facts import (
    Acknowledged,
    Delivered,
    DeliveredLive,
    GapDeclared,
    Joined,
    Reached,
    Recorder,
    Witness,
)
from unmissed.lab.verify.observing import Observer, decoded, message_of, state_of

_OPEN_SECONDS = 3.0
_LIFE_SECONDS = 1.0
_SHORT_SECONDS = 0.1
_PAUSED_SHARE = 0.3
_LOST = (OSError, TimeoutError, InvalidHandshake, ConnectionClosed)


class WebSocketClient(Observer):
    """One client, which connects to a random node each time. With ``wants_state``, it loads the values by key first."""

    def __init__(
        self,
        witness: Witness,
        gateway: Gateway,
        *,
        sends_epoch: bool,
        recorder: Recorder,
        wants_state: bool = False,
    ) -> None:
        super().__init__(witness, sends_epoch=sends_epoch, chance=gateway.chance, recorder=recorder)
        self._gateway = gateway
        self._wants_state = wants_state
        self._loading = False
        """Whether the last part of a state has not arrived yet."""
        self._since: int | None = None
        """The position that was sent on this connection."""
        self._begun_at = 0.0

    async def run(self) -> None:
        """Connect, misbehave and lose the connection, until cancelled."""
        while True:
            with suppress(*_LOST):
                await self._live()
            await asyncio.sleep(self.pause(_SHORT_SECONDS))

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
        self.end(marker)

    def _has(self, marker: Acknowledged) -> bool:
        return (
            not self._loading
            and self.epoch == marker.epoch
            and self.position is not None
            and self.position >= marker.number
        )

    async def _connect(self) -> ClientConnection:
        node = self._gateway.node()
        self._begun_at = self.recorder.clock()
        # A client that was cut before the last part of a state asks for the state again.
        self._since = None if self._loading else self.position
        state = "true" if self._wants_state else None
        epoch = None if self._since is None else self.sent_epoch
        return await open_websocket(
            node.websocket_url(since=self._since, epoch=epoch, state=state),
            host="127.0.0.1",
            port=node.proxy.port,
            additional_headers=self._gateway.headers,
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
            await self._read(websocket, seconds=self.chance.expovariate(1 / _LIFE_SECONDS))
            if self.chance.random() < _PAUSED_SHARE:
                await self._stop_reading(websocket, seconds=self.chance.expovariate(1 / _LIFE_SECONDS))
                await self._read(websocket, seconds=self.chance.expovariate(1 / _LIFE_SECONDS))
            if self.chance.random() < 0.5:
                await websocket.close()
        finally:
            websocket.transport.abort()

    async def _read(self, websocket: ClientConnection, *, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._take(await websocket.recv(decode=False))

    async def _stop_reading(self, websocket: ClientConnection, *, seconds: float) -> None:
        """Stall: take no messages from the connection. Or freeze: do not even read its socket, or answer pings."""
        if self.chance.random() < 0.5:
            self.recorder.note("client stalled")
            await asyncio.sleep(seconds)
            return
        self.recorder.note("client frozen")
        websocket.transport.pause_reading()
        await asyncio.sleep(seconds)
        websocket.transport.resume_reading()

    def _take(self, raw: bytes) -> None:
        frame = decoded(raw)
        number = frame.get("sequence_number")
        if frame["type"] == "connected":
            self._join(frame)
        elif frame["type"] == "state":
            self._load(raw)
        elif "timestamp" in frame and number is None:
            self._receive_live(raw, frame)
        elif number is not None:
            self._receive(raw, frame, number)
            self.position = number if self.position is None else max(self.position, number)

    def _join(self, frame: dict[str, Any]) -> None:
        fact = Joined(
            self.recorder.clock(),
            self.witness.name,
            frame["epoch"],
            self._since,
            frame["sequence_number"],
            frame.get("outcome"),
            frame["oldest"],
            frame["latest"],
            (frame["from"], frame["to"]) if frame.get("outcome") == "gap" else None,
        )
        self.recorder.add(fact)
        # After the fact, which has the position that was sent.
        self.position, self.epoch = fact.position, fact.epoch
        self._loading = frame.get("state", False)

    def _load(self, raw: bytes) -> None:
        state = state_of(raw.decode())
        for fact in state.facts(self.witness.name, epoch=self.epoch or "", at=self.recorder.clock()):
            self.recorder.add(fact)
        self._loading = state.has_more

    def _receive_live(self, raw: bytes, frame: dict[str, Any]) -> None:
        message = message_of(raw, frame)
        now, name = self.recorder.clock(), self.witness.name
        self.recorder.add(
            DeliveredLive(now, name, self.epoch or "", message.message_id, message.content, self._begun_at)
        )

    def _receive(self, raw: bytes, frame: dict[str, Any], number: int) -> None:
        now, name, epoch = self.recorder.clock(), self.witness.name, self.epoch or ""
        if "timestamp" in frame:
            message = message_of(raw, frame)
            self._deliver(Delivered(now, name, epoch, number, message.digest, message.message_id, message.content))
        elif frame["type"] == "gap":
            self.recorder.add(GapDeclared(now, name, epoch, frame["from"], frame["to"], number))
        elif number > (self.position or 0):
            self.recorder.add(Reached(now, name, epoch, number))

    def _deliver(self, fact: Delivered) -> None:
        self.recorder.add(fact)


class BrokenClient(WebSocketClient):
    """Loses the first message of each connection, and then one in ten, and does not notice.

    If the judge of a run does not notice that either, the run proves nothing.
    """

    _received = 0

    def _join(self, frame: dict[str, Any]) -> None:
        self._received = 0
        super()._join(frame)

    def _deliver(self, fact: Delivered) -> None:
        if self._received % 10:
            super()._deliver(fact)
        self._received += 1
