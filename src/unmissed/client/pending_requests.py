"""What a client has asked for and the server has not answered: sent in order, within limits, and repeated by its id."""

import asyncio
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unmissed.core.client_frames import MAX_CLIENT_FRAME_BYTES
from unmissed.core.close_codes import CloseCode
from unmissed.core.encoding import encode_json
from unmissed.core.errors import InvalidMessage, RequestRefused, RequestUnanswered, TooManyRequests

MAX_PENDING = 1_000

_MOST_UNANSWERED = 16
_UNANSWERED_BYTES = 65_536
_WAITING_BYTES = 512
"""A server reads nothing more, not even a ping, while it holds 64 kB of waiting frames, counted like this."""

_MOST_RATE, _MOST_BURST = 50.0, 50
_BYTES_A_SECOND = 524_288
"""A server closes a connection that sends more than 100 frames or 1 MiB between two checks, a second apart."""

_SHARE_OF_BURST = 0.75

_USUAL_RATE, _USUAL_BURST = 10.0, 20
"""What a server allows that does not say what it allows."""

_RETRIED = (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.TOO_MANY)
_RETRY_SECONDS = 3.0
_LEAST_SHARE, _SHARE_OF_ANSWER = 1 / 16, 1 / 100


@dataclass(eq=False, slots=True)
class PendingRequest:
    """A request, and the future of its answer. It keeps its id when it is sent again, so it is executed once."""

    id: str
    text: bytes
    answer: asyncio.Future[Any]
    first_sent: float | None = None
    """When it was sent for the first time, in monotonic seconds."""
    size: int = field(init=False)
    """The memory that it takes in the server while it waits there."""

    def __post_init__(self) -> None:
        self.size = sys.getsizeof(self.text.decode()) + _WAITING_BYTES


@dataclass(slots=True)
class _Bucket:
    """Allows a second's cost in each second, and ``capacity`` seconds of it at once."""

    capacity: float
    full_at: float = 0.0

    def delay(self, cost: float, *, now: float) -> float:
        # What costs more than the capacity is allowed when the bucket is full. In this order, so that it is exactly 0
        # then: sums of floats would leave a rest, which never passes.
        return max(0.0, max(0.0, self.full_at - now) - max(0.0, self.capacity - cost))

    def take(self, cost: float, *, now: float) -> None:
        self.full_at = max(self.full_at, now) + cost


class RequestBudget:
    """How much one client may send: its share of what the server allows its user.

    Other clients of the user have the same budget, and nobody knows them: whenever the server refuses a request because
    of it, this client's share is halved, and it grows again with each answer.
    """

    def __init__(self) -> None:
        self._share = 1.0
        self._requests, self._bytes = _Bucket(0.0), _Bucket(1.0)
        self.allow(rate=_USUAL_RATE, burst=_USUAL_BURST)

    def allow(self, *, rate: float, burst: int) -> None:
        """Use the limits of a server: requests a second, and at once."""
        self._rate = min(rate, _MOST_RATE)
        # Not all of the burst: requests of which the first are delayed arrive faster than they were sent.
        self._requests.capacity = _SHARE_OF_BURST * min(burst, _MOST_BURST) / self._rate

    @property
    def _cost(self) -> float:
        return 1 / (self._rate * self._share)

    def delay(self, size: int, *, now: float) -> float:
        """Return the seconds until a request of so many bytes may be sent."""
        by_bytes = self._bytes.delay(size / _BYTES_A_SECOND, now=now)
        return max(by_bytes, self._requests.delay(self._cost, now=now))

    def take(self, size: int, *, now: float) -> None:
        """Count a request."""
        self._requests.take(self._cost, now=now)
        self._bytes.take(size / _BYTES_A_SECOND, now=now)

    def exceeded(self, *, now: float) -> None:
        """Send half as much from now on, and nothing at once."""
        self._share = max(_LEAST_SHARE, self._share / 2)
        self._requests.full_at = now + self._requests.capacity

    def answered(self) -> None:
        """Send a little more again."""
        self._share = min(1.0, self._share + _SHARE_OF_ANSWER)


