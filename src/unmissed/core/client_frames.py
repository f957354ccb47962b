"""The frames that clients send.

The first line of a docstring is the summary of its frame in the AsyncAPI document. The protocol page has all of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeGuard

from unmissed.core.audience import MAX_TOPICS, checked_topic
from unmissed.core.encoding import decode_json, encode_json, encode_text
from unmissed.core.errors import InvalidFrame, InvalidPosition, InvalidTopic
from unmissed.core.fields import (
    ANY,
    MAX_SEQUENCE_NUMBER,
    NUMBER,
    REQUEST_ID,
    REQUEST_ID_PATTERN,
    TEXT,
    TOPICS,
    TRUE,
    Content,
)

MAX_CLIENT_FRAME_BYTES = 65_536
"""Largest client frame."""

_MESSAGE = Content({"type": "object"})
_REQUEST_ID = re.compile(REQUEST_ID_PATTERN[1:-1])


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for pong."""

    type: ClassVar[str] = "ping"

    @classmethod
    def read(cls, _frame: Mapping[str, Any], _text: str) -> Self:
        """Return the frame that a client has sent."""
        return cls()


@dataclass(frozen=True, slots=True)
class Authenticate:
    """The first frame without a token in the handshake; later, a renewed token.

    The token is used from now on, and must be for the same user. Topics that it does not grant are no longer followed;
    if you neither chose nor unfollowed topics, you follow all that it grants by name. Answered by ``authenticated``.
    """

    type: ClassVar[str] = "authenticate"
    id: ClassVar[None] = None

    token: Annotated[str, TEXT]

    @classmethod
    def read(cls, frame: Mapping[str, Any], _text: str) -> Self:
        """Return the frame that a client has sent. Raises InvalidFrame."""
        if not isinstance(frame.get("token"), str):
            raise InvalidFrame("authenticate needs a token, which is a string")
        return cls(frame["token"])

    def encode(self) -> bytes:
        """Return the frame as a client sends it."""
        return encode_json({"type": self.type, "token": self.token})


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow topics, too.

    You receive their messages from your position on. With ``since``, their messages after it come first, except those
    that you have seen, and then ``following`` with the ``outcome``; their numbers are at or below your position. If
    ``since`` is ahead of your node, the frame waits until the node has caught up, or is answered with an ``error``.
    With ``state``, the values of these topics come before all that in frames ``state``, unless the messages after
    ``since`` are complete.
    """

    type: ClassVar[str] = "follow"

    topics: Annotated[tuple[str, ...], TOPICS]
    since: Annotated[int | None, NUMBER] = None
    epoch: Annotated[str | None, TEXT] = None
    state: Annotated[bool, TRUE] = False
    id: Annotated[str | None, REQUEST_ID] = None

    @classmethod
    def read(cls, frame: Mapping[str, Any], _text: str) -> Self:
        """Return the frame that a client has sent. Raises InvalidFrame."""
        return cls(
            _topics(frame),
            _since(frame.get("since")),
            _epoch(frame.get("epoch")),
            _state(frame.get("state")),
            _optional_id(frame),
        )


@dataclass(frozen=True, slots=True)
class Unfollow:
    """Stop following topics.

    Answered by ``following``.
    """

    type: ClassVar[str] = "unfollow"

    topics: Annotated[tuple[str, ...], TOPICS]
    id: Annotated[str | None, REQUEST_ID] = None

    @classmethod
    def read(cls, frame: Mapping[str, Any], _text: str) -> Self:
        """Return the frame that a client has sent. Raises InvalidFrame."""
        return cls(_topics(frame), _optional_id(frame))


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a message. Repeating an id publishes nothing.

    The message is as for ``POST`` (scope ``messages:publish``). Answered by ``published``, or ``error``, and a repeated
    id like the first time. An ephemeral message is published each time.
    """

    type: ClassVar[str] = "publish"

    id: Annotated[str, REQUEST_ID]
    text: Annotated[bytes, _MESSAGE.named("message")]
    """The frame. Its message is decoded again when it is published: decoded values take up to 50 times its bytes."""

    @classmethod
    def read(cls, frame: Mapping[str, Any], text: str) -> Self:
        """Return the frame that a client has sent. Raises InvalidFrame."""
        if "message" not in frame:
            raise InvalidFrame('publish needs a message, which is an object such as {"type": "chat"}')
        try:
            return cls(_request_id(frame), encode_text(text))
        except ValueError as error:
            raise InvalidFrame(f"the message cannot be sent as JSON: {error}") from None

    @property
    def is_ephemeral(self) -> bool:
        """Whether the message asks not to be stored. Only few are decoded for that."""
        if b'"ephemeral"' not in self.text:
            return False
        [message] = self.messages()
        return isinstance(message, dict) and message.get("ephemeral") is True

    def messages(self) -> Iterator[object]:
        """Yield the message without keeping it."""
        yield decode_json(self.text)["message"]


