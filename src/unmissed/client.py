"""A Python client that reconnects, resumes from its position, and reports what it lost."""

import asyncio
import inspect
import logging
import random
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConcurrencyError, ConnectionClosed, InvalidHandshake, InvalidStatus

from unmissed.core.client_frames import Authenticate
from unmissed.core.close_codes import CloseCode, Reaction, reaction_to
from unmissed.core.encoding import decode_json
from unmissed.core.errors import ConfigurationError, ConnectionRefused, one_string
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.server_frames import AuthenticatedFrame, ConnectedFrame, ErrorFrame, GapFrame, ReconnectFrame
from unmissed.core.window import Outcome
from unmissed.retrying import Backoff
from unmissed.security.redaction import printable, redact, shown_url

logger = logging.getLogger("unmissed.client")

TokenProvider = str | Callable[[], str | Awaitable[str]]
Snapshot = Callable[[], Awaitable[int]]
"""Loads the state that the messages change, and returns the number of the last message in it."""

_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
_CLOSE_SECONDS = 0.5
_RENEWED_AFTER = 0.8
"""The share of its remaining life after which a token is renewed."""

_TOKEN = re.compile(r"[!-~]+")
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_RETRIED_STATUSES = (408, 425, 429)
_STAMPED_HEAD = re.compile(r'\{"type":"(?:[^"\\]|\\.)*","sequence_number":([0-9]{1,16}),"timestamp":"')
"""The start of every message: the server writes the stamp right after the type."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, in order and exactly once. ``recovered`` is true when it was missed and came after a reconnect.

    ``data`` is None when it was published without data.
    """

    type: str
    sequence_number: int
    timestamp: str
    data: Any
    extra: Mapping[str, Any] = field(default_factory=dict)
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """The messages ``first`` to ``last`` are lost for this client: reload the state that they change."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The server's log has a new epoch: what was missed in the previous epoch is unknown."""

    epoch: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that this client cannot read, such as JSON that is nested too deeply. Its message is lost.

    ``sequence_number`` is None if even the number cannot be read.
    """

    sequence_number: int | None
    detail: str


Event = ReceivedMessage | Gap | Reset | Unreadable


class Stream:
    """An endless iterator of events that reconnects as needed.

    ``sequence_number`` is its position: store it, and pass it as ``since`` to continue in another process.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenProvider,
        since: int | None = None,
        epoch: str | None = None,
        topics: Iterable[str] | None = None,
        snapshot: Snapshot | None = None,
        close_seconds: float = _CLOSE_SECONDS,
    ) -> None:
        self.sequence_number = since
        self.epoch = epoch
        self.reconnects = 0
        """How many connections were lost or could not be made."""
        self._url = websocket_url(url)
        self._shown_url = shown_url(self._url)
        self._token = token
        self._close_seconds = close_seconds
        if isinstance(topics, str):
            raise ConfigurationError(one_string("topics", topics))
        self._topics = None if topics is None else ",".join(topics)
        self._websocket: ClientConnection | None = None
        self._events: deque[Event] = deque()
        self._snapshot = snapshot
        self._stale = snapshot is not None and since is None
        """Whether the state must be loaded before anything else is received."""
        self._unconfirmed = False
        """Whether the position is the number of a snapshot that the server has not answered yet."""
        self._lost = range(0)
        """The positions in the last gap: from each but the last, the server would declare the rest of it again."""
        self._recovered_through = 0
        self._first = 0
        """The first number of the epoch, or 0 if the server has not sent it."""
        self._backoff = Backoff(first=_FIRST_BACKOFF_SECONDS, most=_MAX_BACKOFF_SECONDS)
        self._refused_tokens = 0
        self._requested_pause: float | None = None
        self._down = 0.0
        self._sent_token = ""
        self._renewal: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event. Raises ConnectionRefused when the server does not accept this client.

        An exception of ``snapshot`` is raised here, too. The stream remains usable: the next call loads again.
        """
        while not self._events:
            await self._advance()
        return self._events.popleft()

    async def open(self) -> None:
        """Load the state and connect, and retry until the server has confirmed where this stream starts."""
        while self._websocket is None:
            await self._advance()

    async def close(self) -> None:
        """Close the connection and discard unread frames. Wait at most half a second for the server's answer."""
        self._renew_at(None)
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            try:
                await asyncio.gather(websocket.close(), _discard_frames(websocket))
            finally:
                # Of use only if the close was cancelled.
                websocket.transport.abort()

    def drop(self, down: float = 0.0) -> bool:
        """Drop the connection, as a network failure would, and return whether there was one.

        The stream reconnects and resumes, after ``down`` seconds at the earliest.
        """
        if self._websocket is None:
            return False
        self._down = down
        self._websocket.transport.abort()
        return True

    async def _advance(self) -> None:
        """Load the state, or else receive one frame."""
        if self._stale and self._snapshot is not None:
            await self._continue_after(await self._snapshot())
        else:
            await self._receive()

    async def _continue_after(self, number: int) -> None:
        """Continue after the number of a snapshot, with a new connection unless the present one is at this position."""
        if type(number) is not int or not 0 <= number <= MAX_SEQUENCE_NUMBER:
            raise ConfigurationError(
                f"the snapshot returned {number!r}: return the sequence number that the loaded state contains, or 0"
            )
        number = max(number, self._first - 1)
        # Without this, the server would declare the same gap again, and the snapshot would be loaded for ever.
        if number in self._lost[:-1]:
            lost = (number + 1, self._lost[-1])
            logger.warning("%s: the snapshot does not contain %d to %d, which are lost", self._shown_url, *lost)
            number = self._lost[-1]
        self._stale = False
        if number != self.sequence_number:
            self.sequence_number, self._unconfirmed = number, True
            await self.close()

    async def _receive(self) -> None:
        """Receive one frame, connecting first if needed, or wait before the next attempt."""
        try:
            if self._websocket is None:
                self._websocket = await self._connect()
            self._events.extend(self._read(await self._websocket.recv()))
        except ConnectionClosed as closed:
            self._check_close(closed)
            await self._pause(_close_cause(closed))
        except InvalidStatus as refused:
            self._check_status(refused.response.status_code)
            await self._pause(f"HTTP status {refused.response.status_code}")
        except (OSError, TimeoutError, InvalidHandshake) as error:
            await self._pause(_failure_cause(error))

    async def _connect(self) -> ClientConnection:
        wanted = {"since": self.sequence_number, "epoch": self.epoch, "topics": self._topics}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        return await open_websocket(
            f"{self._url}?{query}" if query else self._url,
            additional_headers={"Authorization": f"Bearer {await self._fresh_token()}"},
            # No limit: a message over it would end the connection, and come again after each reconnect.
            max_size=None,
            close_timeout=self._close_seconds,
        )

    async def _fresh_token(self) -> str:
        token = self._token if isinstance(self._token, str) else self._token()
        if inspect.isawaitable(token):
            token = await token
        self._sent_token = clean_token(token)
        return self._sent_token

    def _renew_at(self, expires_at: float | None) -> None:
        """Renew the token in time before it expires (Unix seconds), if a function provides tokens."""
        if self._renewal is not None:
            self._renewal.cancel()
        self._renewal = None
        if expires_at is not None and expires_at > time.time() and not isinstance(self._token, str):
            self._renewal = asyncio.create_task(self._renew(expires_at))

    async def _renew(self, expires_at: float) -> None:
        await asyncio.sleep((expires_at - time.time()) * _RENEWED_AFTER)
        before = self._sent_token
        try:
            token = await self._fresh_token()
            # A function that caches may return the same token again: sending it would change nothing.
            if self._websocket is not None and token != before:
                await self._websocket.send(Authenticate(token).encode(), text=True)
        except ConnectionClosed:
            # The next connection begins with a fresh token.
            return
        except Exception as error:  # noqa: BLE001  # a function of the application
            logger.warning("%s: the token cannot be renewed: %s", self._shown_url, redact(str(error)))

    def _read(self, text: str | bytes) -> Iterator[Event]:
        try:
            frame = _frame(text)
        except ValueError as error:
            yield self._unreadable(text, detail=str(error))
        else:
            yield from self._take(frame)

    def _unreadable(self, text: str | bytes, *, detail: str) -> Unreadable:
        """Move past a frame, if its number can be read, so that a reconnect does not deliver it again."""
        head = _STAMPED_HEAD.match(text if isinstance(text, str) else text.decode(errors="replace"))
        number = int(head[1]) if head else None
        if number is not None:
            self._reach(number)
        logger.error("%s: message %s cannot be read: %s", self._shown_url, number, detail)
        return Unreadable(number, detail)

    def _take(self, frame: dict[str, Any]) -> Iterator[Event]:
        match frame:
            case {"type": ConnectedFrame.type}:
                yield from self._take_connected(frame)
                self._renew_at(frame.get("expires_at"))
            case {"type": AuthenticatedFrame.type}:
                self._renew_at(frame.get("expires_at"))
            case {"type": ErrorFrame.type, "detail": str(detail)}:
                logger.warning("%s: the server refused a frame: %s", self._shown_url, _one_line(detail))
            case {"type": GapFrame.type, "from": first, "to": last}:
                yield self._gap(first, last)
            case {"type": ReconnectFrame.type, "after_ms": after_ms}:
                self._requested_pause = after_ms / 1000
            case {"timestamp": _, "sequence_number": _}:
                yield self._message(frame)
            case _:  # Heartbeats, answers to client frames, and types that a later version of the server adds.
                pass
        if "sequence_number" in frame:
            self._reach(frame["sequence_number"])

    def _reach(self, number: int) -> None:
        """Move the position, which only ``connected`` sets back."""
        self.sequence_number = max(number, self.sequence_number or 0)

    def _take_connected(self, frame: dict[str, Any]) -> Iterator[Event]:
        if self._backoff.failing:
            logger.info("%s: reconnected, outcome %s", self._shown_url, _one_line(str(frame.get("outcome", "live"))))
        self._backoff.succeeded()
        self._refused_tokens = 0
        self._first = frame.get("first", 0)
        if frame.get("outcome") == Outcome.RESET:
            yield self._reset(frame["epoch"])
        elif frame.get("outcome") == Outcome.GAP and self.sequence_number is not None:
            yield self._gap(max(self.sequence_number + 1, self._first), frame["sequence_number"])
        self._unconfirmed = False
        self._recovered_through = frame["latest"] if "outcome" in frame else 0
        # Last: a gap is counted from the position before, and a reset compares the epoch before.
        self.epoch, self.sequence_number = frame["epoch"], frame["sequence_number"]

    def _reset(self, epoch: str) -> Reset:
        # If this epoch is known already, the snapshot belongs to another one: loading it could be repeated for ever.
        self._stale = self._snapshot is not None and not (self._unconfirmed and epoch == self.epoch)
        self._lost = range(0)
        return Reset(epoch)

    def _gap(self, first: int, last: int) -> Gap:
        self._stale = self._snapshot is not None
        self._lost = range(first - 1, last + 1)
        return Gap(first, last)

    def _message(self, frame: Mapping[str, Any]) -> ReceivedMessage:
        extra = dict(frame)
        number = extra.pop("sequence_number")
        return ReceivedMessage(
            type=extra.pop("type"),
            sequence_number=number,
            timestamp=extra.pop("timestamp"),
            data=extra.pop("data", None),
            extra=extra,
            recovered=number <= self._recovered_through,
        )

    def _check_close(self, closed: ConnectionClosed) -> None:
        code, reason = (closed.rcvd.code, _one_line(closed.rcvd.reason)) if closed.rcvd else (CloseCode.LOST, "")
        if code == CloseCode.UNAUTHORIZED:
            self._retry_token(code, reason)
        elif reaction_to(code) is Reaction.STOP:
            raise ConnectionRefused(code, reason)

    def _check_status(self, status: int) -> None:
        if status == HTTPStatus.UNAUTHORIZED:
            self._retry_token(status, "the token was not accepted")
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _RETRIED_STATUSES:
            raise ConnectionRefused(status, "the handshake was refused")

    def _retry_token(self, code: int, reason: str) -> None:
        """Ask a token provider for one fresh token. A token that cannot change is not tried twice."""
        self._refused_tokens += 1
        if isinstance(self._token, str) or self._refused_tokens > 1:
            raise ConnectionRefused(code, reason)
        self._requested_pause = 0.0

    async def _pause(self, cause: str) -> None:
        """Wait before the next attempt: as the server asked, or with exponential backoff and full jitter."""
        self._websocket = None
        self._renew_at(None)
        self.reconnects += 1
        pause = self._backoff.failed(random.random())
        seconds = max(pause if self._requested_pause is None else self._requested_pause, self._down)
        self._requested_pause, self._down = None, 0.0
        logger.warning("%s: %s, reconnecting in %.1f s", self._shown_url, cause, seconds)
        await asyncio.sleep(seconds)


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: TokenProvider,
    since: int | None = None,
    epoch: str | None = None,
    topics: Iterable[str] | None = None,
    snapshot: Snapshot | None = None,
    close_seconds: float = _CLOSE_SECONDS,
) -> AsyncIterator[Stream]:
    """Open a stream of events from a server such as ``http://127.0.0.1:8000`` or ``wss://example.com/ws``.

    ``token`` is a JWT, or a function, async or not, that returns a fresh one for each connection, and before it
    expires. The stream starts after ``since``, or with the next message, and follows ``topics``, by default all that
    the token grants by name. Closing waits at most ``close_seconds`` for the close frame of the server. Raises
    ConnectionRefused, or ConfigurationError for a bad URL or token, and for one string as ``topics``.

    ``snapshot`` is for state that messages change: an async function that loads this state, and returns the sequence
    number of the last message in it (0 for none). It is called before the first connection, unless ``since`` is
    given, and after every Gap and Reset, when the next event is awaited. The stream continues after the number: the
    state may be older or newer than the connection, for example from a cache or a read replica. Messages after it that
    are no longer retained are a Gap. If the next snapshot does not contain the messages of this gap either, the stream
    continues behind it, and logs a warning. An exception of ``snapshot`` is raised where the stream is opened, or the
    next event is awaited. Awaiting another event calls it again.
    """
    stream = Stream(
        url,
        token=token,
        since=since,
        epoch=epoch,
        topics=topics,
        snapshot=snapshot,
        close_seconds=close_seconds,
    )
    try:
        await stream.open()
        yield stream
    finally:
        await stream.close()


