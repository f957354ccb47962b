"""The promises of the server, the rules that they are checked by, and how they are broken."""

from dataclasses import dataclass
from enum import StrEnum

from unmissed.core.retention import Retention
from unmissed.lab.verify.facts import Fact


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
    RULES = "rules of retention"
    STATE = "state of values"
    EPHEMERAL = "ephemeral messages"
    TRANSACTIONS = "transactions"


CHECKED_ON = {
    Promise.NO_DUPLICATES: ("Delivered", "deliveries"),
    Promise.ORDER: ("Delivered", "deliveries"),
    Promise.NO_SILENT_LOSS: ("Ended", "clients"),
    Promise.NO_FALSE_GAP: ("gaps", "gaps"),
    Promise.SAME_BYTES: ("Delivered", "deliveries"),
    Promise.HONEST_RESETS: ("Joined", "connects and pages"),
    Promise.PRIVACY: ("Delivered", "deliveries"),
    Promise.PUBLISH: ("Acknowledged", "acknowledgements"),
    Promise.RULES: ("gaps", "gaps"),
    Promise.STATE: ("StateComplete", "states"),
    Promise.EPHEMERAL: ("DeliveredLive", "live deliveries"),
    Promise.TRANSACTIONS: ("transactions", "transactions"),
}
"""What each promise is checked on: the name of a count of the recorder, and how it is shown."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server is configured to retain, and whether a new epoch is legitimate."""

    retention: Retention
    max_messages: int
    """How many messages without a rule are retained: fewer than in ``retention`` if its bytes do not suffice."""
    epoch_may_change: bool
    restarts: bool = False
    """Whether nodes are started again."""
    has_past: bool = False
    """Whether the server may have had values before the run, to which the pieces of the run are added."""
    several_nodes: bool = False
    """Whether a client may move to a node that an ephemeral message has not reached yet."""
    margin: float = 2.0
    """Seconds by which the clocks and the order of observations may be wrong."""
    live_seconds: float = 10.0
    """How late an ephemeral message may be: a node may be suspended, and so may what brings it to other nodes."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. ``client`` is None if it concerns no client in particular."""

    promise: Promise
    text: str
    client: str | None = None
    numbers: tuple[int, ...] = ()
    excerpt: tuple[Fact, ...] = ()
    """The few facts around it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run found. ``broken`` are the losses of the broken client, which must be found."""

    violations: list[Violation]
    broken: list[Violation]
