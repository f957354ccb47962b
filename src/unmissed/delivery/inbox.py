"""What one client sends: limited, parsed, and answered in order."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

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
from unmissed.core.errors import InvalidFrame, LogUnavailable, TopicRefused, UnmissedError
from unmissed.core.rate import TokenBucket
from unmissed.core.server_frames import PONG, ErrorFrame
from unmissed.security.access import Access
from unmissed.tasks import Job, SerialJobs

logger = logging.getLogger("unmissed")

MAX_REFUSED_FRAMES = 3
MAX_FRAMES_BETWEEN_CHECKS = 100
MAX_BYTES_BETWEEN_CHECKS = 1_048_576
MAX_WAITING_BYTES = 65_536
"""Bytes of frames of one client that may wait for a slow request, and bytes of answers that it has not read.

Beyond that, no more is read from it. One more frame, or one more answer, may be waiting then.
"""

FRAME_OVERHEAD = 512
"""Bytes that a waiting frame takes besides its text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request. It is sent after all messages up to the number ``after``, or at once."""

    payload: bytes
    after: int | None = None


class Requests(Protocol):
    """Answers requests of clients: what they publish, and their commands."""

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """Returns the monotonic time in seconds."""
        ...

    def is_behind(self, since: int | None) -> bool:
        """Return whether ``since`` is ahead of this node, as after a move from another node."""
        ...

    def catch_up(self, since: int | None) -> Awaitable[None]:
        """Wait until this node has reached ``since``. Raises LogUnavailable if it has not in time."""
        ...

    def bucket(self, user_id: str) -> TokenBucket:
        """Return the limit for the requests of a user, over all connections."""
        ...

    def admit(self, identity: Identity) -> float:
        """Return when an identity expires, in monotonic seconds. Raises InvalidToken if it was logged out."""
        ...

    async def answer(self, identity: Identity, request: Request) -> Answer:
        """Do what a client asks for. It never raises."""
        ...


class Client(Protocol):
    """The connection whose client sends the frames."""

    identity: Identity

    @property
    def id(self) -> str:
        """The id of the connection."""
        ...

    @property
    def topics(self) -> frozenset[str]:
        """The topics that the client follows."""
        ...

    @property
    def chose_topics(self) -> bool:
        """Whether the client chose its topics, instead of following those that it was granted by name."""
        ...

    @property
    def closing(self) -> bool:
        """Whether the connection ends as soon as everything is sent."""
        ...

    @property
    def unread_bytes(self) -> int:
        """Bytes of frames that wait for the client to read."""
        ...

    def pause_reading(self) -> None:
        """Take no more frames from the client. Those that were read already may still arrive."""
        ...

    def resume_reading(self) -> None:
        """Take frames from the client again."""
        ...

    def send_frame(self, payload: bytes, *, after: int | None = None) -> None:
        """Send a frame at once, or after all messages up to a number."""
        ...

    def follow(self, topics: frozenset[str], *, since: int | None, epoch: str | None, request_id: str | None) -> None:
        """Follow these topics, too."""
        ...

    def unfollow(self, topics: Iterable[str], *, request_id: str | None) -> None:
        """Stop following these topics."""
        ...

    def renew(self, identity: Identity, *, expires_at: float, topics: frozenset[str]) -> None:
        """Use another identity of the same user from now on, and follow these topics."""
        ...

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Close the connection."""
        ...


