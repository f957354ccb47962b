"""The frames that the server sends besides messages.

The first line of a docstring is the summary of its frame in the AsyncAPI document. The protocol page has all of it.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

from pydantic_core import to_json

from unmissed.core.close_codes import CloseCode, code_of
from unmissed.core.encoding import encode_json
from unmissed.core.errors import UnmissedError, public_text
from unmissed.core.fields import (
    ANY,
    BOOLEAN,
    INTEGER,
    MESSAGES,
    NUMBER,
    OUTCOME,
    REQUEST_ID,
    TEXT,
    TOPICS,
    TRUE,
    Content,
    fields_of,
)

MAX_DETAIL_BYTES = 1_000
"""Longest text about an error."""

INTERNAL_ERROR = "internal error: the reason is in the server's log output"


def error_detail(text: str) -> str:
    """Return the text of an error, shortened for a client: it may quote what the client has sent."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= MAX_DETAIL_BYTES:
        return encoded.decode()
    return encoded[: MAX_DETAIL_BYTES - 3].decode(errors="ignore") + "..."


def short_seconds(seconds: float) -> float | None:
    """Return whole seconds as an integer, as in tokens, and None for a time that never ends."""
    if not isfinite(seconds):
        return None
    return int(seconds) if int(seconds) == seconds else seconds


_DETAIL = Content(TEXT.schema, error_detail)
SECONDS = Content({"type": "number"}, short_seconds)
_UNIX_TIME = SECONDS.described("Unix time in seconds.")
_SECONDS_LEFT = SECONDS.described("Seconds until the token expires, by the clock of the server.")


class ServerFrame:
    """A frame of the server. Fields that are None are left out."""

    __slots__ = ()

    type: ClassVar[str]

    def encode(self) -> bytes:
        """Return the frame as compact JSON, with its fields in the order of the class."""
        layout = _LAYOUTS[type(self)]
        frame = dict(zip(layout.names, layout.values(self), strict=True))
        for name, sent in layout.converted:
            value = frame[name]
            if value is not None and sent is not None:
                value = frame[name] = sent(value)
            if value is None:
                del frame[name]
        # A fifth of the time of ``encode_json``, whose checks are for values of applications.
        return to_json(frame)


_Frame = TypeVar("_Frame", bound=ServerFrame)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _frame(frame: type[_Frame]) -> type[_Frame]:
    """Make a class a dataclass that is frozen for type checkers."""
    # Freezing at run time takes 0.1 us a field: more than 1 us for ``connected``, which every handshake needs.
    return dataclass(slots=True, kw_only=True)(frame)


@_frame
class ConnectedFrame(ServerFrame):
    """The first frame: where delivery starts, and how complete the recovery is.

    ``oldest`` and ``latest`` are as over REST, and ``sequence_number`` is the position from which you start. There is
    an ``outcome`` if you sent ``since``. If it is a gap, or a reset after which something above this position was
    evicted, there are ``from`` and ``to`` as in the frame ``gap``. With ``state``, the frames ``state`` follow. There
    are ``topics`` if you follow any, and ``expires_at`` and ``expires_in`` if your token expires. Use ``expires_in``
    where your clock may be wrong. Requests beyond ``rate`` and ``burst`` are refused.
    """

    type: ClassVar[str] = "connected"

    connection_id: Annotated[str, TEXT]
    oldest: Annotated[int, NUMBER]
    latest: Annotated[int, NUMBER]
    sequence_number: Annotated[int, NUMBER]
    epoch: Annotated[str, TEXT]
    first: Annotated[int, NUMBER.described("The number with which this epoch began.")]
    heartbeat_seconds: Annotated[float, SECONDS.described("Seconds between two heartbeats.")]
    max_age: Annotated[float, SECONDS.described("Seconds that messages without a rule, and answers, are retained.")]
    rate: Annotated[float, SECONDS.described("Requests a second that you may send on average.")]
    burst: Annotated[int, INTEGER.described("Requests that you may send at once.")]
    outcome: Annotated[str | None, OUTCOME] = None
    first_lost: Annotated[int | None, NUMBER.named("from")] = None
    last_lost: Annotated[int | None, NUMBER.named("to")] = None
    state: Annotated[bool, TRUE] = False
    topics: Annotated[Collection[str] | None, TOPICS] = None
    expires_at: Annotated[float | None, _UNIX_TIME] = None
    expires_in: Annotated[float | None, _SECONDS_LEFT] = None

    def encode(self) -> bytes:
        """Return the frame as compact JSON. Each handshake needs one: what is equal in all of them is encoded once."""
        optional: dict[str, Any] = {}
        if self.outcome is not None:
            optional["outcome"] = self.outcome
        if self.first_lost is not None:
            optional |= {"from": self.first_lost, "to": self.last_lost}
        if self.state:
            optional["state"] = True
        if self.topics is not None:
            optional["topics"] = sorted(self.topics)
        if self.expires_at is not None and (at := short_seconds(self.expires_at)) is not None:
            optional["expires_at"] = at
        if self.expires_in is not None and (seconds := short_seconds(self.expires_in)) is not None:
            optional["expires_in"] = seconds
        rest = to_json(optional)[1:]
        return b'{"type":"connected","connection_id":%b,"oldest":%d,"latest":%d,"sequence_number":%d,%b%b%b' % (
            to_json(self.connection_id),
            self.oldest,
            self.latest,
            self.sequence_number,
            _shared((self.epoch, self.first, self.heartbeat_seconds, self.max_age, self.rate, self.burst)),
            b"," if len(rest) > 1 else b"",
            rest,
        )


