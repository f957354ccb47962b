"""A server as a process of its own, with clients that may misbehave."""

import os
import resource
import signal
from pathlib import Path

import httpx

from raw_client import RawClient
from unmissed.core.audience import ADMIN_SCOPE, PUBLISH_SCOPE
from unmissed.lab import process
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings
from unmissed.testing import SECRET


class ServerProcess(process.ServerProcess):
    """``python -m <command>`` with these settings. What it writes is in ``log``."""

    def __init__(self, *command: str, log: Path, **settings: str) -> None:
        variables = {f"UNMISSED_{name.upper()}": value for name, value in settings.items()}
        environment = {**os.environ, "UNMISSED_JWT_SECRET": SECRET, **variables}
        super().__init__(*command, output=log, environment=environment)

    @property
    def file_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208  # files of the kernel

    def limit_file_descriptors(self, count: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (count, count))

    def kill_a_worker(self) -> None:
        """Kill one of the processes that serve for this one."""
        workers = [pid for pid in self.children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)

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
