"""The programs that store a shared log: one redis-server, or one nats-server or a cluster of three."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx

from unmissed.core.errors import ConfigurationError
from unmissed.verify.processes import ManagedProcess, answers, free_ports, succeeds

_ANSWER_SECONDS = 1.0
_STREAMS = "/jsz?accounts=true&streams=true"


class Engine(Protocol):
    """What stores the log of several nodes."""

    @property
    def url(self) -> str:
        """The value of UNMISSED_LOG_URL."""
        ...

    @property
    def processes(self) -> Sequence[ManagedProcess]:
        """The processes, which the run starts and kills."""
        ...

    async def leader(self) -> int | None:
        """Return the index of the process that leads the log, or None if all are alike or it is unknown."""
        ...


class Redis:
    """One redis-server, which writes every command to disk before it answers unless ``persistent`` is false."""

    def __init__(self, folder: Path, *, persistent: bool) -> None:
        [port] = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        command = [_program("redis-server", package="redis-server"), "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--dir", str(folder), "--save", "", "--appendonly", "yes" if persistent else "no"]
        command += ["--appendfsync", "always"]
        self.processes = (
            ManagedProcess(
                "redis-server", command, folder=folder, ready=partial(answers, port, b"PING\r\n", expected=b"+PONG")
            ),
        )

    async def leader(self) -> int | None:
        """Return None: there is only one process."""
        return None


class Nats:
    """One nats-server with JetStream, or a cluster of several."""

    def __init__(self, folder: Path, *, size: int) -> None:
        clients, routes, self._monitors = (free_ports(3 * size)[start::3] for start in range(3))
        addresses = ",".join(f"127.0.0.1:{port}" for port in clients)
        self.url = f"nats://{addresses}" + (f"?replicas={size}" if size > 1 else "")
        program = _program("nats-server", package="nats-server 2.11 or newer (https://nats.io/download)")
        peers = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
        self.processes = tuple(
            ManagedProcess(
                f"nats-{index}",
                [
                    *(program, "--name", f"nats-{index}", "--addr", "127.0.0.1", "--port", str(clients[index])),
                    *("--jetstream", "--store_dir", str(folder / f"nats-{index}")),
                    *("--http_port", str(self._monitors[index])),
                    *_cluster_options(routes[index], peers, size=size),
                ],
                folder=folder,
                ready=partial(succeeds, self._monitors[index], "/healthz"),
            )
            for index in range(size)
        )

    async def leader(self) -> int | None:
        """Return the index of the server that leads the stream, if there is a stream and a leader."""
        async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as http:
            for port in self._monitors:
                try:
                    name = _leader_in((await http.get(f"http://127.0.0.1:{port}{_STREAMS}")).json())
                except (httpx.HTTPError, ValueError):
                    continue
                if name:
                    return [process.name for process in self.processes].index(name)
        return None


def _cluster_options(port: int, peers: str, *, size: int) -> tuple[str, ...]:
    if size == 1:
        return ()
    return ("--cluster_name", "verify", "--cluster", f"nats://127.0.0.1:{port}", "--routes", peers)


def _leader_in(report: dict[str, object]) -> str | None:
    """Return the leader of the first stream in a report of the monitoring endpoint ``/jsz``."""
    match report:
        case {"account_details": [{"stream_detail": [{"cluster": {"leader": str(name)}}, *_]}, *_]}:
            return name
        case _:
            return None


def _program(name: str, *, package: str) -> str:
    """Return the path of a program. Raises ConfigurationError that says what to install."""
    found = shutil.which(name)
    if found is None:
        raise ConfigurationError(f"there is no {name} on the PATH: install {package}")
    return found
