"""Sends the requests of a client on its connection, and notices a connection that is dead."""

import asyncio
import math
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from unmissed.client.pending_requests import PendingRequests
from unmissed.core.client_frames import Ping
from unmissed.core.encoding import encode_json

QUIET_SECONDS = 5.0
"""A server that sends nothing for this time, although it is asked something, is asked for a pong."""

PONG_SECONDS = 3.0
_PING = encode_json({"type": Ping.type})


class RequestSender:
    """Sends on one connection after another: ``run`` is a task that ends with its connection."""

    def __init__(
        self,
        requests: PendingRequests,
        *,
        quiet_seconds: float = QUIET_SECONDS,
        pong_seconds: float = PONG_SECONDS,
    ) -> None:
        self.requests = requests
        self._quiet_seconds = quiet_seconds
        self._pong_seconds = pong_seconds
        self._changed = asyncio.Event()
        self._quiet_since = 0.0
        self._pinged_at: float | None = None

    def wake(self) -> None:
        """Look again at what may be sent: there is another request."""
        self._changed.set()

    def heard(self) -> None:
        """Note that the server has sent something."""
        if self._pinged_at is not None:
            self._changed.set()
        self._quiet_since, self._pinged_at = time.monotonic(), None

    def settle(self, answer: Mapping[str, Any], result: Any) -> None:
        """Give the request that a frame answers its result."""
        self.requests.settle(answer.get("id", ""), result)
        self._changed.set()

    def refuse(self, request_id: str, code: int, reason: str) -> None:
        """Fail a request, or send it again later if the reason is a passing one."""
        self.requests.refuse(request_id, code, reason, now=time.monotonic(), jitter=random.random())
        self._changed.set()

    async def run(self, websocket: ClientConnection) -> None:
        """Send what may be sent, until the connection ends. Abort a connection that seems to be dead."""
        with suppress(ConnectionClosed):
            while True:
                self._changed.clear()
                if not self.requests.awaits_answer:
                    # The silence that counts begins with the first request that waits for an answer.
                    self._quiet_since, self._pinged_at = time.monotonic(), None
                for request in self.requests.due(time.monotonic()):
                    await self._write(websocket, request.text)
                seconds = await self._check_alive(websocket)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()

    async def _write(self, websocket: ClientConnection, text: bytes) -> None:
        # A peer that is gone reads nothing, and a write to it would wait for minutes.
        try:
            async with asyncio.timeout(self._quiet_seconds + self._pong_seconds):
                await websocket.send(text, text=True)
        except TimeoutError:
            websocket.transport.abort()

    async def _check_alive(self, websocket: ClientConnection) -> float | None:
        """Ping a quiet server, and drop the connection without a pong. Return the seconds until the next look at it."""
        now = time.monotonic()
        to_next = self.requests.seconds_to_next(now)
        if not self.requests.awaits_answer:
            return to_next
        if self._pinged_at is None and now - self._quiet_since >= self._quiet_seconds:
            self._pinged_at = now
            await self._write(websocket, _PING)
        if self._pinged_at is None:
            left = self._quiet_since + self._quiet_seconds - now
        else:
            # Counted from the ping: if this process was suspended, what has arrived meanwhile is not received yet.
            left = self._pinged_at + self._pong_seconds - now
            if left <= 0:
                websocket.transport.abort()
        return min(left, math.inf if to_next is None else to_next)
