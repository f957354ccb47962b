"""What a client receives: messages, and reports of what is lost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unmissed.core.encoding import decode_json

_STAMPED_HEAD = re.compile(rb'\{"type":"(?:[^"\\]|\\.)*","sequence_number":([0-9]{1,16}),"timestamp":"')
"""The start of every message: the server writes the stamp right after the type."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message, in order and exactly once. ``recovered`` is true when it was missed and came after a reconnect.

    ``data`` is None when it was published without data.
    """

    type: str
    sequence_number: int
    timestamp: str
    data: Any
    extra: Mapping[str, Any] = field(default_factory=dict)
    recovered: bool = False

    @classmethod
    def of(cls, frame: Mapping[str, Any], *, recovered_through: int) -> "ReceivedMessage":
        """Return the message in a frame. Up to ``recovered_through``, messages were missed."""
        extra = dict(frame)
        number = extra.pop("sequence_number")
        return cls(
            type=extra.pop("type"),
            sequence_number=number,
            timestamp=extra.pop("timestamp"),
            data=extra.pop("data", None),
            extra=extra,
            recovered=number <= recovered_through,
        )


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


Event = ReceivedMessage | Gap | Reset | Unreadable


def frame_of(text: bytes) -> dict[str, Any]:
    """Return the object that a frame contains. Raises ValueError."""
    match decode_json(text):
        case dict(frame) if isinstance(frame.get("type"), str):
            return frame
        case _:
            raise ValueError("it is not an object with a type")


def stamped_number(text: bytes) -> int | None:
    """Return the number of a message without decoding it, which may be impossible, or None for other frames."""
    head = _STAMPED_HEAD.match(text)
    return int(head[1]) if head else None
