"""The programs that store shared logs, on free ports of this machine: redis-server, and one nats-server or three."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unmissed.core.errors import ConfigurationError
from unmissed.lab.process import ManagedProcess, answers, fetched, free_ports, succeeds

_CLUSTER_SIZE = 3
_STREAMS = "/jsz?accounts=true&streams=true"


class EngineServer(ManagedProcess):
    """A server program that keeps its folder over restarts."""

    program: str
    package: str
    """What to install if the program is missing."""
    url: str
    """The value of UNMISSED_LOG_URL."""

    @property
    def servers(self) -> Sequence["EngineServer"]:
        """The processes that store the log together: this one alone."""
        return (self,)

    def leader(self) -> int | None:
        """Return None: a single process has no leader."""
        return None

    @classmethod
    def path(cls) -> str:
        """Return the path of the program. Raises ConfigurationError, whose text names what to install."""
        found = shutil.which(cls.program)
        if found is None:
            raise ConfigurationError(f"there is no {cls.program} on the PATH: install {cls.package}")
        return found


class RedisServer(EngineServer):
    """One redis-server, which writes every command to the disk before it answers, unless ``persistent`` is false.

    ``command`` are arguments before, and ``options`` arguments after our own.
    """

    program = package = "redis-server"

    def __init__(
        self, folder: Path, *, persistent: bool = True, command: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        [self.port] = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        own = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", ""]
        if persistent:
            own += ["--appendonly", "yes", "--appendfsync", "always"]
        super().__init__(
            self.program,
            [self.path(), *command, *own, *options],
            # A server with a password is ready when it asks for it. While it loads its file, it answers -LOADING.
            ready=partial(answers, self.port, b"PING\r\n", expected=(b"+PONG", b"-NOAUTH")),
            output=folder / "redis-server.log",
        )


class NatsServer(EngineServer):
    """One nats-server, which stores its streams in ``store`` if it has JetStream."""

    program = "nats-server"
    package = "nats-server 2.12 or newer (https://nats.io/download)"

    def __init__(
        self, folder: Path, *, name: str = "nats-0", jetstream: bool = True, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.store = folder / "jetstream"
        self.port, self.monitor = free_ports(2)
        self.url = f"nats://127.0.0.1:{self.port}"
        command = [self.path(), "--name", name, "--addr", "127.0.0.1", "--port", str(self.port)]
        command += ["--http_port", str(self.monitor)]
        if jetstream:
            command += ["--jetstream", "--store_dir", str(self.store)]
        super().__init__(
            name,
            [*command, *options],
            ready=partial(succeeds, self.monitor, "/healthz"),
            output=folder / f"{name}.log",
        )


class NatsCluster:
    """Three nats-servers that replicate their streams to each other. They are only ready together."""

    def __init__(self, folder: Path) -> None:
        routes = free_ports(_CLUSTER_SIZE)
        peers = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
        self.servers = [_cluster_server(folder, f"nats-{index}", port, peers) for index, port in enumerate(routes)]
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        self.url = f"nats://{addresses}?replicas={_CLUSTER_SIZE}"

    def leader(self) -> int | None:
        """Return the index of the server that leads the stream, if there is a stream and a leader."""
        names = [server.name for server in self.servers]
        for server in self.servers:
            report = fetched(server.monitor, _STREAMS)
            name = _leader_in(json.loads(report)) if report else None
            if name in names:
                return names.index(name)
        return None


def _cluster_server(folder: Path, name: str, route: int, peers: str) -> NatsServer:
    own = folder / name
    own.mkdir()
    options = ["--cluster_name", "unmissed", "--cluster", f"nats://127.0.0.1:{route}", "--routes", peers]
    return NatsServer(own, name=name, options=options)


def _leader_in(report: dict[str, Any]) -> str | None:
    """Return the leader of the first stream in a report of the monitoring endpoint ``/jsz``."""
    match report:
        case {"account_details": [{"stream_detail": [{"cluster": {"leader": str(name)}}, *_]}, *_]}:
            return name
        case _:
            return None
