"""The connection of a stream, which is made again whenever it is lost, and continues where it was."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConcurrencyError, ConnectionClosed, InvalidHandshake, InvalidStatus

from unmissed.client.connecting import (
    TokenProvider,
    TokenSource,
    close_cause,
    connection_url,
    failure_cause,
    one_line,
    websocket_url,
)
from unmissed.client.received import frame_of, is_ephemeral, stamped_number
from unmissed.client.request_sender import RequestSender
from unmissed.core.client_frames import Authenticate
from unmissed.core.close_codes import CloseCode, Reaction, reaction_to
from unmissed.core.errors import ConnectionRefused, RequestUnanswered
from unmissed.core.server_frames import (
    AuthenticatedFrame,
    ConnectedFrame,
    ErrorFrame,
    FollowingFrame,
    HeartbeatFrame,
    PublishedFrame,
    ReconnectFrame,
    ResultFrame,
    StateFrame,
)
from unmissed.retrying import Backoff
from unmissed.security.redaction import redact, shown_url

logger = logging.getLogger("unmissed.client")

Status = Literal["connecting", "recovering", "live", "waiting", "closed"]
"""``waiting`` is the pause before the next attempt, and ``recovering`` lasts until what was missed has arrived."""

CLOSE_SECONDS = 0.5
_UNREAD_BYTES = 4_194_304
_FRAME_BYTES = 100
"""Memory that an unread frame takes besides its text."""

_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_RENEWED_AFTER = 0.8
"""The share of its remaining life after which a token is renewed."""

_RETRIED_STATUSES = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Place:
    """A position and its epoch. None is for the server to decide."""

    number: int | None
    epoch: str | None


class Link:
    """Receives in a task of its own, whether its stream is read or not, since requests wait for their answers.

    What the stream has not read is kept, up to 4 MiB. Beyond that, nothing is received, so that the server waits. But
    while a request waits for its answer, further messages are dropped, and requested again once the stream has read
    what is kept.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenProvider,
        place: Place,
        topics: Iterable[str] | None,
        sender: RequestSender,
        state: bool = False,
        close_seconds: float = CLOSE_SECONDS,
        unread_bytes: int = _UNREAD_BYTES,
    ) -> None:
        self.status: Status = "connecting"
        self.topics: tuple[str, ...] = ()
        """What the present connection follows, or the last one."""
        self.reconnects = 0
        self.shown_url = shown_url(websocket_url(url))
        self._url = websocket_url(url)
        self._token = TokenSource(token)
        self._number, self._epoch = place.number, place.epoch
        """The position behind the frames that are kept. Reconnects continue there."""
        self._chosen = None if topics is None else list(topics)
        self._state = state
        self._sender = sender
        self._requests = sender.requests
        self._close_seconds = close_seconds
        self._most_unread = unread_bytes
        self._unread = deque[bytes]()
        self._unread_bytes = 0
        self._dropping = False
        """Whether messages after the unread ones were dropped."""
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        """Set for the stream that waits for a frame, and for the task that waits for room for one."""
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._websocket: ClientConnection | None = None
        self._sends = False
        """Whether requests are sent on the present connection."""
        self._beside: set[asyncio.Task[None]] = set()
        """The tasks that end with the present connection."""
        self._renewal: asyncio.Task[None] | None = None
        self._backoff = Backoff(first=_FIRST_BACKOFF_SECONDS, most=_MAX_BACKOFF_SECONDS)
        self._refused_tokens = 0
        self._requested_pause: float | None = None
        self._down = 0.0

    async def next_frame(self) -> bytes | None:
        """Return the next frame that may move the position, or None when the link is closed.

        Raises ConnectionRefused, and what the function for tokens raises. Then the next call, or the next request,
        tries again.
        """
        while not self._unread:
            if self._closed:
                return None
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._dropping:
                await self.continue_after(Place(self._number, self._epoch))
            self._start()
            self._arrived.clear()
            await self._arrived.wait()
        text = self._unread.popleft()
        self._unread_bytes -= len(text) + _FRAME_BYTES
        self._room.set()
        return text

    async def request(self, frame: Mapping[str, Any]) -> Any:
        """Send a frame with an id, now or when there is a connection, and return the result that answers it.

        Raises RequestRefused, RequestUnanswered, TooManyRequests, InvalidMessage, and what ends the link.
        """
        if self._closed:
            raise RequestUnanswered("the stream is closed, and the request was not sent: open another stream")
        request = self._requests.add(frame)
        self._start()
        self._sender.wake()
        self._room.set()
        try:
            return await request.answer
        finally:
            self._requests.forget(request)

    def drop(self, down: float) -> bool:
        """Drop the connection, as a network failure would, and return whether there was one."""
        if self._websocket is None:
            return False
        self._down = down
        self._websocket.transport.abort()
        return True

    async def continue_after(self, place: Place) -> None:
        """Forget what is unread, and continue after another place, with another connection."""
        self._unread.clear()
        self._unread_bytes, self._dropping = 0, False
        self._number, self._epoch = place.number, place.epoch
        try:
            await self._disconnect()
        finally:
            # Also if this was cancelled: requests may be waiting.
            if not self._closed:
                self._start()

    async def close(self) -> None:
        """Close the connection, and discard what is unread. Requests that wait raise RequestUnanswered."""
        self.status, self._closed = "closed", True
        self._unread.clear()
        self._requests.reject(
            RequestUnanswered("the stream was closed before the answer: the request may have been executed")
        )
        self._arrived.set()
        await self._disconnect()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._failure = None
            self._task = asyncio.create_task(self._run())

    async def _disconnect(self) -> None:
        """End the task that receives, and close its connection. It has taken its last frame when this is called."""
        task, self._task = self._task, None
        websocket, self._websocket = self._websocket, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
            if websocket is not None:
                await asyncio.gather(websocket.close(), _discard_frames(websocket))
        finally:
            if websocket is not None:
                # Of use only if this was cancelled, as by a timeout around the next event.
                websocket.transport.abort()

    async def _run(self) -> None:
        try:
            while True:
                await self._attempt()
        except Exception as error:  # noqa: BLE001  # raised by the next call
            self.status, self._failure = "closed", error
            self._requests.reject(error)
            self._arrived.set()

    async def _attempt(self) -> None:
        """Connect and receive until the connection is lost, and wait before the next attempt."""
        self.status = "connecting"
        try:
            self._websocket = await self._connect()
            await self._receive(self._websocket)
        except ConnectionClosed as closed:
            self._check_close(closed)
            await self._pause(close_cause(closed))
        except InvalidStatus as refused:
            self._check_status(refused.response.status_code)
            await self._pause(f"HTTP status {refused.response.status_code}")
        except (OSError, TimeoutError, InvalidHandshake) as error:
            await self._pause(failure_cause(error))

    async def _connect(self) -> ClientConnection:
        return await open_websocket(
            connection_url(self._url, since=self._number, epoch=self._epoch, topics=self._chosen, state=self._state),
            additional_headers={"Authorization": f"Bearer {await self._token.fresh()}"},
            # No limit: a message over it would end the connection, and come again after each reconnect.
            max_size=None,
            close_timeout=self._close_seconds,
        )

    async def _receive(self, websocket: ClientConnection) -> None:
        # Not those of ``self``, which may be of the next connection when this one ends.
        beside = self._beside = set[asyncio.Task[None]]()
        try:
            while True:
                self._take(await websocket.recv(decode=False), websocket)
                await self._wait_for_room()
        except Exception:
            websocket.transport.abort()
            raise
        finally:
            for task in beside:
                task.cancel()
            self._requests.lost()

    async def _wait_for_room(self) -> None:
        while self._unread_bytes >= self._most_unread and not self._requests and not self._dropping:
            self._room.clear()
            await self._room.wait()

    # What arrives.

    def _take(self, text: bytes, websocket: ClientConnection) -> None:
        self._sender.heard()
        number = stamped_number(text)
        if number is not None:
            if self._keep(text):
                self._number = max(number, self._number or 0)
            return
        try:
            frame = frame_of(text)
        except ValueError:
            # The stream reports it in its place.
            self._keep(text)
            return
        self._obey(frame, websocket)
        number = frame.get("sequence_number")
        if frame["type"] == StateFrame.type:
            # Also without room: after a reconnect, nothing would be missing, and no state would come again.
            self._add(text)
            if number is not None:
                self._number = self._number if self._dropping else max(number, self._number or 0)
                self._start_sending(websocket)
        elif is_ephemeral(frame):
            if self._has_room:
                self._add(text)
        elif number is not None and self._keep(text):
            self._move(frame, number)

    def _move(self, frame: Mapping[str, Any], number: int) -> None:
        if frame["type"] != ConnectedFrame.type:
            self._number = max(number, self._number or 0)
        elif frame.get("state") and "outcome" not in frame:
            # Until the whole state has arrived, reconnects begin with it again.
            self._number, self._epoch = None, frame["epoch"]
        else:
            self._number, self._epoch = number, frame["epoch"]

    def _keep(self, text: bytes) -> bool:
        """Keep a frame for the stream if there is room, and return whether there is."""
        self._dropping = not self._has_room
        if not self._dropping:
            self._add(text)
        return not self._dropping

    @property
    def _has_room(self) -> bool:
        return not self._dropping and self._unread_bytes < self._most_unread

    def _add(self, text: bytes) -> None:
        self._unread.append(text)
        self._unread_bytes += len(text) + _FRAME_BYTES
        self._arrived.set()

    def _obey(self, frame: Mapping[str, Any], websocket: ClientConnection) -> None:
        """Do what a frame asks of the connection. What it means for the position is up to the stream."""
        match frame:
            case {"type": ConnectedFrame.type}:
                self._greet(frame, websocket)
            case {"type": HeartbeatFrame.type}:
                self.status = "live"
            case {"type": ReconnectFrame.type, "after_ms": after_ms}:
                self._requested_pause = after_ms / 1000
            case {"type": AuthenticatedFrame.type, "added": added, "removed": removed}:
                self._follow(added, removed)
                self._chosen = None if self._chosen is None else list(self.topics)
                self._renew_before_end(frame, websocket)
            case {"type": FollowingFrame.type, "added": added, "removed": removed}:
                self._follow(added, removed)
                self._chosen = list(self.topics) if added or removed else self._chosen
                self._sender.settle(frame, list(self.topics))
            case {"type": PublishedFrame.type}:
                # An ephemeral message has no number.
                self._sender.settle(frame, frame.get("sequence_number"))
            case {"type": ResultFrame.type}:
                self._sender.settle(frame, frame.get("data"))
            case {"type": ErrorFrame.type, "id": str(request_id), "code": int(code), "detail": str(detail)}:
                self._sender.refuse(request_id, code, one_line(detail))
            case {"type": ErrorFrame.type, "detail": str(detail)}:
                logger.warning("%s: the server refused a frame: %s", self.shown_url, one_line(detail))
            case _:  # Messages, and types that a later version of the server adds.
                pass

    def _greet(self, frame: Mapping[str, Any], websocket: ClientConnection) -> None:
        outcome = frame.get("outcome")
        if self._backoff.failing:
            logger.info("%s: reconnected, outcome %s", self.shown_url, one_line(str(outcome or "live")))
        self._backoff.succeeded()
        self._refused_tokens = 0
        self.status = "recovering" if outcome else "live"
        self.topics = tuple(frame.get("topics", ()))
        self._requests.connected(frame, now=time.monotonic())
        self._renew_before_end(frame, websocket)
        self._sends = False
        if not frame.get("state"):
            self._start_sending(websocket)

    def _start_sending(self, websocket: ClientConnection) -> None:
        """Send requests, after the state: while it is sent, the server refuses to send that of other topics."""
        if not self._sends:
            self._sends = True
            self._beside.add(asyncio.create_task(self._sender.run(websocket)))

    def _follow(self, added: Iterable[str], removed: Iterable[str]) -> None:
        self.topics = tuple(sorted({*self.topics, *added} - {*removed}))

    def _renew_before_end(self, frame: Mapping[str, Any], websocket: ClientConnection) -> None:
        """Renew the token in time before it expires, if a function provides tokens."""
        if self._renewal is not None:
            self._renewal.cancel()
        seconds = frame.get("expires_in")
        if seconds is None and "expires_at" in frame:
            seconds = frame["expires_at"] - time.time()
        if seconds is not None and seconds > 0 and not self._token.is_fixed:
            self._renewal = asyncio.create_task(self._renew(seconds * _RENEWED_AFTER, websocket))
            self._beside.add(self._renewal)

    async def _renew(self, seconds: float, websocket: ClientConnection) -> None:
        await asyncio.sleep(seconds)
        before = self._token.latest
        try:
            token = await self._token.fresh()
            # A function that caches may return the same token again: sending it would change nothing.
            if token != before:
                frame = Authenticate(token).encode()
                self._requests.budget.take(len(frame), now=time.monotonic())
                await websocket.send(frame, text=True)
        except ConnectionClosed:
            # The next connection begins with a fresh token.
            return
        except Exception as error:  # noqa: BLE001  # a function of the application
            logger.warning("%s: the token cannot be renewed: %s", self.shown_url, redact(str(error)))

    # The end of a connection.

    def _check_close(self, closed: ConnectionClosed) -> None:
        code, reason = (closed.rcvd.code, one_line(closed.rcvd.reason)) if closed.rcvd else (CloseCode.LOST, "")
        if code == CloseCode.UNAUTHORIZED:
            self._retry_token(code, reason)
        elif reaction_to(code) is Reaction.STOP:
            raise ConnectionRefused(code, reason)
        elif code == CloseCode.TOO_MANY:
            self._requests.budget.exceeded(now=time.monotonic())

    def _check_status(self, status: int) -> None:
        if status == HTTPStatus.UNAUTHORIZED:
            self._retry_token(status, "the token was not accepted")
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _RETRIED_STATUSES:
            # Unmissed refuses with a close code. Servers answer 403 or 404 where they have no WebSocket.
            raise ConnectionRefused(
                status,
                f"{self.shown_url} was refused with this HTTP status: check the address, and proxies in front of it",
            )

    def _retry_token(self, code: int, reason: str) -> None:
        """Ask a token provider for one fresh token. A token that cannot change is not tried twice."""
        self._refused_tokens += 1
        if self._token.is_fixed or self._refused_tokens > 1:
            raise ConnectionRefused(code, reason)
        self._requested_pause = 0.0

    async def _pause(self, cause: str) -> None:
        """Wait before the next attempt: as the server asked, or with exponential backoff and full jitter."""
        self._websocket, self.status = None, "waiting"
        self.reconnects += 1
        pause = self._backoff.failed(random.random())
        seconds = max(pause if self._requested_pause is None else self._requested_pause, self._down)
        self._requested_pause, self._down = None, 0.0
        logger.warning("%s: %s, reconnecting in %.1f s", self.shown_url, cause, seconds)
        await asyncio.sleep(seconds)


async def _discard_frames(websocket: ClientConnection) -> None:
    """Read until the connection is closed: the server's close frame comes after the unread frames."""
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await websocket.recv()
