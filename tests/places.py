"""Where logs under test are: each in a place of its own, where one node or several may open it, again and again."""

import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest
from redis.asyncio import Redis

from unmissed.core.retention import Retention
from unmissed.core.window import Window
from unmissed.logs.base import Log
from unmissed.logs.urls import log_from_url

SHARED = ("redis", "nats", "postgres")
LASTING = ("sqlite", "sqlite-normal", *SHARED)
LOGS = ("memory", "sqlite", "sqlite-normal", *(pytest.param(kind, marks=pytest.mark.live) for kind in SHARED))
"""Every kind of log, as parameters of a test."""


def new_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Return a URL at which there is no log yet. The servers of shared logs are started when they are needed."""
    name = secrets.token_hex(8)
    match kind:
        case "memory":
            return "memory:"
        case "sqlite":
            return f"sqlite:{folder}/{name}.db"
        case "sqlite-normal":
            return f"sqlite:{folder}/{name}.db?synchronous=normal"
        case _:
            return f"{request.getfixturevalue(f'{kind}_server').url}?name={name}"


class Place:
    """Where a log is, and the logs that are open there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: list[Log] = []

    async def open(self, **options: Any) -> tuple[Log, Window]:
        """Open the log that is here, as another process would."""
        defaults = {"retention": Retention(), "first_number": None, "clock": time.monotonic, "wall_clock": time.time}
        log = log_from_url(self.url, **{**defaults, **options})
        window = await log.open()
        self._open.append(log)
        return log, window

    async def close(self, log: Log) -> None:
        """Close a log that was opened here."""
        self._open.remove(log)
        await log.close()

    async def add_foreign(self, window: Window) -> None:
        """Store what is no message of unmissed: after the newest one, or in its place in a file, which is closed."""
        name = self.url.partition("?name=")[2]
        match self.url.partition(":")[0]:
            case "sqlite":
                path = Path(self.url.removeprefix("sqlite:").partition("?")[0])
                before = path.stat()
                with closing(sqlite3.connect(path)) as file, file:
                    file.execute("UPDATE messages SET message = 'no' WHERE number = ?", (window.latest,))
                # As after a fault of the disk. A file that seems changed since it was closed counts as a copy.
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            case "redis":
                async with Redis.from_url(self.url.partition("?")[0]) as redis:
                    await redis.xadd(f"{{{name}}}:messages", {"ms": "1", "draft": "no"}, id=f"{window.latest + 1}-0")
            case "postgresql":
                connection = await asyncpg.connect(self.url.partition("?")[0])
                query = f'UPDATE "{name}".messages SET draft = $1 WHERE number = $2'  # our own name
                await connection.execute(query, b"no", window.latest)
                await connection.close()
            case _:
                client = await nats.connect(self.url.partition("?")[0])
                await client.request(f"{name}.{window.epoch}.foreign.0.-.-", b"no")
                await client.close()

    async def close_all(self) -> None:
        """Close every log."""
        for log in [*self._open]:
            await self.close(log)
