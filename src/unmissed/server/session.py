"""The ASGI side of a WebSocket: its scope, and the events between it and the application."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from http.client import responses
from typing import Any, Protocol
from urllib.parse import quote, unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from unmissed.core.wire import CloseCode
from unmissed.delivery.socket import SOCKET_EXTENSION

Event = dict[str, Any]

logger = logging.getLogger("uvicorn.error")


class Channel(Protocol):
    """What a session needs of the WebSocket below it."""

    config: Config
    app_state: dict[str, Any]
    transport: asyncio.Transport
    writable: bool

    @property
    def closing(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    @property
    def close_code(self) -> tuple[int, str]:
        """Why it is over: code and reason."""
        ...

    def respond(self, response: Response) -> None:
        """Answer the handshake."""
        ...

    def send(self, data: str | bytes) -> None:
        """Send a message."""
        ...

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake."""
        ...

    def fail(self, code: int, reason: str = "") -> None:
        """Close without waiting for the client."""
        ...


class AsgiSession:
    """Runs the application for one WebSocket (ASGI 3, spec 2.4), until it returns or hands the WebSocket over."""

    def __init__(self, channel: Channel, request: Request, response: Response) -> None:
        self._channel = channel
        self._response = response
        self._scope = _scope(channel, request)
        self._events: deque[Event] = deque([{"type": "websocket.connect"}])
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._denial: Event | None = None
        self._accepted = False
        self._over = False
        self._handed_over = False
        self._reading_paused = False
        self._pinged: bytes | None = None
        self._keepalive: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
        """Run the application in a task that uvicorn knows of."""
        self._loop = loop
        task = loop.create_task(self._run())
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    def hand_over(self) -> Iterable[str | bytes]:
        """Stop being the listener; return the frames that the application has not read."""
        self._handed_over = True
        self._stop_keepalive()
        self._resume_reading()
        unread = [event for event in self._events if event["type"] == "websocket.receive"]
        self._events.clear()
        return [event.get("text") or event.get("bytes") or "" for event in unread]

    # Listener

    def socket_writable(self) -> None:
        """Let ``send`` continue."""
        self._writable.set()

    def socket_received(self, frame: str | bytes) -> None:
        """Queue one message, and read no more until the application took it."""
        self._put({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})
        if not self._reading_paused:
            self._reading_paused = True
            self._channel.transport.pause_reading()

    def socket_closed(self) -> None:
        """Tell the application that the client is gone."""
        self._over = True
        self._stop_keepalive()
        self._writable.set()
        code, reason = self._channel.close_code
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def take_pong(self, payload: bytes) -> None:
        """Take note that the client is alive."""
        if payload == self._pinged:
            self._pinged = None

    # The application

    async def _run(self) -> None:
        try:
            await self._channel.config.loaded_app(self._scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.SERVICE_RESTART)
            raise
        except Exception:
            logger.exception("Exception in ASGI application")
            self._end(HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR)
        else:
            if not self._handed_over:
                self._end(HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.NORMAL)

    def _end(self, status: HTTPStatus, code: CloseCode) -> None:
        """End a WebSocket that the application left as it was."""
        if self._accepted:
            self._channel.close(code)
        elif not self._channel.transport.is_closing():
            self._deny(status, [], b"")

    async def _receive(self) -> Event:
        while not self._events:
            self._wake.clear()
            await self._wake.wait()
        event = self._events.popleft()
        if not self._events:
            self._resume_reading()
        return event

    async def _send(self, event: Event) -> None:
        if self._over:
            raise ClientDisconnected
        match event["type"]:
            case "websocket.accept" if not self._accepted:
                self._accept(event)
            case "websocket.send" if self._accepted and not self._channel.closing:
                await self._until_writable()
                data = event.get("bytes")
                self._channel.send(event["text"] if data is None else data)
            case "websocket.close" if self._accepted:
                self._channel.close(event.get("code", CloseCode.NORMAL), event.get("reason") or "")
                self._resume_reading()
            case "websocket.close":
                self._deny(HTTPStatus.FORBIDDEN, [], b"")
            case "websocket.http.response.start" if not self._accepted:
                self._denial = {"status": event["status"], "headers": event.get("headers", ()), "body": b""}
            case "websocket.http.response.body" if self._denial is not None:
                self._denial["body"] += event.get("body", b"")
                if not event.get("more_body", False):
                    self._deny(self._denial["status"], self._denial["headers"], self._denial["body"])
            case kind:
                raise RuntimeError(f"unexpected ASGI message {kind!r} in this state of the WebSocket")

    def _accept(self, event: Event) -> None:
        headers = self._response.headers
        for name, value in event.get("headers", ()):
            headers[name.decode("latin-1")] = value.decode("latin-1")
        if event.get("subprotocol"):
            headers["Sec-WebSocket-Protocol"] = event["subprotocol"]
        self._log("[accepted]")
        self._accepted = True
        self._channel.respond(self._response)
        self._schedule_ping()

    def _deny(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self._log(str(int(status)))
        fields = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        fields.setdefault("Connection", "close")
        fields.setdefault("Content-Length", str(len(body)))
        phrase = responses.get(status, "")
        self._channel.respond(Response(int(status), phrase, fields, body))

    def _log(self, outcome: str) -> None:
        """Log as uvicorn does, but without the query: there may be a token in it."""
        client = ":".join(map(str, self._scope["client"] or ()))
        logger.info('%s - "WebSocket %s" %s', client, quote(self._scope["path"]), outcome)

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._wake.set()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._channel.transport.resume_reading()

    async def _until_writable(self) -> None:
        while not self._channel.writable and not self._channel.closing:
            self._writable.clear()
            await self._writable.wait()
        if self._over:
            raise ClientDisconnected

    # Keepalive

    def _schedule_ping(self) -> None:
        interval = self._channel.config.ws_ping_interval
        if interval:
            self._keepalive = self._loop.call_later(interval, self._ping)

    def _ping(self) -> None:
        if self._channel.closing:
            return
        self._pinged = secrets.token_bytes(4)
        self._channel.ping(self._pinged)
        timeout = self._channel.config.ws_ping_timeout
        if timeout:
            self._keepalive = self._loop.call_later(timeout, self._judge_pong)
        else:
            self._schedule_ping()

    def _judge_pong(self) -> None:
        if self._pinged is None:
            self._schedule_ping()
        else:
            self._channel.fail(CloseCode.INTERNAL_ERROR, "no pong in time")

    def _stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None


def _scope(channel: Channel, request: Request) -> dict[str, Any]:
    config, transport = channel.config, channel.transport
    raw_path, _, query = request.path.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(transport) else "ws",
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "root_path": config.root_path,
        "path": config.root_path + unquote(raw_path),
        "raw_path": (config.root_path + raw_path).encode("ascii"),
        "query_string": query.encode("ascii"),
        "headers": [
            (name.lower().encode("ascii"), value.encode("latin-1")) for name, value in request.headers.raw_items()
        ],
        "subprotocols": [
            name.strip() for value in request.headers.get_all("Sec-WebSocket-Protocol") for name in value.split(",")
        ],
        "state": channel.app_state.copy(),
        "extensions": {"websocket.http.response": {}, SOCKET_EXTENSION: channel},
    }
