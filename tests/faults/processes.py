"""A server as a process of its own."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx

from raw_client import RawClient
from unmissed.core.audience import ADMIN_SCOPE, PUBLISH_SCOPE
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings
from unmissed.testing import SECRET

_START_SECONDS = 60


class ServerProcess:
    """``python -m <command> --port <free port>`` with these settings. What it writes is in ``log``."""

    def __init__(self, *command: str, log: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", *command, "--port", str(self.port)]
        self._log = log
        variables = {f"UNMISSED_{name.upper()}": value for name, value in settings.items()}
        self._environment = {**os.environ, "UNMISSED_JWT_SECRET": SECRET, **variables}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def file_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))  # noqa: PTH208  # files of the kernel

    @property
    def resident_bytes(self) -> int:
        """Memory that the process takes now."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def start(self) -> None:
        """Start, and return when the server answers. A second start keeps the port."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        give_up = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.running, self.output
            assert time.monotonic() < give_up, self.output
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=_START_SECONDS).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.exit_code(seconds=10)

    def kill_a_worker(self) -> None:
        """Kill one of the processes that serve for this one."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            self._process.send_signal(number)

    def exit_code(self, *, seconds: float) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def limit_file_descriptors(self, count: int) -> None:
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (count, count))

    def headers(self, user_id: str = "alice") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user_id)}"}

    def token(self, user_id: str = "alice") -> str:
        settings = Settings.load(jwt_secret=SECRET)
        return issue_token_under(settings, user_id=user_id, scope=f"{PUBLISH_SCOPE} {ADMIN_SCOPE}", expires_in=3_600.0)

    def publish(self, *data: object) -> None:
        """Publish messages as one batch."""
        with httpx.Client(timeout=30) as http:
            batch = [{"type": "count", "data": each} for each in data]
            response = http.post(f"{self.url}/websocket/messages", headers=self.headers(), json=batch)
        assert 201 == response.status_code

    def websocket(self, user_id: str) -> RawClient:
        """Open a WebSocket that reads only when it is told to, and has a small buffer."""
        client = RawClient(self.url, receive_buffer=4_096)
        return client.handshake(f"Authorization: Bearer {self.token(user_id)}")

    def event_stream(self, user_id: str) -> RawClient:
        """Open an event stream that reads only when it is told to, and has a small buffer."""
        client = RawClient(self.url, receive_buffer=4_096)
        client.send(
            b"GET /websocket/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %b\r\n\r\n"
            % self.token(user_id).encode()
        )
        assert client.head().startswith(b"HTTP/1.1 200")
        return client

    def slow_post(self) -> RawClient:
        """Begin a request whose body does not come."""
        client = RawClient(self.url)
        client.send(
            b"POST /websocket/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\nAuthorization: Bearer %b\r\n\r\n{" % self.token().encode()
        )
        return client
