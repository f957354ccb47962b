"""What a client receives: messages, and reports of what is lost."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmissed.core.encoding import decode_json

_STAMPED_HEAD = re.compile(rb'\{"type":"(?:[^"\\]|\\.)*","sequence_number":([0-9]{1,16}),"timestamp":"')
"""The start of every message: the server writes the stamp right after the type."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, in order and exactly once. ``recovered`` is true when it was missed and came after a reconnect.

    ``data`` is None when it was published without data. ``sequence_number`` is None for an ephemeral message, which is
    delivered live or not at all. A message with a ``key`` is the value of this key from now on; it is a piece of the
    value with ``append``, and with ``deleted`` the end of the value.
    """

    type: str
    sequence_number: int | None
    timestamp: str
    data: Any
    extra: Mapping[str, Any] = field(default_factory=dict)
    recovered: bool = False
    key: str | None = None
    append: bool = False
    deleted: bool = False

    @classmethod
    def of(cls, frame: Mapping[str, Any], *, recovered_through: int) -> "ReceivedMessage":
        """Return the message in a frame. Up to ``recovered_through``, messages were missed."""
        extra = dict(frame)
        number = extra.pop("sequence_number", None)
        return cls(
            type=extra.pop("type"),
            sequence_number=number,
            timestamp=extra.pop("timestamp"),
            data=extra.pop("data", None),
            key=extra.pop("key", None),
            append=extra.pop("append", False),
            deleted=extra.pop("deleted", False),
            extra=extra,
            recovered=number is not None and number <= recovered_through,
        )

    @property
    def topics(self) -> Sequence[str]:
        """The topics that the message was published to, the first of which decides how long it is retained."""
        topics: Sequence[str] = self.extra.get("topics", ())
        return topics


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are lost for this client: reload the state that they change.

    Of ``first`` to ``last``, at least the one numbered ``last`` is lost. Those that are retained follow.
    """

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The position is not one of the server's log, which has lost messages or has a new epoch.

    What was missed is unknown: reload the state. All retained messages follow.
    """

    epoch: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that this client cannot read, such as JSON that is nested too deeply. Its message is lost.

    ``sequence_number`` is None if even the number cannot be read.
    """

    sequence_number: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """The values by key are loaded: at the start, after a gap or a reset, and after ``follow``.

    ``topics`` are those that were followed; None for the values of all topics.
    """

    topics: tuple[str, ...] | None = None


Event = ReceivedMessage | Gap | Reset | StateLoaded | Unreadable


def frame_of(text: bytes) -> dict[str, Any]:
    """Return the object that a frame contains. Raises ValueError."""
    match decode_json(text):
        case dict(frame) if isinstance(frame.get("type"), str):
            return frame
        case _:
            raise ValueError("it is not an object with a type")


def is_ephemeral(frame: Mapping[str, Any]) -> bool:
    """Return whether a frame is a message that is not stored: it has no number. Frames of the server have no time."""
    return "timestamp" in frame and "sequence_number" not in frame


def stamped_number(text: bytes) -> int | None:
    """Return the number of a message without decoding it, which may be impossible, or None for other frames."""
    head = _STAMPED_HEAD.match(text)
    return int(head[1]) if head else None
