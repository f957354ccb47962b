"""Close codes: what each one means, what a client does after it, and which exception leads to it."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Self

from unmissed.core import errors
from unmissed.core.errors import UnmissedError


class Reaction(StrEnum):
    """What a client does after a close code. The advice completes a sentence."""

    advice: str

    def __new__(cls, name: str, advice: str) -> Self:
        """Return the member with this name and advice."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.advice = advice
        return member

    STOP = "stop", "do not reconnect"
    RENEW = "renew", "reconnect with a new token"
    SLOW = "slow", "reconnect later, with backoff"
    RESUME = "resume", "reconnect with jitter, and resume"


class CloseCode(IntEnum):
    """Why a WebSocket was closed: the codes of this protocol, and those of RFC 6455 section 7.4.1 that occur."""

    meaning: str
    reaction: Reaction

    def __new__(cls, code: int, meaning: str, reaction: Reaction = Reaction.RESUME) -> Self:
        """Return the member with this code, meaning and reaction."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.reaction = reaction
        return member

    BAD_MESSAGE = 4400, "The client sent something invalid", Reaction.STOP
    UNAUTHORIZED = (
        4401,
        "The token is missing, invalid or expired, or the user was logged out",
        Reaction.RENEW,
    )
    FORBIDDEN = 4403, "A topic or the origin is not allowed", Reaction.STOP
    AUTHENTICATION_TIMEOUT = 4408, "No authentication in time", Reaction.RENEW
    TOO_MANY = 4429, "Too many connections or messages", Reaction.SLOW
    NORMAL = 1000, "The application closed the connection"
    # Browsers send 1001 when a page is left, and a close frame may have no code. Metrics count both separately.
    GOING_AWAY = 1001, "One side is going away, such as a proxy or a page that is left"
    NO_STATUS = 1005, "The close frame had no code"
    LOST = 1006, "The connection was lost"
    INVALID_DATA = 1007, "A text was not UTF-8"
    TOO_LARGE = 1009, "A frame was too large", Reaction.STOP
    INTERNAL_ERROR = 1011, "The server failed"
    SERVICE_RESTART = 1012, "The server restarts, or its log has a new epoch"
    TRY_AGAIN_LATER = 1013, "The log or the identity provider is unavailable"


KNOWN_CODES = frozenset(CloseCode)
"""Clients choose the codes that they close with: all others are counted as one."""

_REACTIONS = {int(code): code.reaction for code in CloseCode}

CODES_OF_ERRORS: Mapping[type[UnmissedError], CloseCode] = {
    errors.InvalidToken: CloseCode.UNAUTHORIZED,
    errors.OriginRefused: CloseCode.FORBIDDEN,
    errors.TopicRefused: CloseCode.FORBIDDEN,
    errors.ScopeRequired: CloseCode.FORBIDDEN,
    errors.InvalidTopic: CloseCode.BAD_MESSAGE,
    errors.InvalidMessage: CloseCode.BAD_MESSAGE,
    errors.InvalidPosition: CloseCode.BAD_MESSAGE,
    errors.OutdatedState: CloseCode.BAD_MESSAGE,
    errors.InvalidFrame: CloseCode.BAD_MESSAGE,
    errors.CommandError: CloseCode.BAD_MESSAGE,
    errors.TooManyConnections: CloseCode.TOO_MANY,
    errors.TooManyRequests: CloseCode.TOO_MANY,
    errors.Draining: CloseCode.SERVICE_RESTART,
    errors.NotRunning: CloseCode.SERVICE_RESTART,
    errors.LogUnavailable: CloseCode.TRY_AGAIN_LATER,
    errors.ProviderUnavailable: CloseCode.TRY_AGAIN_LATER,
}
"""The code of the ``error`` frame or the close frame that reports an exception."""


def code_of(error: Exception) -> CloseCode:
    """Return the code for an exception; INTERNAL_ERROR for one that a client cannot cause."""
    return next((code for kind, code in CODES_OF_ERRORS.items() if isinstance(error, kind)), CloseCode.INTERNAL_ERROR)


def reaction_to(code: int) -> Reaction:
    """Return what a client does after a code, which may also be that of another server."""
    return _REACTIONS.get(code, Reaction.RESUME)


def close_reason(text: str) -> str:
    """Return the part of a text that fits into a close frame: 123 bytes of UTF-8 (RFC 6455 section 5.5)."""
    # A character that is cut at the end is left out, since a reason must be UTF-8 (section 5.5.1).
    return text.encode(errors="replace")[:123].decode(errors="ignore")
