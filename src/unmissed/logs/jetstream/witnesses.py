"""Running nodes report how far they have read: to one that starts, and to one that may be the last to close."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from unmissed.core.errors import LogUnavailable
from unmissed.logs.engine import Seen
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import NO_RESPONDERS, Packet

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_LAST_SECONDS = 0.5
"""How long a node that closes waits for the answer of another one."""


class Witnesses:
    """The nodes of one log. Those that have joined answer questions on ``subject`` with what ``seen`` returns."""

    def __init__(self, subject: str, seen: Callable[[], Seen | None]) -> None:
        self._subject = subject
        self._seen = seen
        self._leave: Callable[[], Awaitable[None]] | None = None

    async def join(self, connection: NatsConnection) -> None:
        """Answer questions on this connection from now on, and on no earlier one."""
        await self.leave()

        async def asked(question: "Msg") -> None:
            seen = self._seen()
            if seen is not None and question.reply:
                with suppress(LogUnavailable):
                    await connection.send(Packet(question.reply, json.dumps(asdict(seen)).encode(), answered=False))

        _, self._leave = await connection.subscribe(asked, on_end=lambda: None, subject=self._subject)

    async def leave(self) -> None:
        """Answer no more questions."""
        leave, self._leave = self._leave, None
        if leave is not None:
            await leave()

    async def furthest(self, connection: NatsConnection, *, epoch: str, seconds: float) -> Seen | None:
        """Return the furthest that a running node has read this epoch, or None if none answers within these seconds."""
        reports = list[Seen]()

        async def answered(message: "Msg") -> None:
            with suppress(ValueError, TypeError):
                reports.append(Seen(**json.loads(message.data)))

        inbox, unsubscribe = await connection.subscribe(answered, on_end=lambda: None)
        try:
            await connection.send(Packet(self._subject, b""), reply=f"{inbox}.0")
            await asyncio.sleep(seconds)
        finally:
            await unsubscribe()
        return furthest(report for report in reports if report.epoch == epoch)

    async def none_left(self, connection: NatsConnection) -> bool:
        """Return whether no node answers questions. The server reports that at once."""
        first: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(*, none: bool) -> None:
            if not first.done():
                first.set_result(none)

        async def answered(message: "Msg") -> None:
            settle(none=(message.headers or {}).get("Status") == str(NO_RESPONDERS))

        inbox, unsubscribe = await connection.subscribe(answered, on_end=lambda: settle(none=False))
        try:
            await connection.send(Packet(self._subject, b""), reply=f"{inbox}.0")
            async with asyncio.timeout(_LAST_SECONDS):
                return await first
        except TimeoutError:
            return False
        finally:
            await unsubscribe()


def furthest(reports: Iterable[Seen | None]) -> Seen | None:
    """Return the report with the highest number, which says the most about its message."""
    return max(
        (each for each in reports if each is not None), key=lambda each: (each.latest, each.unix_ms), default=None
    )