def clean_token(text: str) -> str:
    """Return a token without the whitespace around it, such as the line break at the end of a file.

    Raises ConfigurationError, whose text does not contain the token, unless the rest is visible ASCII.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the token is empty, or contains characters that no token has, such as a space or a line break: "
            "pass the token alone, as it was issued"
        )
    return token


def websocket_url(url: str) -> str:
    """Return the address of the WebSocket of a server. Raises ConfigurationError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme, host, _ = _SCHEMES.get(parts.scheme), parts.hostname, parts.port
    except ValueError:
        scheme = host = None
    if not scheme or not host:
        raise ConfigurationError(f"{shown_url(url)!r} is not a server URL: use one such as http://127.0.0.1:8000")
    path = parts.path if parts.path.endswith("/ws") else f"{parts.path.rstrip('/')}/ws"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


async def _discard_frames(websocket: ClientConnection) -> None:
    """Read until the connection is closed: the server's close frame comes after the unread frames."""
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await websocket.recv()


def _frame(text: str | bytes) -> dict[str, Any]:
    """Return the object that a frame contains. Raises ValueError."""
    match decode_json(text):
        case dict(frame) if isinstance(frame.get("type"), str):
            return frame
        case _:
            raise ValueError("it is not an object with a type")


def _close_cause(closed: ConnectionClosed) -> str:
    """Return why a connection ended, in one line."""
    if closed.rcvd is None:
        own_reason = closed.sent.reason if closed.sent else ""
        return f"connection lost ({own_reason})" if own_reason else "connection lost"
    reason = _one_line(closed.rcvd.reason)
    return f"closed with code {closed.rcvd.code}" + (f" ({reason})" if reason else "")


def _failure_cause(error: Exception) -> str:
    """Return why a connection could not be made, in one line."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the certificate is not trusted ({error.verify_message})"
        case ConnectionRefusedError():
            return "connection refused"
        case _:
            return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    """Return a text of the server or the system as it may be logged: on one line, escaped, and without tokens."""
    return printable(redact(" ".join(text.split())))