@dataclass(frozen=True, slots=True)
class Command:
    """Call a command of the application. A repeated id is not executed again.

    Answered by ``result`` or ``error``, and a repeated id like the first time.
    """

    type: ClassVar[str] = "command"

    id: Annotated[str, REQUEST_ID]
    name: Annotated[str, TEXT]
    data: Annotated[bytes | None, ANY] = None
    """Compact JSON: while a command waits and runs, its text takes a small part of the memory of its values."""

    @classmethod
    def read(cls, frame: Mapping[str, Any], _text: str) -> Self:
        """Return the frame that a client has sent. Raises InvalidFrame."""
        if not isinstance(frame.get("name"), str):
            raise InvalidFrame("command needs a name, which is a string")
        try:
            data = encode_json(frame["data"]) if "data" in frame else None
        except ValueError as error:
            raise InvalidFrame(f"the data is not valid: {error}") from None
        return cls(_request_id(frame), frame["name"], data)


Request = Publish | Command
"""A client frame with an id, which the answer repeats."""

Change = Authenticate | Follow | Unfollow
"""A client frame that changes what the client may see."""

ClientFrame = Ping | Change | Request

CLIENT_FRAMES: tuple[type[ClientFrame], ...] = (Ping, Authenticate, Follow, Unfollow, Publish, Command)
_BY_TYPE: Mapping[str, type[ClientFrame]] = {frame.type: frame for frame in CLIENT_FRAMES}


def parse_client_frame(text: str | bytes) -> ClientFrame:
    """Parse a client frame. Raises InvalidFrame, whose text and request id are safe to send back."""
    # Before decoding, which costs time and memory: other servers may pass on larger frames than ours.
    if len(text) > MAX_CLIENT_FRAME_BYTES:
        raise InvalidFrame(f"a frame must have at most {MAX_CLIENT_FRAME_BYTES} bytes")
    if isinstance(text, bytes):
        raise InvalidFrame("binary frames are not supported: send JSON as text")
    try:
        frame = decode_json(text)
    except ValueError:
        raise InvalidFrame('the frame is not JSON: send an object such as {"type": "ping"}') from None
    match frame:
        case {"type": str(name)} if kind := _BY_TYPE.get(name):
            return _read(kind, frame, text)
        case _:
            raise InvalidFrame(f"unknown frame: type must be one of {', '.join(_BY_TYPE)}")


def _read(kind: type[ClientFrame], frame: Mapping[str, Any], text: str) -> ClientFrame:
    try:
        return kind.read(frame, text)
    except InvalidFrame as error:
        if is_request_id(frame.get("id")):
            error.request_id = frame["id"]
        raise


def _request_id(frame: Mapping[str, Any]) -> str:
    request_id = frame.get("id")
    if is_request_id(request_id):
        return request_id
    raise InvalidFrame("publish and command need an id: a string of 1 to 255 visible ASCII characters")


def _optional_id(frame: Mapping[str, Any]) -> str | None:
    request_id = frame.get("id")
    if request_id is None or is_request_id(request_id):
        return request_id
    raise InvalidFrame("an id must be a string of 1 to 255 visible ASCII characters")


def is_request_id(value: object) -> TypeGuard[str]:
    """Return whether a value may be the id of a request."""
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


def _topics(frame: Mapping[str, Any]) -> tuple[str, ...]:
    topics = frame.get("topics")
    if not isinstance(topics, list):
        raise InvalidFrame("follow and unfollow need topics, which is a list of names")
    if len(topics) > MAX_TOPICS:
        raise InvalidFrame(f"a frame names at most {MAX_TOPICS} topics, and this one {len(topics)}: send several")
    try:
        return tuple(map(checked_topic, topics))
    except InvalidTopic as error:
        raise InvalidFrame(str(error)) from None


def _since(value: object) -> int | None:
    if value is None:
        return None
    # ``true`` is an int in Python, too.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQUENCE_NUMBER:
        raise InvalidFrame(str(InvalidPosition()))
    return value


def _epoch(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidFrame("epoch must be a string")


def _state(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidFrame("state must be true or false")
