"""The stream of a client: messages in order and once, reports of losses, and requests to the server."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import uuid4

from unmissed.client.connecting import TokenProvider
from unmissed.client.link import CLOSE_SECONDS, Link, Place, Status
from unmissed.client.pending_requests import MAX_PENDING, PendingRequests
from unmissed.client.received import Event, Gap, ReceivedMessage, Reset, Unreadable, frame_of, stamped_number
from unmissed.client.request_sender import RequestSender
from unmissed.core.audience import checked_topic
from unmissed.core.client_frames import Command, Follow, Publish, Unfollow, is_request_id
from unmissed.core.errors import ConfigurationError, InvalidMessage, one_string
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.messages import PublishOptions, published
from unmissed.core.server_frames import ConnectedFrame, GapFrame
from unmissed.core.window import Outcome

logger = logging.getLogger("unmissed.client")

Snapshot = Callable[[], Awaitable[int]]
"""Loads the state that the messages change, and returns the number of the last message in it."""


class Stream:
    """An endless iterator of events that reconnects as needed, and a way to send requests.

    ``position`` is the number of the last message that the iterator returned, or a later one if nothing of interest
    came since: store it, and pass it as ``since`` to continue in another process. Requests may be sent while another
    task iterates, from the loop itself, and also if nobody iterates. They wait for a connection, and are executed
    once: after a reconnect, those that were not answered are sent again with the same id.
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
        limit: int = MAX_PENDING,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        if isinstance(topics, str):
            raise ConfigurationError(one_string("topics", topics))
        self.position = since
        self.epoch = epoch
        self._link = Link(
            url,
            token=token,
            place=Place(since, epoch),
            topics=topics,
            sender=RequestSender(PendingRequests(limit=limit)),
            close_seconds=close_seconds,
        )
        self._shown_url = self._link.shown_url
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

    @property
    def status(self) -> Status:
        """The state of the connection: connecting, recovering, live, waiting (for the next attempt), or closed."""
        return self._link.status

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that are followed now, in alphabetical order."""
        return self._link.topics

    @property
    def reconnects(self) -> int:
        """How many connections were lost or could not be made."""
        return self._link.reconnects

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
        if self._stale:
            await self._advance()
        await self._advance()

    async def close(self) -> None:
        """Close the connection and discard unread frames. Wait at most half a second for the server's answer.

        The iterator ends. Requests that are not answered raise RequestUnanswered.
        """
        await self._link.close()

    def drop(self, down: float = 0.0) -> bool:
        """Drop the connection, as a network failure would, and return whether there was one.

        The stream reconnects and resumes, after ``down`` seconds at the earliest.
        """
        return self._link.drop(down)

    # Requests

    async def publish(
        self,
        message: Mapping[str, Any],
        *,
        users: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Publish ``{"type": str, "data"?: any, ...}``, by default to everyone, and return its sequence number.

        Both recipients may also be in the message. The token needs the scope ``messages:publish``. A key that repeats
        one of this user, also of an earlier process, returns the first number, and publishes nothing. Raises
        RequestRefused, which states the reason of the server, RequestUnanswered, ConnectionRefused, InvalidMessage,
        or TooManyRequests if ``limit`` requests are waiting.
        """
        addressed_message = published(message, PublishOptions(users=users, topics=topics))
        number: int = await self._request(Publish.type, idempotency_key, message=addressed_message)
        return number

    async def command(self, name: str, data: object = ..., *, idempotency_key: str | None = None) -> Any:
        """Call a command of the application, and return its result, a JSON value.

        Without ``data`` it gets none; Pydantic models are accepted. Each node executes a key once. Raises what
        ``publish`` raises; RequestRefused also for invalid data and a CommandError.
        """
        return await self._request(Command.type, idempotency_key, name=name, **({} if data is ... else {"data": data}))

    async def follow(self, *topics: str) -> list[str]:
        """Follow these topics, too, from now on and after each reconnect. Return all that are followed.

        Raises InvalidTopic, and what ``publish`` raises: RequestRefused for a topic that is not granted.
        """
        return await self._change(Follow.type, topics)

    async def unfollow(self, *topics: str) -> list[str]:
        """Stop following these topics. Return all that are still followed. Raises what ``follow`` raises."""
        return await self._change(Unfollow.type, topics)

    async def _change(self, kind: str, topics: Iterable[str]) -> list[str]:
        followed: list[str] = await self._request(kind, None, topics=[*map(checked_topic, topics)])
        return followed

    async def _request(self, kind: str, key: str | None, **fields: Any) -> Any:
        if key is not None and not is_request_id(key):
            raise InvalidMessage(f"an idempotency key has 1 to 255 visible ASCII characters, unlike {key!r:.100}")
        return await self._link.request({"type": kind, "id": uuid4().hex if key is None else key, **fields})

    # Events

    async def _advance(self) -> None:
        """Load the state, or else read one frame."""
        if self._stale and self._snapshot is not None:
            await self._continue_after(await self._snapshot())
            return
        text = await self._link.next_frame()
        if text is None:
            raise StopAsyncIteration
        self._events.extend(self._read(text))

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
        if number != self.position:
            self.position, self._unconfirmed = number, True
            await self._link.continue_after(Place(number, self.epoch))

    def _read(self, text: bytes) -> Iterator[Event]:
        try:
            frame = frame_of(text)
        except ValueError as error:
            yield self._unreadable(text, detail=str(error))
        else:
            yield from self._take(frame)

    def _unreadable(self, text: bytes, *, detail: str) -> Unreadable:
        """Move past a frame, if its number can be read, so that a reconnect does not deliver it again."""
        number = stamped_number(text)
        if number is not None:
            self._reach(number)
        logger.error("%s: message %s cannot be read: %s", self._shown_url, number, detail)
        return Unreadable(number, detail)

    def _take(self, frame: dict[str, Any]) -> Iterator[Event]:
        match frame:
            case {"type": ConnectedFrame.type}:
                yield from self._take_connected(frame)
            case {"type": GapFrame.type, "from": first, "to": last}:
                yield self._gap(first, last)
            case {"timestamp": _, "sequence_number": _}:
                yield ReceivedMessage.of(frame, recovered_through=self._recovered_through)
            case _:  # Heartbeats, answers to client frames, and types that a later version of the server adds.
                pass
        if "sequence_number" in frame:
            self._reach(frame["sequence_number"])

    def _reach(self, number: int) -> None:
        """Move the position, which only ``connected`` sets back."""
        self.position = max(number, self.position or 0)

    def _take_connected(self, frame: dict[str, Any]) -> Iterator[Event]:
        self._first = frame.get("first", 0)
        if frame.get("outcome") == Outcome.RESET:
            yield self._reset(frame["epoch"])
        elif frame.get("outcome") == Outcome.GAP and self.position is not None:
            first = frame.get("from", max(self.position + 1, self._first))
            yield self._gap(first, frame.get("to", frame["sequence_number"]))
        self._unconfirmed = False
        self._recovered_through = frame["latest"] if "outcome" in frame else 0
        # Last: a gap is counted from the position before, and a reset compares the epoch before.
        self.epoch, self.position = frame["epoch"], frame["sequence_number"]

    def _reset(self, epoch: str) -> Reset:
        # If this epoch is known already, the snapshot belongs to another one: loading it could be repeated for ever.
        self._stale = self._snapshot is not None and not (self._unconfirmed and epoch == self.epoch)
        self._lost = range(0)
        return Reset(epoch)

    def _gap(self, first: int, last: int) -> Gap:
        self._stale = self._snapshot is not None
        self._lost = range(first - 1, last + 1)
        return Gap(first, last)


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: TokenProvider,
    since: int | None = None,
    epoch: str | None = None,
    topics: Iterable[str] | None = None,
    snapshot: Snapshot | None = None,
    limit: int = MAX_PENDING,
    close_seconds: float = CLOSE_SECONDS,
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
        limit=limit,
        close_seconds=close_seconds,
    )
    try:
        await stream.open()
        yield stream
    finally:
        await stream.close()