@lru_cache(maxsize=16)
def _shared(facts: tuple[str, int, float, float, float, int]) -> bytes:
    """Return the fields of ``connected`` that all connections to a log share, as JSON without its braces."""
    epoch, first, heartbeat_seconds, max_age, rate, burst = facts
    fields = {
        "epoch": epoch,
        "first": first,
        "heartbeat_seconds": short_seconds(heartbeat_seconds),
        "max_age": short_seconds(max_age),
        "rate": short_seconds(rate),
        "burst": burst,
    }
    return to_json({name: value for name, value in fields.items() if value is not None})[1:-1]


@_frame
class HeartbeatFrame(ServerFrame):
    """The position of a client that is up to date.

    It comes once you are up to date after a resume, and every ``heartbeat_seconds``. A client that receives nothing for
    2.5 times as long considers the connection lost.
    """

    type: ClassVar[str] = "heartbeat"

    sequence_number: Annotated[int, NUMBER]

    def encode(self) -> bytes:
        """Return the frame as compact JSON."""
        return b'{"type":"heartbeat","sequence_number":%d}' % self.sequence_number


@_frame
class GapFrame(ServerFrame):
    """A message that you would have seen is lost.

    Of the messages ``from`` to ``to``, at least the one numbered ``to`` was evicted before you had read it. Those that
    are retained follow; whatever else you would have seen in this range is lost, or was replaced. ``sequence_number``
    is your position, which a gap does not move. Each loss is declared once on a connection.
    """

    type: ClassVar[str] = "gap"

    first: Annotated[int, NUMBER.named("from")]
    last: Annotated[int, NUMBER.named("to")]
    sequence_number: Annotated[int, NUMBER]

    def encode(self) -> bytes:
        """Return the frame as compact JSON."""
        return b'{"type":"gap","from":%d,"to":%d,"sequence_number":%d}' % (self.first, self.last, self.sequence_number)


@_frame
class StateFrame(ServerFrame):
    """A part of the retained values by key that you see, in order.

    ``values`` are messages with a ``key``: the newest of each, and the pieces with ``append``. The last part has
    ``has_more`` false and a ``sequence_number``, at which the state is cut: what is newer follows as ordinary messages.
    With the last part, replace all that you kept for these topics. If you are cut before it, ask for the state again.
    ``id`` is that of the request, if it had one.
    """

    type: ClassVar[str] = "state"

    values: Annotated[Collection[bytes], MESSAGES]
    has_more: Annotated[bool, BOOLEAN]
    sequence_number: Annotated[int | None, NUMBER] = None
    id: Annotated[str | None, REQUEST_ID] = None

    def encode(self) -> bytes:
        """Return the frame as compact JSON. Its values are the bytes of messages, which are included unchanged."""
        rest = {"has_more": self.has_more, "sequence_number": self.sequence_number, "id": self.id}
        return b'{"type":"state","values":[%b],%b' % (
            b",".join(self.values),
            to_json({name: value for name, value in rest.items() if value is not None})[1:],
        )


@_frame
class ReconnectFrame(ServerFrame):
    """The server restarts: reconnect after a delay.

    ``after_ms`` is in milliseconds.
    """

    type: ClassVar[str] = "reconnect"

    after_ms: Annotated[int, INTEGER]


