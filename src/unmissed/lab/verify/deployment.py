"""The server under test, behind proxies: nodes that the run starts with their log, or nodes that run already."""

import os
import random
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import urlencode, urlsplit

from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.core.errors import ConfigurationError
from unmissed.core.retention import Rule
from unmissed.lab.engine_servers import EngineServer, NatsCluster, NatsServer, RedisServer
from unmissed.lab.postgres_servers import PgBouncer, PostgresServer
from unmissed.lab.process import ManagedProcess, ServerProcess, running
from unmissed.lab.proxy import FaultProxy
from unmissed.security.redaction import shown_url

LogKind = Literal["memory", "sqlite", "postgres", "redis", "nats"]

SHARED: tuple[LogKind, ...] = ("postgres", "redis", "nats")
"""The logs that several nodes share."""

_SERVE = ("unmissed", "serve", "--log-level", "warning", "--no-access-log")
_DEFAULTS = {
    # A run is short: heartbeats, stalls and drains must happen within it.
    "UNMISSED_HEARTBEAT_SECONDS": "2",
    "UNMISSED_STALL_SECONDS": "4",
    "UNMISSED_DRAIN_SECONDS": "1",
}


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where a node listens. ``path`` is the prefix of its paths."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def of(cls, url: str) -> "NodeAddress":
        """Return the address in a URL such as ``http://127.0.0.1:8000``. Raises ConfigurationError."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme != "http" or not host or parts.query:
            raise ConfigurationError(f"{shown_url(url)!r} cannot be verified: use a URL such as http://127.0.0.1:8000")
        return cls(host, port or 80, parts.path.rstrip("/"))

    @property
    def messages_url(self) -> str:
        """Where messages are published and recovered over REST."""
        return self.url(MESSAGES_PATH)

    def url(self, path: str) -> str:
        """Return the address of a route."""
        return f"http://{self.host}:{self.port}{self.path}{path}"


@dataclass(frozen=True, slots=True)
class ProxiedNode:
    """One node of the server, as its clients reach it."""

    address: NodeAddress
    proxy: FaultProxy

    @property
    def host(self) -> str:
        """The value of the ``Host`` header, as it is without the proxy."""
        return f"{self.address.host}:{self.address.port}"

    @property
    def messages_url(self) -> str:
        """Where messages are published and recovered over REST, through the proxy."""
        return self.url(MESSAGES_PATH)

    def url(self, path: str) -> str:
        """Return the address of a route, through the proxy."""
        return NodeAddress("127.0.0.1", self.proxy.port, self.address.path).url(path)

    def websocket_url(self, **query: object) -> str:
        """Return the address of the WebSocket, with the parts of the query that are not None."""
        given = {name: value for name, value in query.items() if value is not None}
        return f"ws://{self.host}{self.address.path}/ws" + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True, slots=True)
class Gateway:
    """How one participant of a run reaches the server: with its token, and at a random node each time."""

    nodes: Sequence[ProxiedNode]
    token: str
    chance: random.Random

    @property
    def headers(self) -> Mapping[str, str]:
        """The header that authenticates this participant."""
        return bearer(self.token)

    def node(self) -> ProxiedNode:
        """Return the node for the next request or connection."""
        return self.chance.choice(self.nodes)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run starts: the kind of log, and the numbers of nodes and of processes of the engine."""

    log: LogKind = "memory"
    nodes: int = 1
    engine_nodes: int = 1
    engine_persistence: bool = True
    pgbouncer: bool = False

    def check(self) -> None:
        """Raise ConfigurationError for a combination that does not exist."""
        if self.nodes > 1 and self.log not in SHARED:
            raise ConfigurationError(
                f"--nodes {self.nodes} needs a log that nodes share: use --log {', '.join(SHARED)}"
            )
        if self.engine_nodes > 1 and self.log != "nats":
            raise ConfigurationError(f"--engine-nodes {self.engine_nodes} needs --log nats")
        if self.engine_nodes not in (1, 3):
            raise ConfigurationError("--engine-nodes is 1 or 3: a cluster of another size elects no leader more safely")
        if not self.engine_persistence and self.log != "redis":
            raise ConfigurationError("--no-engine-persistence needs --log redis")
        if self.pgbouncer and self.log != "postgres":
            raise ConfigurationError("--pgbouncer needs --log postgres")

    def may_lose_its_log(self, *, chaos: bool, foreign: bool) -> bool:
        """Return whether a new epoch is legitimate: only a log in memory may be lost, and only with its process."""
        in_memory = self.log == "memory" or not self.engine_persistence
        return in_memory and (chaos or foreign)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The nodes under test. ``nodes`` are the processes behind ``addresses``, and empty if others started them."""

    addresses: Sequence[NodeAddress]
    secret: str | None = None
    """The key that signs tokens for the nodes that were started."""
    nodes: Sequence[ManagedProcess] = ()
    engine: EngineServer | NatsCluster | None = None
    database: str | None = None
    """The URL of the log, if it is in a database, in which transactions publish."""

    def kill(self) -> None:
        """Kill all processes that were started."""
        for process in (*self.nodes, *(self.engine.servers if self.engine else ())):
            process.kill()


@asynccontextmanager
async def started(setup: Setup, rules: Iterable[Rule]) -> AsyncIterator[Deployment]:
    """Start nodes with these rules of retention, and their engine, in a temporary folder.

    They are killed afterwards, and the folder is removed.
    Raises ConfigurationError for a missing program, or one that does not start.
    """
    setup.check()
    with TemporaryDirectory(prefix="unmissed-verify-") as name:
        folder = Path(name)
        engine = _engine(setup, folder)
        # The engine starts first, because no node becomes ready without its log, and ends last.
        async with running(engine.servers if engine else ()):
            secret = secrets.token_urlsafe(48)
            settings = {
                "UNMISSED_JWT_SECRET": secret,
                "UNMISSED_LOG_URL": engine.url if engine else _local_url(setup.log, folder),
                "UNMISSED_FIRST_NUMBER": "clock",
                "UNMISSED_RETENTION": ", ".join(map(str, rules)),
            }
            environment = _environment(settings)
            nodes = [_node(f"node-{index}", environment, folder=folder) for index in range(setup.nodes)]
            async with running(nodes):
                addresses = [NodeAddress("127.0.0.1", node.port) for node in nodes]
                database = engine.url if engine and setup.log == "postgres" else None
                yield Deployment(addresses, secret, nodes, engine, database)


def _engine(setup: Setup, folder: Path) -> EngineServer | NatsCluster | None:
    match setup.log:
        case "postgres":
            server = PostgresServer(folder)
            return PgBouncer(folder, server) if setup.pgbouncer else server
        case "redis":
            return RedisServer(folder, persistent=setup.engine_persistence)
        case "nats":
            return NatsServer(folder) if setup.engine_nodes == 1 else NatsCluster(folder)
        case _:
            return None


def _local_url(log: LogKind, folder: Path) -> str:
    return f"sqlite:{folder / 'messages.db'}" if log == "sqlite" else "memory:"


def _node(name: str, environment: Mapping[str, str], *, folder: Path) -> ServerProcess:
    return ServerProcess(*_SERVE, name=name, probe="/readyz", output=folder / f"{name}.log", environment=environment)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a node: ours without its keys, with these settings, and with defaults for others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UNMISSED_JWT_")}
    return {**_DEFAULTS, **inherited, **settings}


def bearer(token: str) -> Mapping[str, str]:
    """Return the header that authenticates with this token."""
    return {"Authorization": f"Bearer {token}"}
