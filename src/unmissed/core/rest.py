"""What HTTP requests and responses contain: a path, a subprotocol, and the bodies of the message routes."""

from collections.abc import Iterable
from dataclasses import dataclass

from unmissed.core.encoding import encode_json
from unmissed.core.fields import short_seconds

BEARER_SUBPROTOCOL = "unmissed.bearer"
"""Offered by a browser together with its token: ``new WebSocket(url, ["unmissed.bearer", token])``."""

EVENTS_TRANSPORT = "events"
"""How operators see the connections of event streams."""

EVENTS_PATH = "/websocket/events"
"""Where servers offer event streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryAnswer:
    """The body of ``GET /websocket/messages``."""

    payloads: Iterable[bytes]
    """The messages, which are included byte for byte."""
    epoch: str
    first: int
    oldest: int
    latest: int
    outcome: str
    has_more: bool
    heartbeat_seconds: float
    max_age: float
    topics: Iterable[str] = ()

    def encode(self) -> bytes:
        """Return the body as JSON."""
        times = {"heartbeat_seconds": short_seconds(self.heartbeat_seconds), "max_age": short_seconds(self.max_age)}
        rest = {"topics": sorted(self.topics), **{name: value for name, value in times.items() if value is not None}}
        return b'{"messages":[%b],"epoch":"%b","first":%d,"oldest":%d,"latest":%d,"outcome":"%b","has_more":%b,%b' % (
            b",".join(self.payloads),
            self.epoch.encode(),
            self.first,
            self.oldest,
            self.latest,
            self.outcome.encode(),
            b"true" if self.has_more else b"false",
            encode_json(rest)[1:],
        )


def stamp_body(sequence_number: int, *, epoch: str, timestamp: str) -> bytes:
    """Return the answer to a publisher about one message: the body of ``POST /websocket/messages``."""
    return b'{"sequence_number":%d,"epoch":"%b","timestamp":"%b"}' % (
        sequence_number,
        epoch.encode(),
        timestamp.encode(),
    )
