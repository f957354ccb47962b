"""The open connections: found by id, user and topic, and limited in number."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

from unmissed.core.audience import topic_key, topic_of, user_key
from unmissed.core.errors import TooManyConnections, UnknownConnection
from unmissed.core.reader import TopicChange
from unmissed.core.rest import EVENTS_TRANSPORT
from unmissed.delivery.connection import Connection

UNANSWERED_SECONDS = 2.0
"""Seconds after an unanswered ping until a new connection of the same user may replace the silent one."""


TopicWatcher = Callable[[Connection, TopicChange], None]


class Index:
    """The connections by the keys of their users and topics, so that a message to a few costs the work of a few.

    Most keys have one connection, which takes no set.
    """

    def __init__(self) -> None:
        self._found: dict[str, Connection | set[Connection]] = {}

    def add(self, keys: Iterable[str], connection: Connection) -> None:
        """Add a connection under these keys."""
        for key in keys:
            found = self._found.setdefault(key, connection)
            if isinstance(found, set):
                found.add(connection)
            # For a new key, ``setdefault`` has just stored this connection.
            elif found is not connection:
                self._found[key] = {found, connection}

    def remove(self, keys: Iterable[str], connection: Connection) -> None:
        """Remove a connection from under these keys."""
        for key in keys:
            found = self._found.get(key)
            if isinstance(found, set):
                found.discard(connection)
            if found is connection or found == set():
                del self._found[key]

    def get(self, key: str) -> Collection[Connection]:
        """Return the connections that have a key."""
        found = self._found.get(key, ())
        return (found,) if isinstance(found, Connection) else found

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the keys of a snapshot, each with the number of connections that have it."""
        found = tuple(self._found.items())
        return ((key, len(each) if isinstance(each, set) else 1) for key, each in found)

    def any_of(self, keys: Iterable[str]) -> set[Connection]:
        """Return the connections that have at least one of these keys."""
        return {connection for key in keys for connection in self.get(key)}


class Registry:
    """The open connections by id, with a limit in total and a limit for each user; None means no limit."""

    def __init__(self, *, max_connections: int | None, max_per_user: int | None) -> None:
        self._max_connections = max_connections
        self._max_per_user = max_per_user
        self.by_id: dict[str, Connection] = {}
        self.watchers: list[TopicWatcher] = []
        """Are called with each change of the topics of an open connection, from its beginning to its end."""
        self._by_key = Index()

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a snapshot, because connections may open and close during the iteration."""
        return iter(tuple(self.by_id.values()))

    def __contains__(self, connection: Connection) -> bool:
        return connection.id in self.by_id

    def __getitem__(self, connection_id: str) -> Connection:
        try:
            return self.by_id[connection_id]
        except KeyError:
            raise UnknownConnection(connection_id) from None

    def check_limits(self, user_id: str, *, now: float) -> None:
        """Raise TooManyConnections when one more connection of this user would exceed a limit.

        For a user at the limit, the connection that has left a ping unanswered for the longest time is aborted, if any.
        Otherwise the oldest event stream is closed: behind a proxy, nothing shows whether its client is gone. Without
        one, all connections of the user are pinged, so that the next attempt can detect dead ones.
        """
        if self._max_connections is not None and len(self.by_id) >= self._max_connections:
            raise TooManyConnections("the server has reached its connection limit: reconnect later")
        mine = self._by_key.get(user_key(user_id))
        if self._max_per_user is not None and len(mine) >= self._max_per_user:
            # A copy: replacing a connection removes it from the index.
            self._replace_one(tuple(mine), now=now)

    def add(self, connection: Connection) -> None:
        """Add a connection."""
        self.by_id[connection.id] = connection
        self._by_key.add(_keys_of(connection), connection)

    def remove(self, connection: Connection) -> bool:
        """Remove a connection, and return whether it was not removed before."""
        if self.by_id.pop(connection.id, None) is None:
            return False
        self._by_key.remove(_keys_of(connection), connection)
        return True

    def index(self, connection: Connection, change: TopicChange) -> None:
        """Index a connection under its new topics. Does nothing if it was removed."""
        # After an abort, it may still get a frame before its socket ends. Nothing would remove it from the index again.
        if connection.id in self.by_id:
            self._by_key.remove(map(topic_key, change.removed), connection)
            self._by_key.add(map(topic_key, change.added), connection)
            self.report(connection, change)

    def report(self, connection: Connection, change: TopicChange) -> None:
        """Report a change of the topics that a connection follows to the watchers."""
        for watcher in self.watchers:
            watcher(connection, change)

    def of_user(self, user_id: str) -> tuple[Connection, ...]:
        """Return the connections of a user."""
        return tuple(self._by_key.get(user_key(user_id)))

    def users(self, topic: str | None = None) -> dict[str, int]:
        """Return the users that are connected, or only those that follow a topic, and how many connections each has."""
        connections = self.by_id.values() if topic is None else self._by_key.get(topic_key(topic))
        return dict(Counter(connection.identity.user_id for connection in connections))

    def topics(self) -> Iterator[tuple[str, int]]:
        """Yield the topics of a snapshot, each with the number of its connections."""
        return ((topic, number) for key, number in self._by_key.sizes() if (topic := topic_of(key)) is not None)

    def with_any_of(self, keys: Iterable[str]) -> Collection[Connection]:
        """Return the connections whose users or topics have one of these keys."""
        return self._by_key.any_of(keys)

    def _replace_one(self, connections: Collection[Connection], *, now: float) -> None:
        silent = [each for each in connections if each.silent_for(now) >= UNANSWERED_SECONDS]
        if silent:
            replaced = max(silent, key=lambda each: each.silent_for(now))
            replaced.abort("replaced by another connection of its user")
            return
        streams = [each for each in connections if each.transport == EVENTS_TRANSPORT]
        if streams:
            min(streams, key=lambda each: each.opened_at).give_way()
            return
        for connection in connections:
            connection.liveness.ping(now)
        raise TooManyConnections("this user has too many connections: close some")


def _keys_of(connection: Connection) -> Iterator[str]:
    yield user_key(connection.identity.user_id)
    yield from map(topic_key, connection.topics)
