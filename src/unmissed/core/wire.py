"""The wire format apart from messages: server frames, client frames, close codes, the bodies of responses."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite

from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.errors import InvalidFrame, InvalidPosition, InvalidTopic
from unmissed.core.topics import checked_topic

RESERVED_TYPES = frozenset(
    {
        "authenticated",
        "connected",
        "error",
        "following",
        "gap",
        "heartbeat",
        "pong",
        "published",
        "reconnect",
        "result",
    }
)
"""The types of server frames; publishers may not use them."""

BEARER_SUBPROTOCOL = "unmissed.bearer"
"""Offered by a browser together with its token: ``new WebSocket(url, ["unmissed.bearer", token])``."""

MAX_SEQUENCE_NUMBER = 2**53 - 1
"""The largest integer that JavaScript holds exactly."""

MAX_CLIENT_FRAME_BYTES = 8_448
"""Largest client frame: a token of 8 kB and the JSON around it."""

_CANONICAL_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class CloseCode(IntEnum):
    """Why a WebSocket was closed. The protocol documentation describes how clients handle each code."""

    NORMAL = 1000
    LOST = 1006
    INVALID_DATA = 1007
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    AUTHENTICATION_TIMEOUT = 4408
    TOO_MANY = 4429


@dataclass(frozen=True, slots=True)
class Authenticate:
    """``{"type": "authenticate", "token": "..."}``, the first frame of a client that sent no token in its handshake."""

    token: str


@dataclass(frozen=True, slots=True)
class Follow:
    """``{"type": "follow", "topics": [...], "since"?: N, "epoch"?: E}``, answered by ``following``."""

    topics: tuple[str, ...]
    since: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Unfollow:
    """``{"type": "unfollow", "topics": [...]}``, answered by ``following``."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """``{"type": "ping"}``, answered by ``{"type": "pong"}``."""


def close_reason(text: str) -> str:
    """Return the part of a text that fits into a close frame: 123 bytes of UTF-8 (RFC 6455 section 5.5)."""
    return text.encode(errors="replace")[:123].decode(errors="ignore")


def parse_sequence_number(text: str) -> int:
    """Return a sequence number written as canonical decimal digits. Raises InvalidPosition for anything else."""
    if not _CANONICAL_INTEGER.fullmatch(text) or int(text) > MAX_SEQUENCE_NUMBER:
        raise InvalidPosition
    return int(text)


ClientFrame = Authenticate | Follow | Ping | Unfollow


def parse_client_frame(text: str | bytes) -> ClientFrame:
    """Parse a client frame. Raises InvalidFrame, whose text is safe to send back."""
    if len(text) > MAX_CLIENT_FRAME_BYTES:
        raise InvalidFrame(f"a frame must have at most {MAX_CLIENT_FRAME_BYTES} bytes")
    if isinstance(text, bytes):
        raise InvalidFrame("binary frames are not supported: send JSON as text")
    try:
        frame = decode_json(text)
    except ValueError:
        raise InvalidFrame('the frame is not JSON: send an object such as {"type": "ping"}') from None
    match frame:
        case {"type": "ping"}:
            return Ping()
        case {"type": "authenticate", "token": str(token)}:
            return Authenticate(token)
        case {"type": "authenticate"}:
            raise InvalidFrame("authenticate needs a token, which is a string")
        case {"type": "follow", "topics": [*topics]}:
            return Follow(_topics(topics), _since(frame.get("since")), _epoch(frame.get("epoch")))
        case {"type": "unfollow", "topics": [*topics]}:
            return Unfollow(_topics(topics))
        case {"type": "follow" | "unfollow"}:
            raise InvalidFrame("follow and unfollow need topics, which is a list of names")
        case _:
            raise InvalidFrame('unknown frame: type must be "ping", "authenticate", "follow" or "unfollow"')


def _topics(names: list[object]) -> tuple[str, ...]:
    try:
        return tuple(map(checked_topic, names))
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


def connected(
    *,
    connection_id: str,
    epoch: str,
    oldest: int,
    latest: int,
    outcome: str | None,
    start: int,
    topics: Iterable[str] = (),
    expires_at: float | None = None,
) -> bytes:
    """Return the first frame of a connection. Everything visible after ``start`` follows."""
    frame: dict[str, object] = {
        "type": "connected",
        "connection_id": connection_id,
        "epoch": epoch,
        "oldest": oldest,
        "latest": latest,
        "sequence_number": start,
    }
    if outcome is not None:
        frame["outcome"] = outcome
    if followed := sorted(topics):
        frame["topics"] = followed
    return encode_json({**frame, **_expiry(expires_at)})


def authenticated(*, expires_at: float | None, topics: Iterable[str], position: int) -> bytes:
    """Return the answer to a token that was renewed. The topics are those that are followed after the position."""
    frame = {"type": "authenticated", "topics": sorted(topics), "sequence_number": position}
    return encode_json({**frame, **_expiry(expires_at)})


def _expiry(unix_time: float | None) -> dict[str, float]:
    """Return the field for an expiry, if there is one. Whole seconds are an integer, as in tokens."""
    if unix_time is None or not isfinite(unix_time):
        return {}
    return {"expires_at": int(unix_time) if int(unix_time) == unix_time else unix_time}


def following(topics: Iterable[str], *, position: int, outcome: str | None = None) -> bytes:
    """Return the answer to ``follow`` and ``unfollow``: the topics that are followed after the position.

    ``outcome`` tells how complete the past was that ``follow`` requested.
    """
    frame = {"type": "following", "topics": sorted(topics), "sequence_number": position}
    return encode_json(frame if outcome is None else {**frame, "outcome": outcome})


def heartbeat(*, position: int) -> bytes:
    """Return the frame that tells a client its position once it is up to date."""
    return b'{"type":"heartbeat","sequence_number":%d}' % position


def gap(*, first: int, last: int) -> bytes:
    """Return the frame that tells a client which messages it cannot receive any more."""
    return b'{"type":"gap","from":%d,"to":%d,"sequence_number":%d}' % (first, last, last)


def reconnect(*, after_ms: int) -> bytes:
    """Return the frame that asks a client to reconnect after a delay."""
    return b'{"type":"reconnect","after_ms":%d}' % after_ms


def error(*, code: int, detail: str) -> bytes:
    """Return the frame that tells a client why its frame was refused."""
    return encode_json({"type": "error", "code": code, "detail": detail})


PONG = b'{"type":"pong"}'


def recovery_body(
    payloads: Iterable[bytes], *, epoch: str, oldest: int, latest: int, outcome: str, has_more: bool
) -> bytes:
    """Return the body of ``GET /websocket/messages``; the payloads are included byte for byte."""
    return b'{"messages":[%b],"epoch":"%b","oldest":%d,"latest":%d,"outcome":"%b","has_more":%b}' % (
        b",".join(payloads),
        epoch.encode(),
        oldest,
        latest,
        outcome.encode(),
        b"true" if has_more else b"false",
    )


def stamp_body(sequence_number: int, *, epoch: str, timestamp: str) -> bytes:
    """Return what a publisher is told about one message: the body of ``POST /websocket/messages``."""
    return b'{"sequence_number":%d,"epoch":"%b","timestamp":"%b"}' % (
        sequence_number,
        epoch.encode(),
        timestamp.encode(),
    )