class PendingRequests:
    """The requests of one client, at most ``limit``. Times are monotonic seconds."""

    def __init__(self, *, limit: int = MAX_PENDING) -> None:
        self.budget = RequestBudget()
        self._limit = limit
        self._all: dict[PendingRequest, None] = {}
        self._unanswered: dict[str, PendingRequest] = {}
        """Those that were sent on the present connection, by id."""
        self._paused_until = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, frame: Mapping[str, Any]) -> PendingRequest:
        """Accept a frame with an id, to be sent later. Raises InvalidMessage, or TooManyRequests beyond the limit."""
        if len(self._all) >= self._limit:
            raise TooManyRequests(f"{self._limit} requests of this stream are not answered yet", retry_after=1.0)
        try:
            text = encode_json(frame)
        except ValueError as error:
            raise InvalidMessage(f"the request cannot be sent as JSON: {error}") from None
        if len(text) > MAX_CLIENT_FRAME_BYTES:
            raise InvalidMessage(f"a request has at most {MAX_CLIENT_FRAME_BYTES} bytes, and this one {len(text)}")
        request = PendingRequest(frame["id"], text, asyncio.get_running_loop().create_future())
        self._all[request] = None
        return request

    def forget(self, request: PendingRequest) -> None:
        """Remove a request whose caller no longer waits for it. It may be executed all the same."""
        self._all.pop(request, None)
        if self._unanswered.get(request.id) is request:
            del self._unanswered[request.id]

    def connected(self, frame: Mapping[str, Any], *, now: float) -> None:
        """Begin a connection: everything is to be sent on it, except what the server may have forgotten."""
        self.lost()
        self.budget.allow(rate=frame.get("rate", _USUAL_RATE), burst=frame.get("burst", _USUAL_BURST))
        known_seconds = frame.get("max_age", math.inf)
        for request in [*self._all]:
            if request.first_sent is not None and now - request.first_sent > known_seconds:
                self._fail(
                    request,
                    RequestUnanswered(
                        f"the connection was lost for more than {known_seconds:g} s, and the server no longer knows "
                        "the request: it may have been executed"
                    ),
                )

    def lost(self) -> None:
        """End a connection: what was not answered on it is to be sent again."""
        self._unanswered.clear()

    def due(self, now: float) -> Iterator[PendingRequest]:
        """Yield the requests that may be sent now, in order. Each counts as sent when it is yielded."""
        while (request := self._next()) is not None and not self._delay(request, now=now):
            self._unanswered[request.id] = request
            self.budget.take(len(request.text), now=now)
            request.first_sent = now if request.first_sent is None else request.first_sent
            yield request

    def seconds_to_next(self, now: float) -> float | None:
        """Return the seconds until the next request may be sent, or None if none can be before an answer comes."""
        request = self._next()
        return None if request is None else self._delay(request, now=now)

    @property
    def awaits_answer(self) -> bool:
        """Whether a request is waiting for its answer on the present connection."""
        return bool(self._unanswered)

    def _next(self) -> PendingRequest | None:
        unanswered = self._unanswered
        if len(unanswered) >= _MOST_UNANSWERED:
            return None
        # Two with one id: the second is sent after the answer to the first, which it then gets, too.
        request = next((each for each in self._all if each.id not in unanswered), None)
        size = sum(each.size for each in unanswered.values())
        return None if request is None or (size and size + request.size > _UNANSWERED_BYTES) else request

    def _delay(self, request: PendingRequest, *, now: float) -> float:
        return max(self._paused_until - now, self.budget.delay(len(request.text), now=now))

    def settle(self, request_id: str, result: Any) -> None:
        """Give a request its result."""
        request = self._unanswered.pop(request_id, None)
        if request is not None:
            self._all.pop(request, None)
            self.budget.answered()
            if not request.answer.done():
                request.answer.set_result(result)

    def refuse(self, request_id: str, code: int, reason: str, *, now: float, jitter: float) -> None:
        """Raise RequestRefused in the caller, or repeat the request later if the reason is a passing one.

        ``jitter`` is drawn from 0 to 1 at random.
        """
        request = self._unanswered.pop(request_id, None)
        if request is None:
            return
        if code == CloseCode.TOO_MANY:
            self.budget.exceeded(now=now)
        if code in _RETRIED:
            # All requests wait, so that they keep their order.
            self._paused_until = now + _RETRY_SECONDS + jitter
        else:
            self._fail(request, RequestRefused(code, reason))

    def reject(self, error: Exception) -> None:
        """Raise an exception in all callers: the stream has ended."""
        for request in [*self._all]:
            self._fail(request, error)
        self._unanswered.clear()

    def _fail(self, request: PendingRequest, error: Exception) -> None:
        self._all.pop(request, None)
        if not request.answer.done():
            request.answer.set_exception(error)