@_frame
class ErrorFrame(ServerFrame):
    """A frame of the client was refused, or a request failed.

    ``code`` is a close code, and ``id`` that of the frame, if it had one.
    """

    type: ClassVar[str] = "error"

    id: Annotated[str | None, REQUEST_ID] = None
    code: Annotated[int, INTEGER]
    detail: Annotated[str, _DETAIL]

    @classmethod
    def of(cls, error: UnmissedError, *, request_id: str | None) -> "ErrorFrame":
        """Return the frame that reports an exception of this package."""
        return cls(code=code_of(error), detail=public_text(error), id=request_id)

    @classmethod
    def internal(cls, *, request_id: str | None) -> "ErrorFrame":
        """Return the frame that reports a failure of the server, without the reason."""
        return cls(code=CloseCode.INTERNAL_ERROR, detail=INTERNAL_ERROR, id=request_id)


@_frame
class PongFrame(ServerFrame):
    """The answer to ping."""

    type: ClassVar[str] = "pong"

    def encode(self) -> bytes:
        """Return the frame as compact JSON."""
        return b'{"type":"pong"}'


@_frame
class AuthenticatedFrame(ServerFrame):
    """The answer to a renewed token, with the topics that it added and removed.

    ``sequence_number`` is your position. ``expires_at`` and ``expires_in`` are as in ``connected``.
    """

    type: ClassVar[str] = "authenticated"

    added: Annotated[Collection[str], TOPICS]
    removed: Annotated[Collection[str], TOPICS]
    sequence_number: Annotated[int, NUMBER]
    expires_at: Annotated[float | None, _UNIX_TIME] = None
    expires_in: Annotated[float | None, _SECONDS_LEFT] = None


@_frame
class FollowingFrame(ServerFrame):
    """The answer to follow and unfollow: the topics that it added or removed.

    ``added`` are those that you did not follow before, and ``removed`` those that you no longer follow.
    ``sequence_number`` is your position. There is an ``outcome`` if the request had ``since``: it is a gap if messages
    of the new topics after it were evicted, with ``from`` and ``to`` as in the frame ``gap``.
    """

    type: ClassVar[str] = "following"

    # Only the changes: the list of all topics could be thousands of times as long as the request.
    added: Annotated[Collection[str], TOPICS]
    removed: Annotated[Collection[str], TOPICS]
    sequence_number: Annotated[int, NUMBER]
    outcome: Annotated[str | None, OUTCOME] = None
    first_lost: Annotated[int | None, NUMBER.named("from")] = None
    last_lost: Annotated[int | None, NUMBER.named("to")] = None
    id: Annotated[str | None, REQUEST_ID] = None


@_frame
class PublishedFrame(ServerFrame):
    """The answer to publish.

    ``sequence_number`` is that of the message, unless it is ephemeral. It comes after all that you see up to this
    number.
    """

    type: ClassVar[str] = "published"

    id: Annotated[str, REQUEST_ID]
    sequence_number: Annotated[int | None, NUMBER] = None


@_frame
class ResultFrame(ServerFrame):
    """The answer to command."""

    type: ClassVar[str] = "result"

    id: Annotated[str, REQUEST_ID]
    data: Annotated[Any, ANY]

    def encode(self) -> bytes:
        """Return the frame as compact JSON. Raises ValueError if the data has no JSON form."""
        return encode_json({"type": self.type, "id": self.id, "data": self.data})


SERVER_FRAMES: tuple[type[ServerFrame], ...] = (
    ConnectedFrame,
    HeartbeatFrame,
    GapFrame,
    StateFrame,
    ReconnectFrame,
    ErrorFrame,
    PongFrame,
    AuthenticatedFrame,
    FollowingFrame,
    PublishedFrame,
    ResultFrame,
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the frames of one class are encoded: in C, except the fields that are converted or may be absent."""

    names: Sequence[str]
    values: Callable[[ServerFrame], Iterable[Any]]
    converted: Sequence[tuple[str, Callable[[Any], object] | None]]

    @classmethod
    def of(cls, frame: type[ServerFrame]) -> "_Layout":
        fields = fields_of(frame)
        return cls(
            names=["type", *(each.name for each in fields)],
            values=attrgetter("type", *(each.attribute for each in fields)),
            converted=[(each.name, each.content.sent) for each in fields if each.content.sent or not each.required],
        )


_LAYOUTS = {frame: _Layout.of(frame) for frame in SERVER_FRAMES}

PRESENCE_TYPE = "presence"
"""The type of the messages that the server publishes about members of a topic."""

RESERVED_TYPES = frozenset(frame.type for frame in SERVER_FRAMES) | {PRESENCE_TYPE}
"""The types of server frames; publishers may not use them."""

PONG = PongFrame().encode()
