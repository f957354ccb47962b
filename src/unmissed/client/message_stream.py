"""The stream of a client: messages in order and once, reports of losses, and requests to the server."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, TypedDict, Unpack, overload
from uuid import uuid4

from unmissed.client.connecting import TokenProvider
from unmissed.client.kept_values import KeptValue, KeptValues, TopicState
from unmissed.client.link import CLOSE_SECONDS, Link, Place, Status
from unmissed.client.pending_requests import MAX_PENDING, PendingRequests
from unmissed.client.progress import Progress
from unmissed.client.received import Event
from unmissed.client.request_sender import RequestSender
from unmissed.core.audience import checked_topic
from unmissed.core.client_frames import Command, Follow, Publish, Unfollow, is_request_id
from unmissed.core.errors import ConfigurationError, InvalidMessage, UnmissedError, one_string
from unmissed.core.messages import PublishOptions, Recipients, published

logger = logging.getLogger("unmissed.client")

Snapshot = Callable[[], Awaitable[int]]
"""Loads the state that the messages change, and returns the number of the last message in it."""


class StreamLimits(TypedDict, total=False):
    """How many requests may wait for their answers, and how many seconds closing waits for the server."""

    limit: int
    close_seconds: float


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
        state: bool = False,
        **limits: Unpack[StreamLimits],
    ) -> None:
        if isinstance(topics, str):
            raise ConfigurationError(one_string("topics", topics))
        if state and (since is not None or snapshot is not None):
            raise ConfigurationError(
                "with state=True, the stream begins with the values by key as they are: leave out since and snapshot"
            )
        self._link = Link(
            url,
            token=token,
            place=Place(since, epoch),
            topics=topics,
            sender=RequestSender(PendingRequests(limit=limits.get("limit", MAX_PENDING))),
            state=state,
            close_seconds=limits.get("close_seconds", CLOSE_SECONDS),
        )
        self._values = KeptValues() if state else None
        self._progress = Progress(
            Place(since, epoch),
            shown_url=self._link.shown_url,
            values=self._values,
            has_snapshot=snapshot is not None,
        )
        self._events: deque[Event] = deque()
        self._snapshot = snapshot
        self._following = asyncio.Lock()
        self._loading: set[asyncio.Task[None]] = set()

    @property
    def position(self) -> int | None:
        """The position of the iterator, or None if the server has not confirmed where it starts."""
        return self._progress.position

    @property
    def epoch(self) -> str | None:
        """The epoch of the server's log."""
        return self._progress.epoch

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
        if self._progress.is_stale:
            await self._advance()
        await self._advance()
        while self._values is not None and not self._values.loaded:
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

    def state(self, topic: str | None = None) -> Mapping[str, KeptValue]:
        """Return the values of a topic by key, or of the messages without topics: to everyone, and to this user.

        It changes as the iterator returns messages. Raises ConfigurationError unless the stream was opened with
        ``state=True``.
        """
        if self._values is None:
            raise ConfigurationError("this stream keeps no values: open it with connect(..., state=True)")
        return TopicState(self._values, topic)

    # Requests

    @overload
    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: Literal[False] = False, **options: Unpack[PublishOptions]
    ) -> int: ...

    @overload
    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: Literal[True], **options: Unpack[Recipients]
    ) -> None: ...

    async def publish(
        self, message: Mapping[str, Any], *, ephemeral: bool = False, **options: Unpack[PublishOptions]
    ) -> int | None:
        """Publish ``{"type": str, "data"?: any, ...}``, by default to everyone, and return its sequence number.

        All options but ``idempotency_key`` may also be in the message. With a ``key``, it replaces the value of that
        key for these recipients; with ``append`` it adds a piece to it, and with ``deleted`` it ends it. An
        ``ephemeral`` message is not stored: it reaches those who are connected, and has no number (None). The token
        needs the scope ``messages:publish``. An idempotency key that repeats one of this user, also of an earlier
        process, returns the first number, and publishes nothing. Raises RequestRefused, which states the reason of the
        server, RequestUnanswered, ConnectionRefused, InvalidMessage, or TooManyRequests if ``limit`` requests are
        waiting.
        """
        idempotency_key, full = options.get("idempotency_key"), published(message, options)
        if ephemeral:
            full = {**full, "ephemeral": True}
        if full.get("ephemeral") and idempotency_key is not None:
            raise InvalidMessage(
                "an ephemeral message is not stored, so it cannot be recognised: leave out the idempotency key"
            )
        number: int | None = await self._request(Publish.type, idempotency_key, message=full)
        return number

    async def command(self, name: str, data: object = ..., *, idempotency_key: str | None = None) -> Any:
        """Call a command of the application, and return its result, a JSON value.

        Without ``data`` it gets none; Pydantic models are accepted. Each node executes a key once. Raises what
        ``publish`` raises; RequestRefused also for invalid data and a CommandError.
        """
        return await self._request(Command.type, idempotency_key, name=name, **({} if data is ... else {"data": data}))

    async def follow(self, *topics: str) -> list[str]:
        """Follow these topics, too, from now on and after each reconnect. Return all that are followed.

        With ``state=True``, their values are loaded before their messages arrive. Raises InvalidTopic, and what
        ``publish`` raises: RequestRefused for a topic that is not granted.
        """
        if self._values is None:
            return await self._change(Follow.type, topics)
        request_id = uuid4().hex
        # The server refuses a second one while it sends the values of the first.
        async with self._following:
            # Until it is answered, also if the caller no longer waits: the values arrive all the same.
            self._progress.followed[request_id] = topics
            return await self._change(Follow.type, topics, key=request_id, state=True)

    async def unfollow(self, *topics: str) -> list[str]:
        """Stop following these topics. Return all that are still followed. Raises what ``follow`` raises."""
        return await self._change(Unfollow.type, topics)

    async def _change(self, kind: str, topics: Iterable[str], *, key: str | None = None, **fields: Any) -> list[str]:
        followed: list[str] = await self._request(kind, key, topics=[*map(checked_topic, topics)], **fields)
        return followed

    async def _request(self, kind: str, key: str | None, **fields: Any) -> Any:
        if key is not None and not is_request_id(key):
            raise InvalidMessage(f"an idempotency key has 1 to 255 visible ASCII characters, unlike {key!r:.100}")
        return await self._link.request({"type": kind, "id": uuid4().hex if key is None else key, **fields})

    # Events

    async def _advance(self) -> None:
        """Load the state, or else read one frame."""
        progress = self._progress
        if progress.is_stale and self._snapshot is not None:
            if progress.loaded(await self._snapshot()):
                await self._link.continue_after(progress.place)
            return
        text = await self._link.next_frame()
        if text is None:
            raise StopAsyncIteration
        self._events.extend(progress.read(text))
        if progress.added_topics:
            topics, progress.added_topics = progress.added_topics, []
            self._load_values(topics)
        if progress.needs_values:
            progress.needs_values = False
            await self._link.continue_after(progress.place)

    def _load_values(self, topics: Iterable[str]) -> None:
        """Request the values of topics that a renewed token has added."""
        task = asyncio.create_task(self._load_in_background(topics))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _load_in_background(self, topics: Iterable[str]) -> None:
        try:
            await self.follow(*topics)
        except UnmissedError as error:
            logger.warning("%s: the values of further topics cannot be loaded: %s", self._link.shown_url, error)


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: TokenProvider,
    since: int | None = None,
    epoch: str | None = None,
    topics: Iterable[str] | None = None,
    snapshot: Snapshot | None = None,
    state: bool = False,
    **limits: Unpack[StreamLimits],
) -> AsyncIterator[Stream]:
    """Open a stream of events from a server such as ``http://127.0.0.1:8000`` or ``wss://example.com/ws``.

    ``token`` is a JWT, or a function, async or not, that returns a fresh one for each connection, and before it
    expires. The stream starts after ``since``, or with the next message, and follows ``topics``, by default all that
    the token grants by name. Closing waits at most ``close_seconds`` (0.5) for the close frame of the server, and at
    most ``limit`` (1,000) requests wait for their answers. Raises ConnectionRefused, or ConfigurationError for a bad
    URL or token, and for one string as ``topics``.

    With ``state``, the stream begins with the values by key that this client sees, as ``stream.state(topic)``, and
    continues after them. They change with the messages that the iterator returns, and are loaded again after every Gap
    and Reset. StateLoaded is the first event, and comes whenever they were loaded.

    ``snapshot`` is for state that messages change: an async function that loads this state, and returns the sequence
    number of the last message in it (0 for none). It is called before the first connection, unless ``since`` is
    given, and after every Gap and Reset, when the next event is awaited. The stream continues after the number: the
    state may be older or newer than the connection, for example from a cache or a read replica. If messages after it
    are lost, this is a Gap. If the next snapshot does not contain all messages of this gap either, the stream logs a
    warning, and continues with those that are retained. An exception of ``snapshot`` is raised where the stream is
    opened, or the next event is awaited. Awaiting another event calls it again.
    """
    stream = Stream(
        url,
        token=token,
        since=since,
        epoch=epoch,
        topics=topics,
        snapshot=snapshot,
        state=state,
        **limits,
    )
    try:
        await stream.open()
        yield stream
    finally:
        await stream.close()
