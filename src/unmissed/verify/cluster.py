"""The server under test: nodes that the run starts, with their log, or nodes that run already."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from unmissed.core.errors import ConfigurationError
from unmissed.verify.engines import Engine, Nats, Redis
from unmissed.verify.processes import ManagedProcess, free_ports, own_environment, succeeds
from unmissed.verify.proxied import Address

LogKind = Literal["memory", "sqlite", "redis", "nats"]

SHARED: tuple[LogKind, ...] = ("redis", "nats")
"""The logs that several nodes share."""

_DEFAULTS = {
    # A run is short: heartbeats, stalls and drains must happen within it.
    "UNMISSED_HEARTBEAT_SECONDS": "2",
    "UNMISSED_STALL_SECONDS": "4",
    "UNMISSED_DRAIN_SECONDS": "1",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run starts: so many nodes with this kind of log, and so many processes of its engine."""

    log: LogKind = "memory"
    nodes: int = 1
    engine_nodes: int = 1
    engine_persistence: bool = True

    def check(self) -> None:
        """Raise ConfigurationError for a combination that does not exist."""
        if self.nodes > 1 and self.log not in SHARED:
            raise ConfigurationError(f"--nodes {self.nodes} needs a log that nodes share: use --log redis or nats")
        if self.engine_nodes > 1 and self.log != "nats":
            raise ConfigurationError(f"--engine-nodes {self.engine_nodes} needs --log nats")
        if self.engine_nodes not in (1, 3):
            raise ConfigurationError("--engine-nodes is 1 or 3: a cluster of another size elects no leader more safely")
        if not self.engine_persistence and self.log != "redis":
            raise ConfigurationError("--no-engine-persistence needs --log redis")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes under test. ``nodes`` are the processes behind ``addresses``, and empty if others started them."""

    addresses: Sequence[Address]
    secret: str | None = None
    """The key that signs tokens for the nodes that were started."""
    nodes: Sequence[ManagedProcess] = ()
    engine: Engine | None = None


@asynccontextmanager
async def started(setup: Setup) -> AsyncIterator[Cluster]:
    """Start nodes and their engine in a temporary folder, and end them and remove it afterwards.

    Raises ConfigurationError for a missing program, or one that does not start.
    """
    setup.check()
    with TemporaryDirectory(prefix="unmissed-verify-") as name, ExitStack() as stack:
        folder = Path(name)
        engine = _engine(setup, folder)
        for process in engine.processes if engine else ():
            stack.callback(process.end)
        await asyncio.gather(*(process.start() for process in (engine.processes if engine else ())))
        secret, ports = secrets.token_urlsafe(48), free_ports(setup.nodes)
        settings = {
            "UNMISSED_JWT_SECRET": secret,
            "UNMISSED_LOG_URL": engine.url if engine else _local_url(setup.log, folder),
            "UNMISSED_FIRST_NUMBER": "clock",
        }
        nodes = [_node(index, port, folder, settings) for index, port in enumerate(ports)]
        for node in nodes:
            stack.callback(node.end)
        await asyncio.gather(*(node.start() for node in nodes))
        yield Cluster([Address("127.0.0.1", port) for port in ports], secret, nodes, engine)


def _engine(setup: Setup, folder: Path) -> Engine | None:
    match setup.log:
        case "redis":
            return Redis(folder, persistent=setup.engine_persistence)
        case "nats":
            return Nats(folder, size=setup.engine_nodes)
        case _:
            return None


def _local_url(log: LogKind, folder: Path) -> str:
    return f"sqlite:{folder / 'messages.db'}" if log == "sqlite" else "memory:"


def _node(index: int, port: int, folder: Path, settings: dict[str, str]) -> ManagedProcess:
    command = [sys.executable, "-m", "unmissed", "serve", "--port", str(port)]
    return ManagedProcess(
        f"node-{index}",
        [*command, "--log-level", "warning", "--no-access-log"],
        folder=folder,
        ready=partial(succeeds, port, "/readyz"),
        environment=own_environment(settings, _DEFAULTS, folder=folder),
    )
