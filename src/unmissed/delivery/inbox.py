"""What one client sends: limited, parsed, and answered in order.

A frame goes in, and what it leads to comes out as an effect, which the connection carries out. Answers are put into the
outbox of the client's reader.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from unmissed.core.audience import Identity
from unmissed.core.client_frames import (
    MAX_CLIENT_FRAME_BYTES,
    Authenticate,
    Change,
    ClientFrame,
    Command,
    Follow,
    Ping,
    Publish,
    Request,
    Unfollow,
    parse_client_frame,
)
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import (
    InvalidFrame,
    InvalidToken,
    LogUnavailable,
    ProviderUnavailable,
    TopicRefused,
    UnmissedError,
)
from unmissed.core.rate import TokenBuckets
from unmissed.core.reader import ClientReader, TopicChange
from unmissed.core.server_frames import PONG, ErrorFrame
from unmissed.delivery.socket import Socket
from unmissed.security.access import Access
from unmissed.tasks import Job, SerialJobs, Start

logger = logging.getLogger("unmissed")

MAX_REFUSED_FRAMES = 3
MAX_FRAMES_BETWEEN_CHECKS = 100
MAX_BYTES_BETWEEN_CHECKS = 1_048_576
MAX_PENDING_BYTES = 65_536
"""Bytes of frames of one client that may wait for a slow request, and bytes of answers that it has not read.

