"""What HTTP requests and responses contain: a path, a subprotocol, and the bodies of answers and refusals."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import responses

from unmissed.core.encoding import encode_json
from unmissed.core.server_frames import short_seconds

BEARER_SUBPROTOCOL = "unmissed.bearer"
"""Offered by a browser together with its token: ``new WebSocket(url, ["unmissed.bearer", token])``."""

EVENTS_TRANSPORT = "events"
"""How operators see the connections of event streams."""

EVENTS_PATH = "/websocket/events"
"""Where servers offer event streams."""


PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEM_PREFIX = "urn:unmissed:problem:"
"""How the ``type`` of each refusal begins (RFC 9457), so that a client tells it from that of a proxy or a gateway."""

# Those of RFC 9110, which later versions of Python use.
_PHRASES = {**responses, 413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
_CLOSING = b"""\
HTTP/1.1 %d %b\r
Connection: close\r
Cache-Control: no-store\r
Content-Type: %b\r
Content-Length: %d\r
\r
%b"""


def problem(status: int, detail: str) -> dict[str, str | int]:
    """Return the fields of a refusal. There is one ``type`` for each status, and its ``title`` says the same."""
    # An application may use any status in its own dependencies.
    title = _PHRASES.get(status, f"Status {status}")
    name = re.sub("[^a-z0-9]+", "-", title.lower())
    return {"type": PROBLEM_PREFIX + name, "title": title, "status": int(status), "detail": detail}


def closing_answer(status: int, detail: str) -> bytes:
    """Return a whole response that refuses a request before any application sees it, and closes the connection."""
    body = encode_json(problem(status, detail))
    return _CLOSING % (status, _PHRASES[status].encode(), PROBLEM_MEDIA_TYPE.encode(), len(body), body)


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
    sequence_number: int
    lost: tuple[int, int] | None
    """The range of a gap, or of what a reset declares lost above its position."""
    heartbeat_seconds: float
    max_age: float
    rate: float
    burst: int
    expires_in: float | None = None
    topics: Iterable[str] = ()

    def encode(self) -> bytes:
        """Return the body as JSON."""
        first_lost, last_lost = self.lost or (None, None)
        facts = {
            "from": first_lost,
            "to": last_lost,
            "heartbeat_seconds": short_seconds(self.heartbeat_seconds),
            "max_age": short_seconds(self.max_age),
            "rate": short_seconds(self.rate),
            "burst": self.burst,
            "expires_in": None if self.expires_in is None else short_seconds(self.expires_in),
        }
        rest = {"topics": sorted(self.topics), **{name: value for name, value in facts.items() if value is not None}}
        return (
            b'{"messages":[%b],"epoch":"%b","first":%d,"oldest":%d,"latest":%d,"outcome":"%b","has_more":%b,"sequence_number":%d,%b'
            % (
                b",".join(self.payloads),
                self.epoch.encode(),
                self.first,
                self.oldest,
                self.latest,
                self.outcome.encode(),
                b"true" if self.has_more else b"false",
                self.sequence_number,
                encode_json(rest)[1:],
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateAnswer:
    """The body of ``GET /websocket/state``."""

    payloads: Iterable[bytes]
    """The values, which are included byte for byte."""
    epoch: str
    first: int
    latest: int
    sequence_number: int
    has_more: bool
    topics: Iterable[str] = ()

    def encode(self) -> bytes:
        """Return the body as JSON."""
        return b'{"values":[%b],"epoch":"%b","first":%d,"latest":%d,"sequence_number":%d,"has_more":%b,"topics":%b}' % (
            b",".join(self.payloads),
            self.epoch.encode(),
            self.first,
            self.latest,
            self.sequence_number,
            b"true" if self.has_more else b"false",
            encode_json(sorted(self.topics)),
        )


def live_body(timestamp: str) -> bytes:
    """Return the answer to a publisher about one ephemeral message."""
    return b'{"timestamp":"%b"}' % timestamp.encode()


def stamp_body(sequence_number: int, *, epoch: str, timestamp: str) -> bytes:
    """Return the answer to a publisher about one message: the body of ``POST /websocket/messages``."""
    return b'{"sequence_number":%d,"epoch":"%b","timestamp":"%b"}' % (
        sequence_number,
        epoch.encode(),
        timestamp.encode(),
    )
