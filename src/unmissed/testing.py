"""For tests: a clock that stands still, a socket that keeps what it is given, a live server that drops its clients."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

import pytest
import uvicorn
from fastapi import FastAPI

from unmissed.api.tokens import PUBLISH_SCOPE, issue_token_under
from unmissed.core.encoding import decode_json
from unmissed.core.messages import Message
from unmissed.delivery.manager import ConnectionManager
from unmissed.delivery.slices import Slice
from unmissed.delivery.socket import Listener
from unmissed.main import create_app
from unmissed.server import Server
from unmissed.settings import Settings

SECRET = "only-for-tests-and-therefore-public-0123456789"  # noqa: S105  # it guards nothing

_START_SECONDS = 10.0
_STOP_SECONDS = 60.0


class ManualClock:
    """A monotonic and a wall clock in one, in seconds, that moves when it is told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeSocket:
    """A socket in memory. ``frames`` is all it was given; ``pause`` and ``resume`` play the network."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.aborted = False
        self.writable = True
        self.taken = 0
        self._listener: Listener | None = None

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Every frame so far, decoded."""
        return [decode_json(payload) for payload in self.payloads]

    @property
    def idle(self) -> bool:
        """Whether the network takes what it is given."""
        return self.writable

    def attach(self, listener: Listener) -> None:
        """Call this listener back from now on."""
        self._listener = listener

    def write(self, piece: Slice) -> None:
        """Keep the payloads."""
        assert self.writable, "written to although it takes nothing"  # noqa: S101  # the contract of a socket
        self.payloads.extend(piece.payloads)
        self.taken += 1

    def close(self, code: int, reason: str = "") -> None:
        """Remember why, and be gone."""
        self.closed_with = self.closed_with or (code, reason)
        self.drop()

    def abort(self) -> None:
        """Be gone at once."""
        self.aborted = True
        self.drop()

    def pause(self) -> None:
        """Take nothing more."""
        self.writable = False

    def resume(self) -> None:
        """Take more, and say so."""
        self.writable = True
        if self._listener is not None:
            self._listener.socket_writable()

    def receive(self, frame: str | bytes) -> None:
        """Play the client sending a frame."""
        if self._listener is not None:
            self._listener.socket_received(frame)

    def drop(self) -> None:
        """Play the network failing."""
        self.writable = False
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.socket_closed()


class LiveServer:
    """An application on a real socket of this machine, in a thread: ``with LiveServer() as server:``.

    Without an application it serves Unmissed's own, under ``settings``. ``options`` go to ``uvicorn.Config``.
    """

    def __init__(
        self,
        app: FastAPI | None = None,
        *,
        manager: ConnectionManager | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        self._app, self._manager = app, manager
        self._settings = settings or (manager.settings if manager else Settings.load(jwt_secret=SECRET))
        self._options = options
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where REST is, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def websocket_url(self) -> str:
        """Where the WebSocket is."""
        return f"ws://127.0.0.1:{self._port}/ws"

    @property
    def manager(self) -> ConnectionManager:
        """The manager that is served."""
        return self._serving

    def start(self) -> None:
        """Serve, on the same port as before if there was one."""
        app = self._app or create_app(self._settings)
        self._serving = self._manager or app.state.manager
        self._listening = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        self._port = self._listening.getsockname()[1]
        config = uvicorn.Config(app, **{"log_level": "warning", "ws_per_message_deflate": False, **self._options})
        self._server = Server(config, manager=self._serving)
        self._thread = threading.Thread(target=self._run, name="unmissed-live-server", daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            raise TimeoutError("the server did not start: see its log above")

    def stop(self) -> None:
        """Stop as a SIGTERM would."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError("the server does not stop: something keeps its event loop busy")
        self._listening.close()

    def restart(self) -> None:
        """Stop, and serve anew: the log is lost, the epoch is another."""
        self.stop()
        self.start()

    def drop(self) -> None:
        """Cut every client off, as a failing network would."""
        self.call(self._drop)

    def call(self, act: Any, *arguments: Any) -> Any:
        """Call a function on the server's event loop, and return its result."""

        async def calling() -> Any:
            return act(*arguments)

        return self.run(calling())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's event loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_SECONDS)

    def publish(self, type: str, data: object = None, *, users: list[str] | None = None) -> Message:
        """Publish a message from this thread, and return it stamped."""
        return self.manager.publish_threadsafe({"type": type, "data": data}, users=users)

    def token(self, user_id: str = "alice", *, scope: str = PUBLISH_SCOPE, expires_in: float = 3600.0) -> str:
        """Return a token of this user under the settings' secret."""
        return issue_token_under(self._settings, user_id=user_id, scope=scope, expires_in=expires_in)

    def headers(self, user_id: str = "alice") -> dict[str, str]:
        """Return the header that authenticates this user."""
        return {"Authorization": f"Bearer {self.token(user_id)}"}

    def _run(self) -> None:
        self._server.config.load()
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._server.serve(sockets=[self._listening]))
            tasks.create_task(self._tell_when_ready())

    async def _tell_when_ready(self) -> None:
        while not self._server.started:
            await asyncio.sleep(0.005)
        self._ready.set()

    def _drop(self) -> None:
        for connection in tuple(self._server.server_state.connections):
            connection.transport.abort()


@pytest.fixture
def unmissed_server() -> Iterator[LiveServer]:
    """Give a test a live server of its own. In ``conftest.py``: ``from unmissed.testing import unmissed_server``."""
    with LiveServer() as server:
        yield server
