"""The wire format apart from messages: server frames, close codes, the bodies of responses."""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from math import isfinite

from unmissed.core import errors
from unmissed.core.encoding import encode_json
from unmissed.core.errors import InvalidPosition, UnmissedError

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

_CANONICAL_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


class CloseCode(IntEnum):
    """Why a WebSocket was closed. The protocol documentation describes how clients handle each code."""

    NORMAL = 1000
    GOING_AWAY = 1001
    NO_STATUS = 1005
    LOST = 1006
    INVALID_DATA = 1007
    TOO_LARGE = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    AUTHENTICATION_TIMEOUT = 4408
    TOO_MANY = 4429


CLOSE_CODES: Mapping[type[UnmissedError], CloseCode] = {
    errors.InvalidToken: CloseCode.UNAUTHORIZED,
    errors.OriginRefused: CloseCode.FORBIDDEN,
    errors.TopicRefused: CloseCode.FORBIDDEN,
    errors.ScopeRequired: CloseCode.FORBIDDEN,
    errors.InvalidTopic: CloseCode.BAD_MESSAGE,
    errors.InvalidMessage: CloseCode.BAD_MESSAGE,
    errors.InvalidPosition: CloseCode.BAD_MESSAGE,
    errors.InvalidFrame: CloseCode.BAD_MESSAGE,
    errors.CommandError: CloseCode.BAD_MESSAGE,
    errors.TooManyConnections: CloseCode.TOO_MANY,
    errors.TooManyRequests: CloseCode.TOO_MANY,
    errors.Draining: CloseCode.SERVICE_RESTART,
    errors.NotRunning: CloseCode.SERVICE_RESTART,
    errors.LogUnavailable: CloseCode.TRY_AGAIN_LATER,
}
"""The code in the ``error`` frame or the close frame that tells a client about an exception."""

INTERNAL_ERROR = "internal error: the reason is in the server's log output"


def code_of(error: Exception) -> CloseCode:
    """Return the code for an exception; INTERNAL_ERROR for one that a client cannot cause."""
    return next((code for kind, code in CLOSE_CODES.items() if isinstance(error, kind)), CloseCode.INTERNAL_ERROR)


def close_reason(text: str) -> str:
    """Return the part of a text that fits into a close frame: 123 bytes of UTF-8 (RFC 6455 section 5.5)."""
    return text.encode(errors="replace")[:123].decode(errors="ignore")


def parse_sequence_number(text: str) -> int:
    """Return a sequence number written as canonical decimal digits. Raises InvalidPosition for anything else."""
    if not _CANONICAL_INTEGER.fullmatch(text) or int(text) > MAX_SEQUENCE_NUMBER:
        raise InvalidPosition
    return int(text)


def connected(
    *,
    connection_id: str,
    epoch: str,
    first: int,
    oldest: int,
    latest: int,
    outcome: str | None,
    start: int,
    heartbeat_seconds: float,
    max_age: float,
    topics: Iterable[str] = (),
    expires_at: float | None = None,
) -> bytes:
    """Return the first frame of a connection. Everything visible after ``start`` follows.

    ``first`` is the number with which the epoch begins: a client that starts from 0 counts what it lost from there.
    """
    frame: dict[str, object] = {
        "type": "connected",
        "connection_id": connection_id,
        "epoch": epoch,
        "first": first,
        "oldest": oldest,
        "latest": latest,
        "sequence_number": start,
        "heartbeat_seconds": _short(heartbeat_seconds),
        **_finite("max_age", max_age),
    }
    if outcome is not None:
        frame["outcome"] = outcome
    if followed := sorted(topics):
        frame["topics"] = followed
    return encode_json({**frame, **_finite("expires_at", expires_at)})


def authenticated(*, expires_at: float | None, topics: Iterable[str], position: int) -> bytes:
    """Return the answer to a token that was renewed. The topics are those that are followed after the position."""
    frame = {"type": "authenticated", "topics": sorted(topics), "sequence_number": position}
    return encode_json({**frame, **_finite("expires_at", expires_at)})


def _finite(name: str, seconds: float | None) -> dict[str, float]:
    """Return the field for a time, if there is one that ends."""
    if seconds is None or not isfinite(seconds):
        return {}
    return {name: _short(seconds)}


def _short(seconds: float) -> float:
    """Return whole seconds as an integer, as in tokens."""
    return int(seconds) if int(seconds) == seconds else seconds


def following(
    topics: Iterable[str], *, position: int, outcome: str | None = None, request_id: str | None = None
) -> bytes:
    """Return the answer to ``follow`` and ``unfollow``: the topics that are followed after the position.

    ``outcome`` tells how complete the past was that ``follow`` requested.
    """
    frame: dict[str, object] = {"type": "following", "topics": sorted(topics), "sequence_number": position}
    if outcome is not None:
        frame["outcome"] = outcome
    if request_id is not None:
        frame["id"] = request_id
    return encode_json(frame)


def heartbeat(*, position: int) -> bytes:
    """Return the frame that tells a client its position once it is up to date."""
    return b'{"type":"heartbeat","sequence_number":%d}' % position


def gap(*, first: int, last: int) -> bytes:
    """Return the frame that tells a client which messages it cannot receive any more."""
    return b'{"type":"gap","from":%d,"to":%d,"sequence_number":%d}' % (first, last, last)


def reconnect(*, after_ms: int) -> bytes:
    """Return the frame that asks a client to reconnect after a delay."""
    return b'{"type":"reconnect","after_ms":%d}' % after_ms


def error(*, code: int, detail: str, request_id: str | None = None) -> bytes:
    """Return the frame that tells a client why its frame was refused."""
    answered = {} if request_id is None else {"id": request_id}
    return encode_json({"type": "error", **answered, "code": code, "detail": detail})


def internal_error(request_id: str | None = None) -> bytes:
    """Return the frame that tells a client that the server failed, without the reason."""
    return error(code=CloseCode.INTERNAL_ERROR, detail=INTERNAL_ERROR, request_id=request_id)


def published(request_id: str, *, sequence_number: int) -> bytes:
    """Return the answer to ``publish``: the number of the message."""
    return encode_json({"type": "published", "id": request_id, "sequence_number": sequence_number})


def result(request_id: str, *, data: object) -> bytes:
    """Return the answer to ``command``. Raises ValueError if the data cannot be sent as JSON."""
    return encode_json({"type": "result", "id": request_id, "data": data})


PONG = b'{"type":"pong"}'


def recovery_body(
    payloads: Iterable[bytes],
    *,
    epoch: str,
    first: int,
    oldest: int,
    latest: int,
    outcome: str,
    has_more: bool,
    heartbeat_seconds: float,
    max_age: float,
    topics: Iterable[str] = (),
) -> bytes:
    """Return the body of ``GET /websocket/messages``; the payloads are included byte for byte."""
    rest = {"topics": sorted(topics), "heartbeat_seconds": _short(heartbeat_seconds), **_finite("max_age", max_age)}
    return b'{"messages":[%b],"epoch":"%b","first":%d,"oldest":%d,"latest":%d,"outcome":"%b","has_more":%b,%b' % (
        b",".join(payloads),
        epoch.encode(),
        first,
        oldest,
        latest,
        outcome.encode(),
        b"true" if has_more else b"false",
        encode_json(rest)[1:],
    )


def stamp_body(sequence_number: int, *, epoch: str, timestamp: str) -> bytes:
    """Return what a publisher is told about one message: the body of ``POST /websocket/messages``."""
    return b'{"sequence_number":%d,"epoch":"%b","timestamp":"%b"}' % (
        sequence_number,
        epoch.encode(),
        timestamp.encode(),
    )
