"""Engines for shared logs, as tests start them: a test is skipped if the program is not installed."""

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from redis import Redis

from unmissed.core.errors import ConfigurationError
from unmissed.lab import engine_servers, postgres_servers
from unmissed.lab.engine_servers import EngineServer, NatsCluster
from unmissed.lab.process import running

_START_SECONDS = 60.0


def skip_without(server: type[EngineServer]) -> None:
    """Skip the test if the program of this server is not installed."""
    try:
        server.path()
    except ConfigurationError as error:
        pytest.skip(str(error))


class RedisServer(engine_servers.RedisServer):
    """A redis-server. ``options`` are those of the laboratory."""

    def __init__(self, folder: Path, **options: Any) -> None:
        skip_without(engine_servers.RedisServer)
        super().__init__(folder, **options)


class NatsServer(engine_servers.NatsServer):
    """A nats-server. ``options`` are those of the laboratory."""

    def __init__(self, folder: Path, **options: Any) -> None:
        skip_without(engine_servers.NatsServer)
        super().__init__(folder, **options)


class PostgresServer(postgres_servers.PostgresServer):
    """A PostgreSQL. ``options`` are those of the laboratory."""

    def __init__(self, folder: Path, **options: Any) -> None:
        skip_without(postgres_servers.PostgresServer)
        super().__init__(folder, **options)


class PgBouncer(postgres_servers.PgBouncer):
    """A PgBouncer in front of a PostgreSQL."""

    def __init__(self, folder: Path, server: PostgresServer, **options: Any) -> None:
        skip_without(postgres_servers.PgBouncer)
        super().__init__(folder, server, **options)


@asynccontextmanager
async def nats_cluster(folder: Path) -> AsyncIterator[NatsCluster]:
    """Run three servers that replicate their streams to each other."""
    skip_without(engine_servers.NatsServer)
    cluster = NatsCluster(folder)
    async with running(cluster.servers):
        yield cluster


class RedisSentinel:
    """A master with a replica, and a Sentinel that replaces it when it is away for half a second."""

    def __init__(self, folder: Path) -> None:
        folders = [folder / name for name in ("master", "replica", "sentinel")]
        for each in folders:
            each.mkdir()
        self.master = RedisServer(folders[0])
        self._replica = RedisServer(folders[1], options=["--replicaof", "127.0.0.1", str(self.master.port)])
        configuration = folders[2] / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        self._sentinel = RedisServer(folders[2], persistent=False, command=[str(configuration), "--sentinel"])

    @property
    def url(self) -> str:
        """The URL for ``UNMISSED_LOG_URL``."""
        return f"redis+sentinel://127.0.0.1:{self._sentinel.port}/mymaster/0"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.master, self._replica, self._sentinel):
                stack.enter_context(server)
            self._wait(lambda: self._reply(self._replica, "INFO replication"), "master_link_status:up")
            self._wait(lambda: self._reply(self._sentinel, "INFO sentinel"), "slaves=1")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def until_replicated(self) -> None:
        """Wait until the replica has what the master has."""
        with Redis(port=self.master.port) as redis:
            # The server waits for the writes of this client alone.
            redis.set("written", "after the messages")
            redis.wait(1, 10_000)

    def _reply(self, server: RedisServer, command: str) -> str:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65_536).decode()

    def _wait(self, reply: Callable[[], str], text: str) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while text not in reply():
            if time.monotonic() > give_up:
                raise TimeoutError(reply())
            time.sleep(0.05)
