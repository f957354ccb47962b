"""The last hour of a node, for operators: gaps, resets, stalls, closes and refusals, in bounded memory."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from itertools import chain, count
from typing import NamedTuple

from unmissed.core.close_codes import KNOWN_CODES
from unmissed.core.window import Outcome
from unmissed.delivery.connection import Connection
from unmissed.security.redaction import redact

HISTORY_SECONDS = 3_600.0
MINUTES = 60
"""Minutes with events that are counted, each on its own."""

MAX_ALIKE = 100
"""Entries of one kind and close code that are kept, the newest ones: a flood of one kind evicts no other."""

MAX_TEXT = 200
"""Characters that are kept of a text that clients choose: of a reason, an address, or the id of a user."""


class HistoryKind(StrEnum):
    """What has happened."""

    GAP = "gap"
    """A client has lost messages that were evicted."""
    RESET = "reset"
    """A client came with a position of another epoch."""
    STALL = "stall"
    """A client took nothing, and was disconnected."""
    CLOSE = "close"
    """A connection has ended."""
    REFUSED = "refused"
    """A request or a handshake was refused."""


class HistoryEntry(NamedTuple):
    """One event. ``at`` is in monotonic seconds, and ``code`` a close code, also for what was answered over HTTP.

    Each end of a connection creates one. A frozen dataclass would take three times as long.
    """

    kind: HistoryKind
    at: float
    reason: str = ""
    code: int | None = None
    status: int | None = None
    """The HTTP status of a refusal."""
    request: str | None = None
    """Method and path of a refused request."""
    connection_id: str | None = None
    user_id: str | None = None
    client: str | None = None
    """The address of the client."""
    first: int | None = None
    """The first number that a client has lost, or after a reset its position."""
    last: int | None = None
    """The last number that it has lost."""
    times: int = 1
    """How often the same client was refused for the same reason."""


class History:
    """What has happened in the last hour. ``clock`` returns monotonic seconds.

    The newest entries of each kind and code are kept, and all events are counted by the minute. Clients choose close
    codes, so unknown ones count as one.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._numbers = count()
        self._alike: dict[tuple[str, int | None], OrderedDict[object, HistoryEntry]] = {}
        self._minutes: deque[tuple[int, Counter[tuple[str, int | None]]]] = deque(maxlen=MINUTES)

    @property
    def since(self) -> float:
        """From when on all events are counted, in monotonic seconds."""
        return max(self._started_at, self._clock() - HISTORY_SECONDS)

    def lost(self, user_id: str, first: int, last: int, *, connection: Connection | None = None) -> None:
        """Record that messages were evicted before a client received them."""
        self._add(HistoryKind.GAP, user_id, connection, first=first, last=last)

    def recovered(
        self,
        outcome: Outcome,
        user_id: str,
        *,
        since: int,
        lost: tuple[int, int] | None,
        connection: Connection | None = None,
    ) -> None:
        """Record what a client that came with a position has lost: the range of its gap, or a reset."""
        if outcome is Outcome.RESET:
            self._add(HistoryKind.RESET, user_id, connection, first=since)
        elif lost is not None:
            self.lost(user_id, *lost, connection=connection)

    def stalled(self, connection: Connection, reason: str) -> None:
        """Record that a connection is dropped because its client takes nothing."""
        self._add(HistoryKind.STALL, connection.identity.user_id, connection, reason=reason)

    def closed(self, connection: Connection, code: int, reason: str) -> None:
        """Record the end of a connection."""
        self._add(HistoryKind.CLOSE, connection.identity.user_id, connection, code=code, reason=reason)

    def refused(self, code: int, reason: str, *, status: int, request: str, client: str | None) -> None:
        """Record the refusal of a request or a handshake. Those that are alike are one entry, with their number."""
        now = self._clock()
        kept = self._kept(HistoryKind.REFUSED, code, now=now)
        reason, request, client = _short(redact(reason)), _short(request), client and _short(client)
        key = (client, reason, request)
        earlier = kept.pop(key, None)
        entry = HistoryEntry(
            HistoryKind.REFUSED,
            now,
            reason=reason,
            code=code,
            status=status,
            request=request,
            client=client,
            times=1 if earlier is None else earlier.times + 1,
        )
        self._keep(kept, key, entry)

    def entries(self, *, limit: int, kind: str | None = None) -> list[HistoryEntry]:
        """Return the newest entries of the last hour, the newest first, of one kind or of all."""
        oldest = self._clock() - HISTORY_SECONDS
        kept = (alike.values() for (name, _), alike in self._alike.items() if kind in (None, name))
        found = [entry for entry in chain.from_iterable(kept) if entry.at >= oldest]
        return sorted(found, key=lambda entry: entry.at, reverse=True)[:limit]

    def minutes(self) -> list[tuple[float, Mapping[tuple[str, int | None], int]]]:
        """Return how many events of each kind and code there were in each minute that had any, the oldest first.

        A minute is given by its start in monotonic seconds.
        """
        oldest = self._clock() - HISTORY_SECONDS
        return [(minute * 60.0, counts) for minute, counts in self._minutes if (minute + 1) * 60.0 > oldest]

    def _add(
        self,
        kind: HistoryKind,
        user_id: str,
        connection: Connection | None,
        *,
        code: int | None = None,
        reason: str = "",
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        now = self._clock()
        entry = HistoryEntry(
            kind,
            now,
            # First: what is left of a shortened token would not look like one.
            reason=reason and _short(redact(reason)),
            code=None if code is None else int(code),
            user_id=_short(user_id),
            connection_id=None if connection is None else connection.id,
            client=None if connection is None or connection.client is None else _short(connection.client),
            first=first,
            last=last,
        )
        self._keep(self._kept(kind, code, now=now), next(self._numbers), entry)

    def _kept(self, kind: HistoryKind, code: int | None, *, now: float) -> OrderedDict[object, HistoryEntry]:
        """Count an event, and return the entries that are like it."""
        alike = (kind, code if code in KNOWN_CODES else None)
        minute = int(now // 60)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        self._minutes[-1][1][alike] += 1
        kept = self._alike.get(alike)
        if kept is None:
            kept = self._alike[alike] = OrderedDict()
        return kept

    def _keep(self, kept: OrderedDict[object, HistoryEntry], key: object, entry: HistoryEntry) -> None:
        kept[key] = entry
        if len(kept) > MAX_ALIKE:
            kept.popitem(last=False)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"
