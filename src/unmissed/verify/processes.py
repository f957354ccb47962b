"""Processes that a run starts, kills, stops and starts again."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from unmissed.core.errors import ConfigurationError

START_SECONDS = 30.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 1.0
_SHOWN_BYTES = 2_000


class ManagedProcess:
    """A program with its output in a file. ``ready`` tells whether it can be used."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        ready: Callable[[], Awaitable[bool]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._command = [*command]
        self._output = folder / f"{name}.log"
        self._ready = ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, and return when the program is ready. A start that fails is repeated if an earlier one succeeded.

        Raises ConfigurationError, with the end of the output, if it ends or is not ready in time.
        """
        again = self._process is not None
        give_up = time.monotonic() + START_SECONDS
        self._spawn()
        while not await self._ready():
            if not self.running and again:
                self._spawn()
            if not self.running or time.monotonic() > give_up:
                raise ConfigurationError(f"{self.name} did not start:\n{self._end_of_output()}")
            await asyncio.sleep(_POLL_SECONDS)

    @property
    def running(self) -> bool:
        """Whether the process exists, even if it is suspended."""
        return self._process is not None and self._process.poll() is None

    async def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._send(signal.SIGKILL)
        await self._ended()

    async def terminate(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        self._send(signal.SIGTERM)
        if not await self._ended():
            await self.kill()

    def suspend(self) -> None:
        """Stop the process without ending it."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended process continue."""
        self._send(signal.SIGCONT)

    def end(self) -> None:
        """Kill the process, and wait until it is gone. Does nothing if it never started."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            self._process.wait()

    def _spawn(self) -> None:
        # In its own session, Ctrl+C in a terminal ends the run, and not its processes before it.
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)

    async def _ended(self) -> bool:
        """Wait for the end, and return whether it came in time."""
        give_up = time.monotonic() + _STOP_SECONDS
        while self.running and time.monotonic() < give_up:
            await asyncio.sleep(_POLL_SECONDS / 10)
        return not self.running

    def _end_of_output(self) -> str:
        return self._output.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace").strip()


def free_ports(count: int) -> list[int]:
    """Return different ports on this machine that are free now."""
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in listening]


def own_environment(settings: Mapping[str, str], defaults: Mapping[str, str], *, folder: Path) -> dict[str, str]:
    """Return the environment of a node: ours without its keys, with these settings, and with defaults for others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UNMISSED_JWT_")}
    if inherited.pop("PYTHONDONTWRITEBYTECODE", ""):
        # Each restart would compile every module, for seconds.
        inherited["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return {**defaults, **inherited, **settings}


async def answers(port: int, request: bytes, *, expected: bytes) -> bool:
    """Return whether a program on this machine answers a request with a line that begins as expected."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                return (await reader.readline()).startswith(expected)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def succeeds(port: int, path: str) -> bool:
    """Return whether an HTTP server on this machine answers a GET request with status 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    return await answers(port, request.encode(), expected=b"HTTP/1.1 200 ")
