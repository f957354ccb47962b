"""A live test server that can drop its clients and restart."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.messages import Message
from unmissed.main import create_app
from unmissed.manager import ConnectionManager
from unmissed.security.tokens import issue_token_under
from unmissed.server import Server
from unmissed.settings import Settings

SECRET = "only-for-tests-and-therefore-public-0123456789"  # noqa: S105  # it protects nothing

_START_SECONDS = 10.0
_STOP_SECONDS = 60.0


class _PromptServer(Server):
    """A server that ends as soon as it is asked to: uvicorn looks ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        tenths = 0
        while not await self.on_tick(tenths):
            tenths += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.stopping.wait()


class LiveServer:
    """An application on a real local socket, in a thread: ``with LiveServer() as server:``.

    Without an application it serves ``create_app(settings)``. ``options`` are passed to ``uvicorn.Config``.
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
        self._settings = settings or (manager.settings if manager else Settings(jwt_secret=SecretStr(SECRET)))
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
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def websocket_url(self) -> str:
        """The URL of the WebSocket."""
        return f"ws://127.0.0.1:{self._port}/ws"

    @property
    def manager(self) -> ConnectionManager:
        """The manager that is served."""
        return self._serving

    def start(self) -> None:
        """Start serving. A restart keeps the port."""
        app = self._app or create_app(self._settings)
        self._serving = self._manager or app.state.manager
        self._listening = socket.create_server(("127.0.0.1", self._port), backlog=1024)
        self._port = self._listening.getsockname()[1]
        config = uvicorn.Config(app, **{"log_level": "warning", "ws_per_message_deflate": False, **self._options})
        self._server = _PromptServer(config)
        self._thread = threading.Thread(target=self._run, name="unmissed-live-server", daemon=True)
        self._decided = threading.Event()
        self._failure: BaseException | None = None
        self._thread.start()
        if not self._decided.wait(_START_SECONDS):
            raise TimeoutError("the server did not start: see its log output above")
        if not self._server.started:
            self._thread.join(_STOP_SECONDS)
            self._listening.close()
            raise RuntimeError("the application failed to start: see its log output above") from self._failure

    def stop(self) -> None:
        """Shut down the server, as SIGTERM would."""
        self._server.should_exit = True
        with suppress(RuntimeError):  # The server has ended already, and its event loop is closed.
            self._loop.call_soon_threadsafe(self._server.stopping.set)
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError("the server did not stop: its event loop may be blocked")
        self._listening.close()

    def restart(self) -> None:
        """Stop and start again. The memory log is lost, and a new epoch starts."""
        self.stop()
        self.start()

    def drop(self) -> None:
        """Disconnect every client, as a network failure would."""
        self.call(self._drop)

    def call(self, act: Any, *arguments: Any) -> Any:
        """Call a function on the server's event loop, and return its result."""

        async def calling() -> Any:
            return act(*arguments)

        return self.run(calling())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's event loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_SECONDS)

    def publish(
        self,
        type: str,
        data: object = ...,
        *,
        users: list[str] | None = None,
        topics: list[str] | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Message:
        """Publish a message from this thread, and return it stamped. Without ``data`` it has none.

        Other fields of the message are further arguments, such as ``key="cart"``.
        """
        message = {"type": type, **fields} if data is ... else {"type": type, "data": data, **fields}
        return self.manager.publish_threadsafe(message, users=users, topics=topics, idempotency_key=idempotency_key)

    def published(self, type: str | None = None) -> list[Message]:
        """Return the messages that are retained now, whoever may see them, or those of one type, oldest first."""
        messages: list[Message] = self.call(list, self.manager.window)
        return [message for message in messages if type in (None, message.type)]

    def token(
        self,
        user_id: str = "alice",
        *,
        scope: str = PUBLISH_SCOPE,
        topics: Iterable[str] = (),
        expires_in: float = 3600.0,
    ) -> str:
        """Return a token for this user, signed with the secret of the settings."""
        return issue_token_under(self._settings, user_id=user_id, scope=scope, topics=topics, expires_in=expires_in)

    def headers(self, user_id: str = "alice") -> dict[str, str]:
        """Return the header that authenticates this user."""
        return {"Authorization": f"Bearer {self.token(user_id)}"}

    def _run(self) -> None:
        try:
            self._server.config.load()
            with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:
            # uvicorn raises SystemExit if the application cannot start.
            self._failure = error
            if self._decided.is_set():
                raise
        finally:
            self._decided.set()

    async def _serve(self) -> None:
        reporting = asyncio.create_task(self._report_ready())
        try:
            await self._server.serve(sockets=[self._listening])
        finally:
            reporting.cancel()

    async def _report_ready(self) -> None:
        while not self._server.started:
            await asyncio.sleep(0.005)
        self._decided.set()

    def _drop(self) -> None:
        for connection in tuple(self._server.server_state.connections):
            connection.transport.abort()