Beyond that, no more is read from it. One more frame, or one more answer, may be waiting then.
"""

WAITING_FRAME_BYTES = 512
"""Bytes that a waiting frame takes besides its text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request. It is sent after all messages up to the number ``after``, or at once."""

    payload: bytes
    after: int | None = None


@dataclass(frozen=True, slots=True)
class RequestHandling:
    """What the frames of clients need of the application."""

    clock: Callable[[], float]
    """Returns monotonic seconds."""
    buckets: TokenBuckets
    """The limits for the requests of each user, over all connections."""
    start: Start
    answer: Callable[[Identity, Request], Awaitable[Answer]]
    """Does what a client asks for. It never raises."""
    valid_until: Callable[[Identity], float]
    """Returns when an identity expires, in monotonic seconds. Raises InvalidToken if it was logged out."""
    expires_in: Callable[[Identity], float | None]
    """Returns the seconds until an identity expires, as its client sees it, or None if it does not expire."""
    is_behind: Callable[[int | None], bool]
    """Returns whether a position is ahead of this node, as after a move from another node."""
    catch_up: Callable[[int | None], Awaitable[None]]
    """Waits until this node has reached a position. Raises LogUnavailable if it has not in time."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The topics are granted. The connection first delivers up to ``since``, and then calls ``Inbox.follow``."""

    frame: Follow
    topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The client has another token of the same user. ``expires_at`` is in monotonic seconds."""

    identity: Identity
    expires_at: float
    change: TopicChange


@dataclass(frozen=True, slots=True)
class Closing:
    """The connection is to be closed, with ``discard`` without what is not written yet."""

    code: int
    reason: str
    discard: bool = False


Effect = Granted | TopicChange | Renewed | Closing
"""What a frame leads to, besides answers."""


class Inbox:
    """The frames of one client.

    Requests are answered one after another, in tasks, so that a slow one delays no delivery. Where the application
    authorizes topics, or this node has to catch up, so are the frames that change them. A request waits until the
    client has read the answers to those before it. ``act`` carries out what such a task has led to.
    """

    __slots__ = (
        "_access",
        "_act",
        "_bytes",
        "_changes",
        "_closed",
        "_frames",
        "_handling",
        "_identity",
        "_read",
        "_reader",
        "_refused",
        "_requests",
        "_socket",
        "_waiting",
        "paused",
    )

    def __init__(
        self,
        reader: ClientReader,
        socket: Socket,
        *,
        identity: Identity,
        access: Access,
        handling: RequestHandling,
        act: Callable[["Inbox", Effect | None], None],
    ) -> None:
        self._reader = reader
        self._socket = socket
        self._identity = identity
        self._access = access
        self._handling = handling
        self._act = act
        self._requests: SerialJobs | None = None
        self._changes: SerialJobs | None = None
        """Each exists from its first job on. Most clients never need one, and its queue takes 0.8 kB."""
        self._frames = self._bytes = self._refused = 0
        self._waiting = 0
        """Bytes of the frames that wait for their turn."""
        self._read: asyncio.Event | None = None
        """Set when the client has read enough of the answers; None while no request waits for that."""
        self.paused = False
        """Whether nothing is read from the client until there is room."""
        self._closed = False

    def take(self, frame: str | bytes) -> Effect | None:
        """Answer a frame, now or in a task. Frames that arrive while the connection is closing are ignored."""
        self._frames += 1
        self._bytes += len(frame)
        # Before ``_closed`` is looked at: a client that floods while its connection closes is cut off at once.
        if self._frames > MAX_FRAMES_BETWEEN_CHECKS or self._bytes > MAX_BYTES_BETWEEN_CHECKS:
            return _flood("too many frames")
        if self._closed:
            return None
        if len(frame) > MAX_CLIENT_FRAME_BYTES:
            return Closing(CloseCode.TOO_LARGE, f"a frame must have at most {MAX_CLIENT_FRAME_BYTES} bytes")
        try:
            # A frame that must wait is parsed now, so that errors are reported and limits apply at once, but what waits
            # are bytes: values decoded from JSON take up to 50 times as much.
            return self._answer(parse_client_frame(frame), size=sys.getsizeof(frame) + WAITING_FRAME_BYTES)
        except InvalidFrame as error:
            return self._refuse(error, error.request_id)

    def follow(self, granted: Granted) -> Effect | None:
        """Begin to follow topics."""
        frame = granted.frame
        try:
            return self._reader.follow(
                granted.topics, since=frame.since, epoch=frame.epoch, state=frame.state, request_id=frame.id
            )
        except UnmissedError as error:
            return self._refuse(error, frame.id)

    def begin_interval(self) -> None:
        """Allow further frames: the limits are for the time between two checks."""
        self._frames = self._bytes = 0

    def check_room(self) -> None:
        """Pause reading while MAX_PENDING_BYTES are pending, and continue below that. Call this after each delivery."""
        unread = self._reader.unread_bytes
        if unread < MAX_PENDING_BYTES and self._read is not None:
            self._read.set()
            self._read = None
        if self._waiting + unread >= MAX_PENDING_BYTES and not self._closed:
            self.paused = True
            self._socket.pause_reading()
        elif self.paused:
            self.paused = False
            self._socket.resume_reading()

    def close(self) -> None:
        """Forget the requests that have not begun. The client repeats them when it has reconnected."""
        self._closed = True
        for jobs in (self._requests, self._changes):
            if jobs is not None:
                jobs.clear()
        self._waiting = 0
        if self._read is not None:
            self._read.set()
        # The answer to the close is still to be read.
        self.check_room()

    def _answer(self, frame: ClientFrame, *, size: int) -> Effect | None:
        match frame:
            case Ping():
                self._reader.send(PONG)
            case _ if not self._handling.buckets.take(self._identity.user_id, self._handling.clock()):
                return _flood("too many messages")
            case Publish() | Command():
                self._requests = self._requests or SerialJobs(self._handling.start)
                self._wait(self._requests, lambda: self._respond(frame, size=size), size=size)
            case _ if self._is_slow(frame):
                self._changes = self._changes or SerialJobs(self._handling.start)
                self._wait(self._changes, lambda: self._change_later(frame, size=size), size=size)
            case _:
                return _result_of(self._change(frame))
        return None

    def _is_slow(self, frame: Change) -> bool:
        """Return whether a change awaits something, or one before it does."""
        if self._access.authorize is not None or (self._changes is not None and self._changes.busy):
            return True
        if isinstance(frame, Authenticate):
            return self._access.verify_waits
        return isinstance(frame, Follow) and self._is_ahead(frame.since)

    def _is_ahead(self, since: int | None) -> bool:
        """Return whether this node has to catch up with a position. Most are at or below that of the client here."""
        return since is not None and since > self._reader.position and self._handling.is_behind(since)

    def _wait(self, jobs: SerialJobs, job: Job, *, size: int) -> None:
        self._waiting += size
        jobs.add(job)

    async def _may_begin(self, *, size: int) -> bool:
        """Wait until the client has read the answers before, and return whether it is still connected."""
        while self._reader.unread_bytes >= MAX_PENDING_BYTES and not self._closed:
            self._read = self._read or asyncio.Event()
            await self._read.wait()
        if self._closed:
            return False
        # Not after ``close``, which has counted all waiting frames off.
        self._waiting -= size
        self.check_room()
        return True

    async def _respond(self, request: Request, *, size: int) -> None:
        if self._changes is not None:
            # A request uses the token that an earlier frame has renewed, and that frame may still wait.
            await self._changes.wait()
        # The token may have been refused while this waited.
        if await self._may_begin(size=size):
            answer = await self._handling.answer(self._identity, request)
            self._reader.send(answer.payload, after=answer.after)
            self._act(self, None)

    async def _change_later(self, frame: Change, *, size: int) -> None:
        if await self._may_begin(size=size):
            self._act(self, await self._change(frame))

    async def _change(self, frame: Change) -> Effect | None:
        """Change the topics or the token. Nothing is awaited if ``_is_slow`` returns False."""
        try:
            match frame:
                case Follow():
                    return await self._grant(frame)
                case Unfollow(topics=topics):
                    return self._reader.unfollow(topics, request_id=frame.id)
                case Authenticate(token=token):
                    return await self._renew(token)
        except UnmissedError as error:
            return self._refuse(error, frame.id)
        except Exception:
            logger.exception("authorize() or verify() failed: user_id=%r", self._identity.user_id)
            self._reader.send(ErrorFrame.internal(request_id=frame.id).encode())
            return None

    async def _grant(self, frame: Follow) -> Granted | None:
        topics = await self._access.granted(self._identity, frame.topics)
        if self._is_ahead(frame.since):
            await self._handling.catch_up(frame.since)
        return None if self._closed else Granted(frame, topics)

    async def _renew(self, token: str) -> Renewed | None:
        """Replace the token, and keep the topics that the new one may follow."""
        reader, identity = self._reader, await self._access.verified(token)
        topics = await self._access.kept(identity, reader.topics)
        if not reader.chose_topics:
            topics |= await self._access.granted(identity, None)
        if self._closed:
            return None
        # Here and not earlier: the user may have been logged out while the application authorized the topics.
        expires_at = self._handling.valid_until(identity)
        if identity.user_id != self._identity.user_id:
            raise InvalidToken("the token is for another user: open another connection")
        # Last of what may raise: an error leaves the connection with its old token and its old topics.
        change = reader.renew(topics, expires_at=identity.expires_at, expires_in=self._handling.expires_in(identity))
        self._identity = identity
        return Renewed(identity, expires_at, change)

    def _refuse(self, error: UnmissedError, request_id: str | None) -> Closing | None:
        """Answer with an error. Refused frames without an id break the protocol: after some, close the connection."""
        answer = ErrorFrame.of(error, request_id=request_id)
        self._reader.send(answer.encode())
        # A client cannot know that a topic is refused, or that something is unavailable: it has broken no rule.
        if request_id is None and not isinstance(error, TopicRefused | LogUnavailable | ProviderUnavailable):
            self._refused += 1
            if self._refused >= MAX_REFUSED_FRAMES:
                return Closing(answer.code, "too many frames were refused")
        return None


def _flood(reason: str) -> Closing:
    return Closing(CloseCode.TOO_MANY, f"{reason}: reconnect later, and send fewer", discard=True)


def _result_of(change: Coroutine[Any, Any, Effect | None]) -> Effect | None:
    """Return what a coroutine that awaits nothing returns."""
    try:
        change.send(None)
    except StopIteration as end:
        effect: Effect | None = end.value
        return effect
    raise RuntimeError("a change of topics waits that should not")
