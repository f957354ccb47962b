"""Engines for shared logs, each started on a free port of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

import pytest
from redis import Redis

_START_SECONDS = 20.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class EngineServer:
    """A server program that keeps its port and its folder over restarts."""

    program: str

    def __init__(self, folder: Path) -> None:
        path = shutil.which(self.program)
        if path is None:
            pytest.skip(f"{self.program} is not installed")
        self.folder = folder
        self.port = free_port()
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def arguments(self) -> Sequence[str]:
        """Return what to pass to the program."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the program, and wait until it accepts connections."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen([self._path, *self.arguments()], stdout=output, stderr=output)  # noqa: S603  # our own arguments
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            with ExitStack() as stack:
                try:
                    stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=1))
                except OSError:
                    time.sleep(0.01)
                else:
                    return
        raise TimeoutError((self.folder / "output").read_text())

    def signal(self, number: int) -> None:
        """Send a signal to the program. After one that stops or ends it, the program has done nothing more."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        if number in (signal.SIGSTOP, signal.SIGKILL):
            # On a busy machine, the signal is delivered a little later: the program could still answer.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End the program at once, as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RedisServer(EngineServer):
    """A Redis that writes each command to the disk, or nothing at all."""

    program = "redis-server"

    def __init__(
        self, folder: Path, *, persistent: bool = True, command: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        super().__init__(folder)
        self._command = command
        self._options = [*(["--appendonly", "yes", "--appendfsync", "always"] if persistent else []), *options]

    @property
    def url(self) -> str:
        """The URL for ``UNMISSED_LOG_URL``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def arguments(self) -> Sequence[str]:
        return [
            *self._command,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
            "--save",
            "",
            *self._options,
        ]


class NatsServer(EngineServer):
    """A NATS server with JetStream."""

    program = "nats-server"

    def __init__(self, folder: Path, *, jetstream: bool = True, options: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._options = [*options]
        if jetstream:
            self._options += ["--jetstream", "--store_dir", str(self.store)]

    @property
    def store(self) -> Path:
        """The folder of the streams."""
        return self.folder / "jetstream"

    @property
    def url(self) -> str:
        """The URL for ``UNMISSED_LOG_URL``."""
        return f"nats://127.0.0.1:{self.port}"

    def arguments(self) -> Sequence[str]:
        return ["--addr", "127.0.0.1", "--port", str(self.port), *self._options]


class NatsClusterServer(NatsServer):
    """One of several NATS servers that replicate their streams to each other."""

    def __init__(self, folder: Path, *, name: str, route: int, routes: Sequence[int]) -> None:
        folder.mkdir()
        self.name = name
        self._monitor = free_port()
        options = [
            *("--name", name, "--cluster_name", "unmissed", "--http_port", str(self._monitor)),
            *("--cluster", f"nats://127.0.0.1:{route}"),
            *("--routes", ",".join(f"nats://127.0.0.1:{port}" for port in routes)),
        ]
        super().__init__(folder, options=options)

    def is_healthy(self) -> bool:
        """Return whether the server knows its leaders, and has what they have."""
        try:
            with urlopen(f"http://127.0.0.1:{self._monitor}/healthz", timeout=1) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False


class NatsCluster:
    """Three NATS servers that form a cluster."""

    def __init__(self, folder: Path) -> None:
        routes = [free_port() for _ in range(3)]
        self.servers = [
            NatsClusterServer(folder / f"n{index}", name=f"n{index}", route=route, routes=routes)
            for index, route in enumerate(routes)
        ]

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        give_up = time.monotonic() + _START_SECONDS
        while not all(server.is_healthy() for server in self.servers):
            if time.monotonic() > give_up:
                raise TimeoutError((self.servers[0].folder / "output").read_text())
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.kill()

    @property
    def url(self) -> str:
        """The URL for ``UNMISSED_LOG_URL``."""
        return ",".join(server.url for server in self.servers).replace(",nats://", ",")


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
