"""An application of a user in a folder of its own, which a server serves as a process."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from unmissed import issue_token
from unmissed.testing import SECRET

FIVE_LINES = """
from fastapi import FastAPI
from unmissed import ConnectionManager, create_router

manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))
"""

TALKATIVE = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from unmissed import ConnectionManager, create_router

manager = ConnectionManager()

@manager.on_disconnect
async def left(event):
    print("left", event.code, flush=True)

@asynccontextmanager
async def lifespan(app):
    print("lifespan begins", flush=True)
    async with manager:
        yield
    print("lifespan ends", flush=True)

app = FastAPI(lifespan=lifespan)
app.include_router(create_router(manager))
"""
"""An application with a lifespan of its own, which shows what happens."""

TOKEN = issue_token(SECRET, user_id="alice", scope="messages:publish", expires_in=3_600)
_STOP_SECONDS = 60.0


class Served:
    """A server that runs. ``lines`` yields what it writes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.lines: Iterator[str] = process.stdout
        self._process = process

    def line_with(self, text: str) -> str:
        """Return what is written up to a line with a text. Raises StopIteration if the server ends first."""
        shown = []
        for line in self.lines:
            shown.append(line)
            if text in line:
                return "".join(shown)
        raise StopIteration("".join(shown))

    def port(self) -> int:
        """Return the port that uvicorn or gunicorn writes."""
        for line in self.lines:
            if found := re.search(r"(?:running on|Listening at:) https?://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
        raise StopIteration

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return the exit status and the rest of what is written."""
        self.send(number)
        return self.end()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait until the server ends, and return the same."""
        rest = "".join(self.lines)
        return self._process.wait(_STOP_SECONDS), rest


@contextmanager
def served(folder: Path, *command: str, **variables: str) -> Iterator[Served]:
    """Run ``python -m <command>`` in a folder until the end of the block."""
    environment = {**os.environ, "UNMISSED_JWT_SECRET": SECRET, "PYTHONUNBUFFERED": "1", **variables}
    with subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Served(process)
        finally:
            process.terminate()


def websocket(port: int, path: str = "/ws", *, token: str = TOKEN) -> ClientConnection:
    """Connect a client."""
    url = f"ws://127.0.0.1:{port}{path}"
    return connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None, close_timeout=60)


@contextmanager
def websockets(port: int, count: int, path: str = "/ws") -> Iterator[list[ClientConnection]]:
    """Connect several clients, until the end of the block. Each has received ``connected``."""
    with ExitStack() as stack:
        clients = [stack.enter_context(websocket(port, path)) for _ in range(count)]
        for client in clients:
            assert "connected" == json.loads(client.recv(timeout=60))["type"]
        yield clients


def message_of(client: ClientConnection) -> int:
    """Return the number of the next message that a client receives."""
    while "timestamp" not in (frame := json.loads(client.recv(timeout=60))):
        pass
    number: int = frame["sequence_number"]
    return number


def farewell(client: ClientConnection) -> tuple[str, int | None]:
    """Return the type of the last frame that a client receives, and the code with which it is closed."""
    last = ""
    try:
        while True:
            last = json.loads(client.recv(timeout=60))["type"]
    except ConnectionClosed:
        return last, client.close_code