class Inbox:
    """The frames of one client.

    Requests are answered one after another, in tasks, so that a slow one delays no delivery. Where the application
    authorizes topics, or this node has to catch up, so are the frames that change them. A request waits until the
    client has read the answers to those before it.
    """

    __slots__ = (
        "_access",
        "_bucket",
        "_bytes",
        "_changes",
        "_client",
        "_closed",
        "_frames",
        "_lane",
        "_read",
        "_refused",
        "_requests",
        "_waiting",
        "paused",
    )

    def __init__(self, client: Client, *, access: Access, requests: Requests) -> None:
        self._client = client
        self._access = access
        self._requests = requests
        self._bucket = requests.bucket(client.identity.user_id)
        self._lane = SerialJobs(requests.start)
        self._changes = SerialJobs(requests.start)
        self._frames = self._bytes = self._refused = 0
        self._waiting = 0
        """Bytes of the frames in the lanes that have not begun."""
        self._read: asyncio.Event | None = None
        """Set when the client has read enough of the answers; None while no request waits for that."""
        self.paused = False
        """Whether nothing is read from the client until there is room."""
        self._closed = False

    def take(self, frame: str | bytes) -> None:
        """Answer a frame. Frames that arrive while the connection is closing are ignored."""
        self._frames += 1
        self._bytes += len(frame)
        if self._frames > MAX_FRAMES_BETWEEN_CHECKS or self._bytes > MAX_BYTES_BETWEEN_CHECKS:
            self._refuse_flood("too many frames")
            return
        if self._client.closing:
            return
        if len(frame) > MAX_CLIENT_FRAME_BYTES:
            self._client.close(CloseCode.TOO_LARGE, f"a frame must have at most {MAX_CLIENT_FRAME_BYTES} bytes")
            return
        try:
            # A frame that must wait is parsed now, so that errors are reported and limits apply at once, but what waits
            # are bytes: values decoded from JSON take up to 50 times as much.
            self._answer(parse_client_frame(frame), size=sys.getsizeof(frame) + FRAME_OVERHEAD)
        except InvalidFrame as error:
            self._refuse(error, error.request_id)
        self.check_room()

    def begin_interval(self) -> None:
        """Allow further frames: the limits are for the time between two checks."""
        self._frames = self._bytes = 0

    def check_room(self) -> None:
        """Read from the client, and answer its requests, while little of it waits. Call this when answers were read."""
        unread = self._client.unread_bytes
        if unread < MAX_WAITING_BYTES and self._read is not None:
            self._read.set()
            self._read = None
        if self._waiting + unread >= MAX_WAITING_BYTES and not self._closed:
            self.paused = True
            self._client.pause_reading()
        elif self.paused:
            self.paused = False
            self._client.resume_reading()

    def close(self) -> None:
        """Forget the requests that have not begun. The client repeats them when it has reconnected."""
        self._closed = True
        self._lane.clear()
        self._changes.clear()
        self._waiting = 0
        if self._read is not None:
            self._read.set()
        # The answer to the close is still to be read.
        self.check_room()

    def _answer(self, frame: ClientFrame, *, size: int) -> None:
        match frame:
            case Ping():
                self._client.send_frame(PONG)
            case _ if not self._bucket.take(self._requests.clock()):
                self._refuse_flood("too many messages")
            case Publish() | Command():
                self._wait(self._lane, lambda: self._respond(frame, size=size), size=size)
            case _ if self._is_slow(frame):
                self._wait(self._changes, lambda: self._change_later(frame, size=size), size=size)
            case _:
                _run_now(self._change(frame))

    def _is_slow(self, frame: Change) -> bool:
        """Return whether a change awaits something, or one before it does."""
        behind = isinstance(frame, Follow) and self._requests.is_behind(frame.since)
        return behind or self._access.authorize is not None or self._changes.busy

    def _wait(self, lane: SerialJobs, job: Job, *, size: int) -> None:
        self._waiting += size
        lane.add(job)

    async def _may_begin(self, *, size: int) -> bool:
        """Wait until the client has read the answers before, and return whether it is still connected."""
        while self._client.unread_bytes >= MAX_WAITING_BYTES and not self._closed:
            self._read = self._read or asyncio.Event()
            await self._read.wait()
        if self._closed:
            return False
        self._waiting -= size
        self.check_room()
        return True

    async def _respond(self, request: Request, *, size: int) -> None:
        await self._changes.wait()
        # The token may have been refused while this waited.
        if await self._may_begin(size=size) and not self._client.closing:
            answer = await self._requests.answer(self._client.identity, request)
            self._client.send_frame(answer.payload, after=answer.after)
            self.check_room()

    async def _change_later(self, frame: Change, *, size: int) -> None:
        if await self._may_begin(size=size) and not self._client.closing:
            await self._change(frame)
            self.check_room()

    async def _change(self, frame: Change) -> None:
        """Change the topics or the token. Nothing is awaited if ``_is_slow`` returns False."""
        try:
            match frame:
                case Follow(topics=topics, since=since, epoch=epoch):
                    granted = await self._access.granted(self._client.identity, topics)
                    if self._requests.is_behind(since):
                        await self._requests.catch_up(since)
                    if not self._client.closing:
                        self._client.follow(granted, since=since, epoch=epoch, request_id=frame.id)
                case Unfollow(topics=topics):
                    self._client.unfollow(topics, request_id=frame.id)
                case Authenticate(token=token):
                    await self._renew(token)
        except UnmissedError as error:
            self._refuse(error, frame.id)
        except Exception:
            logger.exception("authorize() failed: connection_id=%s", self._client.id)
            self._client.send_frame(ErrorFrame.internal(request_id=frame.id).encode())

    async def _renew(self, token: str) -> None:
        """Replace the token, and keep the topics that the new one may follow."""
        if self._access.verify is None:
            raise InvalidFrame("the token of this connection cannot be renewed: open another connection")
        client, identity = self._client, self._access.verify(token)
        topics = await self._access.kept(identity, client.topics)
        if not client.chose_topics:
            topics |= await self._access.granted(identity, None)
        if not client.closing:
            client.renew(identity, expires_at=self._requests.admit(identity), topics=topics)

    def _refuse(self, error: UnmissedError, request_id: str | None) -> None:
        """Answer with an error. Only clients that ignore the protocol send frames without an id that are refused."""
        answer = ErrorFrame.of(error, request_id=request_id)
        self._client.send_frame(answer.encode())
        if request_id is None and not isinstance(error, TopicRefused | LogUnavailable):
            self._refused += 1
            if self._refused >= MAX_REFUSED_FRAMES:
                self._client.close(answer.code, "too many frames were refused")

    def _refuse_flood(self, reason: str) -> None:
        self._client.close(CloseCode.TOO_MANY, f"{reason}: reconnect later, and send fewer", discard=True)


def _run_now(job: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing."""
    with suppress(StopIteration):
        job.send(None)
