"""Processes of the laboratory: any program, and servers of this package, which can be disturbed and started again."""

import asyncio
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from unmissed.core.errors import ConfigurationError

_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 1.0
_SHOWN_BYTES = 2_000
_PORTS = range(20_000, 32_768)
"""Below the ports of outgoing connections, which begin at 32,768 on Linux and at 49,152 on macOS."""


class ManagedProcess:
    """A program that is started, disturbed and ended, and can be started again: ``with ManagedProcess(...):``.

    ``ready`` returns, within about a second, whether the program can be used. What the program writes is appended to
    ``output``, or shown if there is no such file. Root may start it as another ``user``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self._command = [*command]
        self._ready = ready
        self._output = output
        self._environment = environment
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the process exists, even if it is suspended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the newest process."""
        assert self._process is not None  # noqa: S101  # it was started
        return self._process.pid

    @property
    def output(self) -> str:
        """What the program has written to its file."""
        return self._output.read_text(errors="replace") if self._output else ""

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the process and its threads so far. Only on Linux."""
        tasks = Path(f"/proc/{self.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.glob("*")) / 1e9

    @property
    def resident_bytes(self) -> int:
        """The memory that the process takes now. Only on Linux."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def children(self) -> list[int]:
        """The ids of the processes that this one has started and that still run. Only on Linux."""
        return [*map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]

    def start(self) -> None:
        """Start, and return when the program is ready. A start that fails is repeated if an earlier one succeeded.

        Raises ConfigurationError, with the end of the output, if the program ends or is not ready in time.
        """
        for _ in self._attempts():
            if self._ready():
                return
            time.sleep(_POLL_SECONDS)

    async def launch(self) -> None:
        """Start as ``start`` does, without blocking the event loop."""
        for _ in self._attempts():
            # One probe a thread, not the whole start: a thread cannot be cancelled, and the end of a run waits for it.
            if await asyncio.to_thread(self._ready):
                return
            await asyncio.sleep(_POLL_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs. After one that stops or kills it, the process does nothing more."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(number)
        # On a busy machine, the signal takes effect a little later: the process could still answer. A process that is
        # stopped already would end the wait for its death, so that WSTOPPED is only for SIGSTOP.
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        elif number == signal.SIGKILL:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End the process at once, as a crash would. Does nothing if it does not run."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def terminate(self, *, patience: float = 15.0) -> None:
        """Ask the process to end, and kill it if it has not after ``patience`` seconds."""
        self.signal(signal.SIGTERM)
        give_up = time.monotonic() + patience
        while self.running and time.monotonic() < give_up:
            await asyncio.sleep(_POLL_SECONDS)
        self.kill()

    def exit_code(self, *, seconds: float) -> int:
        """Wait for the end, and return the exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None  # noqa: S101  # it was started
        return self._process.wait(seconds)

    def _attempts(self) -> Iterator[None]:
        """Start the program, and yield before each check of whether it is ready."""
        again = self._process is not None
        give_up = time.monotonic() + _START_SECONDS
        self._spawn()
        while True:
            yield
            # After a crash, the port may be in use for a moment.
            if not self.running and again:
                self._spawn()
            if not self.running or time.monotonic() > give_up:
                raise ConfigurationError(f"{self.name} did not start:\n{self.output[-_SHOWN_BYTES:].strip()}")

    def _spawn(self) -> None:
        with ExitStack() as stack:
            output = stack.enter_context(self._output.open("ab")) if self._output else None
            # In its own session: Ctrl+C in a terminal then ends the run first, which ends its processes.
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                env=self._environment,
                user=self._user,
                start_new_session=True,
            )


class ServerProcess(ManagedProcess):
    """``python -m <command> --port <free port>``, ready when a GET of ``probe`` succeeds. A restart keeps the port."""

    def __init__(
        self,
        *command: str,
        name: str = "server",
        probe: str = "/livez",
        output: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            name,
            [sys.executable, "-m", *command, "--port", str(self.port)],
            ready=partial(succeeds, self.port, probe),
            output=output,
            environment=environment,
        )


@asynccontextmanager
async def running(processes: Sequence[ManagedProcess]) -> AsyncIterator[None]:
    """Run processes while the context is open. They start together, and are killed together."""
    try:
        await asyncio.gather(*(process.launch() for process in processes))
        yield
    finally:
        for process in processes:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Return different ports on this machine that are free now, and that no outgoing connection gets."""
    # Not those that the kernel chooses: it may give one to a client before the server starts, or while it restarts.
    # Not the shared generator: Hypothesis seeds it alike in parallel processes.
    chance = random.SystemRandom()
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = chance.choice(_PORTS)
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                ports.append(port)
    return ports


def answers(port: int, request: bytes, *, expected: bytes | tuple[bytes, ...]) -> bool:
    """Return whether a program on this machine answers a request with a text that begins as expected."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(request)
            return connection.recv(1_024).startswith(expected)
    except OSError:
        return False


def succeeds(port: int, path: str) -> bool:
    """Return whether an HTTP server on this machine answers a GET request with status 200."""
    return fetched(port, path) is not None


def fetched(port: int, path: str) -> bytes | None:
    """Return the body of the answer of an HTTP server on this machine, or None without an answer of status 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == HTTPStatus.OK else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
