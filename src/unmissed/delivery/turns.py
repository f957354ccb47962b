"""Connections that have much to catch up with: each continues in a later turn of the event loop."""

import asyncio
from collections.abc import Callable

from unmissed.delivery.connection import Connection

_SECONDS = 0.001


class Turns:
    """Calls ``serve`` with the connections that are waiting, one after another, for about 1 ms in each turn."""

    def __init__(self, serve: Callable[[Connection], object]) -> None:
        self._serve = serve
        self._waiting: dict[Connection, None] = {}
        self._next: asyncio.Handle | None = None

    def add(self, connection: Connection) -> None:
        """Serve a connection after those that are waiting."""
        self._waiting[connection] = None
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _SECONDS
        # ``serve`` may add the connection again: at the end, so that all are served alike.
        while self._waiting:
            connection = next(iter(self._waiting))
            del self._waiting[connection]
            self._serve(connection)
            if loop.time() >= end:
                break
        self._next = loop.call_soon(self._run) if self._waiting else None
