"""The ASGI side of a WebSocket: the events to and from the application."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.client import responses

from websockets.datastructures import Headers
from websockets.http11 import Response

from unmissed.core.close_codes import CloseCode
from unmissed.delivery.portable import AsgiEvent
from unmissed.delivery.socket import UNDECIDED_EVENT
from unmissed.framework_names import ClientDisconnected, Config, ServerState
from unmissed.server.native_websocket import NativeWebSocket
from unmissed.server.plain_handshake import AsgiScope, address_and_path

logger = logging.getLogger("uvicorn.error")


class AsgiBridge:
    """Runs the application for one WebSocket (ASGI 3, spec 2.4), until it returns or hands the WebSocket over.

    ``response`` is the answer to the handshake if the application accepts. ``respond`` sends it, or a refusal.
    """

    def __init__(
        self,
        websocket: NativeWebSocket,
        scope: AsgiScope,
        response: Response,
        *,
        respond: Callable[[Response], None],
        config: Config,
    ) -> None:
        self._websocket = websocket
        self._scope = scope
        self._response = response
        self._respond = respond
        self._config = config
        self._events: deque[AsgiEvent] = deque([{"type": "websocket.connect"}])
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._denial: AsgiEvent | None = None
        self._accepted = False
        self._closed = False
        """Whether the application has closed the WebSocket."""
        self._undecided = False
        self._over = False
        self._handed_over = False
        self._reading_paused = False
        self._pinged: bytes | None = None
        self._keepalive: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
        """Run the application in a task that uvicorn tracks."""
        self._loop = loop
        task = loop.create_task(self._run())
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    def hand_over(self) -> list[str | bytes]:
        """Stop listening, and return the frames that the application has not read. Reading stays paused if any are."""
        self._handed_over = True
        # The connection that takes over sends its own pings.
        self._stop_keepalive()
        self._decide("[accepted]")
        unread = [event for event in self._events if event["type"] == "websocket.receive"]
        self._events.clear()
        return [event["text"] if "text" in event else event["bytes"] for event in unread]

    # SocketListener

    def socket_writable(self) -> None:
        """Let ``send`` continue."""
        self._writable.set()

    def socket_received(self, frame: str | bytes) -> None:
        """Buffer one message, and pause reading until the application has received it."""
        self._put({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})
        if not self._reading_paused:
            self._reading_paused = True
            self._websocket.pause_reading()

    def socket_closed(self, code: int, reason: str) -> None:
        """Report to the application that the client has disconnected."""
        self._over = True
        self._stop_keepalive()
        # Wakes ``send``, which then raises.
        self._writable.set()
        self._put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def take_pong(self, payload: bytes) -> None:
        """Record the pong for a keepalive ping."""
        if payload == self._pinged:
            self._pinged = None

    # The application

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            # uvicorn cancels what still runs at the end of a shutdown.
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.SERVICE_RESTART)
            raise
        except Exception:
            logger.exception("Exception in ASGI application")
            self._end(HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR)
        else:
            if not self._handed_over:
                self._end(HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.NORMAL)

    def _end(self, status: HTTPStatus, code: CloseCode) -> None:
        """Close a WebSocket that the application neither closed nor refused."""
        if self._accepted:
            self._decide(str(int(code)))
            self._websocket.close(code)
        elif not self._websocket.transport.is_closing():
            self._deny(status, [], b"")

    async def _receive(self) -> AsgiEvent:
        while not self._events:
            self._wake.clear()
            await self._wake.wait()
        event = self._events.popleft()
        if not self._events:
            self._resume_reading()
        return event

    async def _send(self, event: AsgiEvent) -> None:
        if self._over:
            raise ClientDisconnected
        match event["type"]:
            case "websocket.accept" if not self._accepted:
                self._accept(event)
            case "websocket.send" if self._accepted and not self._closed:
                self._decide("[accepted]")
                await self._until_writable()
                data = event.get("bytes")
                self._websocket.send(event["text"] if data is None else data)
            case "websocket.close" if self._accepted:
                self._closed = True
                self._decide(str(event.get("code", CloseCode.NORMAL)))
                self._websocket.close(event.get("code", CloseCode.NORMAL), event.get("reason") or "")
                # The client's close frame comes after the frames that the application has not received.
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

    def _accept(self, event: AsgiEvent) -> None:
        headers = self._response.headers
        for name, value in event.get("headers", ()):
            headers[name.decode("latin-1")] = value.decode("latin-1")
        if event.get("subprotocol"):
            headers["Sec-WebSocket-Protocol"] = event["subprotocol"]
        self._accepted = self._undecided = True
        # An endpoint that may still refuse the client is logged when it decides: one line for each handshake.
        if not event.get(UNDECIDED_EVENT):
            self._decide("[accepted]")
        self._respond(self._response)
        self._schedule_ping()

    def _deny(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self._log(str(int(status)))
        fields = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        # The parser of requests has left this connection, so no other request can follow.
        fields.setdefault("Connection", "close")
        fields.setdefault("Content-Length", str(len(body)))
        phrase = responses.get(status, "")
        self._respond(Response(int(status), phrase, fields, body))

    def _decide(self, outcome: str) -> None:
        """Log what the application has decided about an accepted client, once."""
        if self._undecided:
            self._undecided = False
            self._log(outcome)

    def _log(self, outcome: str) -> None:
        """Log in uvicorn's format."""
        logger.info('%s - "WebSocket %s" %s', *address_and_path(self._scope), outcome)

    def _put(self, event: AsgiEvent) -> None:
        self._events.append(event)
        self._wake.set()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._websocket.resume_reading()

    async def _until_writable(self) -> None:
        while not self._websocket.writable and not self._websocket.closing:
            self._writable.clear()
            await self._writable.wait()
        # A lost connection is closing before ``socket_closed``, which comes in a later iteration of the event loop.
        if self._websocket.closing:
            raise ClientDisconnected

    # Keepalive

    def _schedule_ping(self) -> None:
        interval = self._config.ws_ping_interval
        if interval:
            self._keepalive = self._loop.call_later(interval, self._ping)

    def _ping(self) -> None:
        if self._websocket.closing:
            return
        # Random: late answers to earlier pings, and pongs that answer none (RFC 6455 section 5.5.3), do not count.
        self._pinged = secrets.token_bytes(4)
        self._websocket.ping(self._pinged)
        timeout = self._config.ws_ping_timeout
        if timeout:
            self._keepalive = self._loop.call_later(timeout, self._check_pong)
        else:
            self._schedule_ping()

    def _check_pong(self) -> None:
        # While the application has not received earlier messages, reading is paused, and the pong cannot arrive.
        if self._pinged is None or self._reading_paused:
            self._schedule_ping()
        else:
            self._websocket.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def _stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None
