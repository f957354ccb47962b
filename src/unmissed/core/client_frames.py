"""The frames that clients send."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from unmissed.core.encoding import decode_json, encode_json, encode_text
from unmissed.core.errors import InvalidFrame, InvalidPosition, InvalidTopic
from unmissed.core.topics import MAX_TOPICS, checked_topic
from unmissed.core.wire import MAX_SEQUENCE_NUMBER

MAX_CLIENT_FRAME_BYTES = 65_536
"""Largest client frame."""

REQUEST_ID_PATTERN = "^[!-~]{1,255}$"
"""What the id of a request looks like: a regular expression for documents."""

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN[1:-1])


@dataclass(frozen=True, slots=True)
class Authenticate:
    """``{"type": "authenticate", "token": "..."}``, the first frame of a client that sent no token in its handshake."""

    token: str
    id: None = None


@dataclass(frozen=True, slots=True)
class Follow:
    """``{"type": "follow", "topics": [...], "since"?: N, "epoch"?: E, "id"?: "..."}``, answered by ``following``."""

    topics: tuple[str, ...]
    since: int | None = None
    epoch: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Unfollow:
    """``{"type": "unfollow", "topics": [...], "id"?: "..."}``, answered by ``following``."""

    topics: tuple[str, ...]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """``{"type": "ping"}``, answered by ``{"type": "pong"}``."""


@dataclass(frozen=True, slots=True)
class Publish:
    """``{"type": "publish", "id": "...", "message": {...}}``, answered by ``published`` or ``error`` with that id.

    The id is an idempotency key: repeating it publishes nothing, and is answered like the first time.
    """

    id: str
    text: bytes
    """The frame. Its message is decoded again when it is published: decoded values take up to 50 times its bytes."""

    def messages(self) -> Iterator[object]:
        """Yield the message, which is referred to by nobody else."""
        yield decode_json(self.text)["message"]


@dataclass(frozen=True, slots=True)
class Command:
    """``{"type": "command", "id": "...", "name": "...", "data"?: any}``, answered by ``result`` or ``error``.

    Repeating an id does nothing again, and is answered like the first time.
    """

    id: str
    name: str
    data: bytes | None = None
    """Compact JSON: while a command waits and runs, its text takes a small part of the memory of its values."""


Request = Publish | Command
"""A client frame with an id, which the answer repeats."""

Change = Authenticate | Follow | Unfollow
"""A client frame that changes what the client may see."""

ClientFrame = Ping | Change | Request

_KINDS = ("ping", "authenticate", "follow", "unfollow", "publish", "command")


def parse_client_frame(text: str | bytes) -> ClientFrame:
    """Parse a client frame. Raises InvalidFrame, whose text and request id are safe to send back."""
    if len(text) > MAX_CLIENT_FRAME_BYTES:
        raise InvalidFrame(f"a frame must have at most {MAX_CLIENT_FRAME_BYTES} bytes")
    if isinstance(text, bytes):
        raise InvalidFrame("binary frames are not supported: send JSON as text")
    try:
        frame = decode_json(text)
    except ValueError:
        raise InvalidFrame('the frame is not JSON: send an object such as {"type": "ping"}') from None
    match frame:
        case {"type": str(kind)} if kind in _KINDS:
            return _parse(kind, frame, text)
        case _:
            raise InvalidFrame(f"unknown frame: type must be one of {', '.join(_KINDS)}")


def _parse(kind: str, frame: Mapping[str, Any], text: str) -> ClientFrame:
    try:
        match kind:
            case "ping":
                return Ping()
            case "authenticate":
                return _authenticate(frame)
            case "follow":
                return _follow(frame)
            case "unfollow":
                return _unfollow(frame)
            case "publish":
                return _publish(frame, text)
            case _:
                return _command(frame)
    except InvalidFrame as error:
        if _is_request_id(frame.get("id")):
            error.request_id = frame["id"]
        raise


def _authenticate(frame: Mapping[str, Any]) -> Authenticate:
    if not isinstance(frame.get("token"), str):
        raise InvalidFrame("authenticate needs a token, which is a string")
    return Authenticate(frame["token"])


def _follow(frame: Mapping[str, Any]) -> Follow:
    return Follow(_topics(frame), _since(frame.get("since")), _epoch(frame.get("epoch")), _optional_id(frame))


def _unfollow(frame: Mapping[str, Any]) -> Unfollow:
    return Unfollow(_topics(frame), _optional_id(frame))


def _publish(frame: Mapping[str, Any], text: str) -> Publish:
    if "message" not in frame:
        raise InvalidFrame('publish needs a message, which is an object such as {"type": "chat"}')
    try:
        return Publish(_request_id(frame), encode_text(text))
    except ValueError as error:
        raise InvalidFrame(f"the message cannot be sent as JSON: {error}") from None


def _command(frame: Mapping[str, Any]) -> Command:
    if not isinstance(frame.get("name"), str):
        raise InvalidFrame("command needs a name, which is a string")
    try:
        data = encode_json(frame["data"]) if "data" in frame else None
    except ValueError as error:
        raise InvalidFrame(f"the data is not valid: {error}") from None
    return Command(_request_id(frame), frame["name"], data)


def _request_id(frame: Mapping[str, Any]) -> str:
    request_id = frame.get("id")
    if _is_request_id(request_id):
        return request_id
    raise InvalidFrame("publish and command need an id: a string of 1 to 255 visible ASCII characters")


def _optional_id(frame: Mapping[str, Any]) -> str | None:
    request_id = frame.get("id")
    if request_id is None or _is_request_id(request_id):
        return request_id
    raise InvalidFrame("an id must be a string of 1 to 255 visible ASCII characters")


def _is_request_id(value: object) -> TypeGuard[str]:
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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQUENCE_NUMBER:
        raise InvalidFrame(str(InvalidPosition()))
    return value


def _epoch(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidFrame("epoch must be a string")
