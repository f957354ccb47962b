"""The connections to all nodes, for operators: filtered, sorted, and a page at a time."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from heapq import nlargest, nsmallest
from typing import Any, Literal

from unmissed.core.audience import topic_key
from unmissed.delivery.connection import Connection
from unmissed.delivery.registry import Registry
from unmissed.tasks import Pace

MAX_LISTED_TOPICS = 20
"""Topics of a connection that are listed: a page of 1,000 connections must fit in one note of a node."""

_BATCH = 2_000
_CLOCK_STEP_SECONDS = 1.0

Sort = Literal["id", "user", "lag", "connected_at"]
SortKey = tuple[Any, str]
"""Where a connection is in a sorted list: its value and, for equal values, its id."""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A connection to this node or another one. ``connected_at`` is in Unix seconds."""

    connection_id: str
    user_id: str
    connected_at: float
    position: int
    lag: int
    topics: list[str]
    """The first of them in alphabetical order."""
    total_topics: int
    transport: str
    client: str | None

    def place(self, sort: Sort) -> SortKey:
        """Return where the connection is in a list that is sorted by this."""
        match sort:
            case "id":
                return "", self.connection_id
            case "user":
                return self.user_id, self.connection_id
            case "lag":
                return self.lag, self.connection_id
            case "connected_at":
                return self.connected_at, self.connection_id


@dataclass(frozen=True, slots=True)
class ConnectionQuery:
    """Which connections are listed: the first ``limit`` behind the place ``after`` that match all filters.

    ``search`` is a part of the id of the user or the connection, of the client's address, or of a topic. Upper and
    lower case make no difference.
    """

    limit: int
    sort: Sort = "id"
    descending: bool = False
    after: SortKey | None = None
    user_id: str | None = None
    topic: str | None = None
    search: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "ConnectionQuery":
        """Return the query of another node, which has come as JSON."""
        query = cls(**content)
        return query if query.after is None else replace(query, after=tuple(query.after))

    def found_in(self, texts: Iterable[str]) -> bool:
        """Return whether one of these texts contains the searched one, which has no upper case."""
        return any(self.search in text.casefold() for text in texts)

    def matches(self, connection: Connection) -> bool:
        """Return whether a connection matches the search. The other filters are looked up in an index."""
        if not self.search:
            return True
        texts = (connection.identity.user_id, connection.id, connection.client or "")
        return self.found_in(texts) or self.found_in(connection.topics)

    def is_behind(self, place: SortKey) -> bool:
        """Return whether a place comes after the last one of the page before."""
        return self.after is None or (place < self.after if self.descending else place > self.after)

    def first(self, found: Iterable[Any], key: Callable[[Any], Any]) -> list[Any]:
        """Return the first ``limit`` of what was found, in the order of the list."""
        return (nlargest if self.descending else nsmallest)(self.limit, found, key=key)


@dataclass(frozen=True, slots=True)
class ConnectionPage:
    """Some connections, how many there are, and how many of them match the filters, on whatever page."""

    connections: list[ConnectionInfo]
    total: int
    matching: int


class UnixTime:
    """Converts monotonic seconds to Unix seconds.

    The difference of the clocks is measured again only after the wall clock was set by more than a second: otherwise
    the same connection would have another start on each page of a sorted list.
    """

    def __init__(self, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._difference = wall_clock() - clock()

    def __call__(self, monotonic: float) -> float:
        """Return the Unix time of a monotonic time."""
        difference = self._wall_clock() - self._clock()
        if abs(difference - self._difference) > _CLOCK_STEP_SECONDS:
            self._difference = difference
        return monotonic + self._difference


class Listing:
    """Lists the connections to all nodes. ``connections`` are those of this one.

    ``ask`` sends a kind of question and its content to the other nodes, and returns their answers by node.
    ``unix_time`` converts monotonic seconds to Unix seconds.
    """

    def __init__(
        self,
        connections: Registry,
        *,
        unix_time: Callable[[float], float],
        ask: Callable[[str, Any], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._connections = connections
        self._unix_time = unix_time
        self._ask = ask

    @property
    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The function that answers the question of another node, as JSON."""

        async def connections(content: Any) -> Any:
            return asdict(await self.page_here(ConnectionQuery.of(content)))

        return {"connections": connections}

    async def page(self, query: ConnectionQuery) -> ConnectionPage:
        """Return a page of the connections to all nodes, except nodes that do not answer.

        Each connection is on exactly one page, also if others begin and end in between: its place does not change,
        except by lag. Raises LogUnavailable if the nodes cannot reach each other.
        """
        page = await self.page_here(query)
        found, total, matching = page.connections, page.total, page.matching
        for answer in (await self._ask("connections", asdict(query))).values():
            found += [ConnectionInfo(**info) for info in answer["connections"]]
            total += answer["total"]
            matching += answer["matching"]
        return ConnectionPage(query.first(found, lambda info: info.place(query.sort)), total, matching)

    async def page_here(self, query: ConnectionQuery) -> ConnectionPage:
        """Return a page of the connections to this node. The work is done in slices of 5 ms."""
        pace, matching = Pace(), 0
        first, batch = list[tuple[SortKey, Connection]](), list[tuple[SortKey, Connection]]()
        place_of = self._place_of(query.sort)
        for connection in self._candidates(query):
            await pace.keep()
            if connection not in self._connections or not query.matches(connection):
                continue
            matching += 1
            if query.is_behind(place := place_of(connection)):
                batch.append((place, connection))
            if len(batch) == _BATCH:
                first, batch = query.first([*first, *batch], lambda found: found[0]), []
        first = query.first([*first, *batch], lambda found: found[0])
        return ConnectionPage([self._info(each) for _, each in first], len(self._connections.by_id), matching)

    def _candidates(self, query: ConnectionQuery) -> Iterable[Connection]:
        """Return the connections that the filters by user and topic leave: a copy, since they begin and end."""
        if query.user_id is not None:
            found = self._connections.of_user(query.user_id)
            return found if query.topic is None else [each for each in found if query.topic in each.topics]
        return self._connections if query.topic is None else self._connections.with_any_of([topic_key(query.topic)])

    def _place_of(self, sort: Sort) -> Callable[[Connection], SortKey]:
        # As ``ConnectionInfo.place``, without an object for each of ten thousand connections.
        match sort:
            case "id":
                return lambda connection: ("", connection.id)
            case "user":
                return lambda connection: (connection.identity.user_id, connection.id)
            case "lag":
                return lambda connection: (connection.lag, connection.id)
            case "connected_at":
                unix_time = self._unix_time
                return lambda connection: (unix_time(connection.opened_at), connection.id)

    def _info(self, connection: Connection) -> ConnectionInfo:
        return ConnectionInfo(
            connection_id=connection.id,
            user_id=connection.identity.user_id,
            connected_at=self._unix_time(connection.opened_at),
            position=connection.position,
            lag=connection.lag,
            topics=nsmallest(MAX_LISTED_TOPICS, connection.topics),
            total_topics=len(connection.topics),
            transport=connection.transport,
            client=connection.client,
        )
