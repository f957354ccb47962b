"""The promises of the server, the rules that they are checked by, and how they are broken."""

from dataclasses import dataclass
from enum import StrEnum

from unmissed.verify.events import Event


class Promise(StrEnum):
    """What is guaranteed. The value is shown to people."""

    NO_DUPLICATES = "no duplicates"
    ORDER = "order"
    NO_SILENT_LOSS = "no silent loss"
    NO_FALSE_GAP = "no false gap"
    SAME_BYTES = "same bytes"
    HONEST_RESETS = "honest numbers and resets"
    PRIVACY = "privacy"
    PUBLISH = "an acknowledgement is kept"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server is configured to retain, and whether a new epoch is legitimate."""

    max_messages: int
    max_age: float
    """Seconds."""
    epoch_may_change: bool
    margin: float = 2.0
    """Seconds by which the clocks and the order of observations may be wrong."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. ``client`` is None if it concerns no client in particular."""

    promise: Promise
    text: str
    client: str | None = None
    numbers: tuple[int, ...] = ()
    excerpt: tuple[Event, ...] = ()
    """The few events around it."""
