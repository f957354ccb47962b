"""What one client sends: limited, parsed, and answered in order."""

import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from unmissed.core import wire
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
from unmissed.core.errors import InvalidFrame, InvalidToken, InvalidTopic, TopicRefused, UnmissedError
from unmissed.core.rate import TokenBucket
from unmissed.core.wire import CloseCode
from unmissed.delivery.access import Access
from unmissed.delivery.lane import Job, Lane

logger = logging.getLogger("unmissed")

MAX_REFUSED_FRAMES = 3
MAX_FRAMES_BETWEEN_CHECKS = 100
MAX_BYTES_BETWEEN_CHECKS = 1_048_576
MAX_WAITING = 100
"""Requests of one client that may wait for a slow one."""


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

    def bucket(self, user_id: str) -> TokenBucket:
        """Return the limit for the requests of a new client."""
        ...

    def remember(self, user_id: str, bucket: TokenBucket) -> None:
        """Let the next client of this user begin with this bucket, unless it is full until then."""
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
    authorizes topics, so are the frames that change them.
    """

    __slots__ = ("_access", "_bucket", "_bytes", "_changes", "_client", "_frames", "_lane", "_refused", "_requests")

    def __init__(self, client: Client, *, access: Access, requests: Requests) -> None:
        self._client = client
        self._access = access
        self._requests = requests
        self._bucket = requests.bucket(client.identity.user_id)
        self._lane = Lane(requests.start)
        self._changes = Lane(requests.start)
        self._frames = self._bytes = self._refused = 0

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
            self._answer(parse_client_frame(frame))
        except InvalidFrame as error:
            self._refuse(error, error.request_id)

    def begin_interval(self) -> None:
        """Allow further frames: the limits are for the time between two checks."""
        self._frames = self._bytes = 0

    def close(self) -> None:
        """Forget the requests that have not begun. The client repeats them when it has reconnected."""
        self._lane.clear()
        self._changes.clear()

    def _answer(self, frame: ClientFrame) -> None:
        match frame:
            case Ping():
                self._client.send_frame(wire.PONG)
            case Publish() | Command():
                self._request(frame)
            case _ if self._access.authorize is None:
                _run_now(self._change(frame))
            case _:
                self._add(self._changes, lambda: self._change(frame))

    def _request(self, request: Request) -> None:
        if self._bucket.take(self._requests.clock()):
            self._add(self._lane, lambda: self._respond(request))
        else:
            self._requests.remember(self._client.identity.user_id, self._bucket)
            self._refuse_flood("too many messages")

    async def _respond(self, request: Request) -> None:
        await self._changes.wait()
        if self._client.closing:  # The token may have been refused while this waited.
            return
        answer = await self._requests.answer(self._client.identity, request)
        self._client.send_frame(answer.payload, after=answer.after)

    async def _change(self, frame: Change) -> None:
        """Change the topics or the token. Nothing is awaited unless the application authorizes topics."""
        try:
            match frame:
                case Follow(topics=topics, since=since, epoch=epoch):
                    granted = await self._access.granted(self._client.identity, topics)
                    self._client.follow(granted, since=since, epoch=epoch, request_id=frame.id)
                case Unfollow(topics=topics):
                    self._client.unfollow(topics, request_id=frame.id)
                case Authenticate(token=token):
                    await self._renew(token)
        except (InvalidFrame, InvalidToken, InvalidTopic, TopicRefused) as error:
            self._refuse(error, frame.id)
        except Exception:
            logger.exception("authorize() failed: connection_id=%s", self._client.id)
            self._client.send_frame(wire.internal_error(frame.id))

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

    def _add(self, lane: Lane, job: Job) -> None:
        if len(lane) < MAX_WAITING:
            lane.add(job)
        else:
            self._refuse_flood("too many requests are waiting for a slow one")

    def _refuse(self, error: UnmissedError, request_id: str | None) -> None:
        """Answer with an error. Only clients that ignore the protocol send frames without an id that are refused."""
        code = wire.code_of(error)
        self._client.send_frame(wire.error(code=code, detail=str(error), request_id=request_id))
        if request_id is None and not isinstance(error, TopicRefused):
            self._refused += 1
            if self._refused >= MAX_REFUSED_FRAMES:
                self._client.close(code, "too many frames were refused")

    def _refuse_flood(self, reason: str) -> None:
        self._client.close(CloseCode.TOO_MANY, f"{reason}: reconnect later, and send fewer", discard=True)


def _run_now(job: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing."""
    with suppress(StopIteration):
        job.send(None)
