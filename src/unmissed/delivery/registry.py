"""The open connections, counted in total and for each user."""

from collections import Counter
from collections.abc import Iterator

from unmissed.core.errors import TooManyConnections, UnknownConnection
from unmissed.delivery.connection import Connection


class Registry:
    """The open connections by id, with a limit in total and a limit for each user; None means no limit."""

    def __init__(self, *, max_connections: int | None, max_per_user: int | None) -> None:
        self._max_connections = max_connections
        self._max_per_user = max_per_user
        self._by_id: dict[str, Connection] = {}
        self._per_user: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a snapshot: connections may open and close meanwhile."""
        return iter(tuple(self._by_id.values()))

    def __getitem__(self, connection_id: str) -> Connection:
        try:
            return self._by_id[connection_id]
        except KeyError:
            raise UnknownConnection(connection_id) from None

    def check_limits(self, user_id: str) -> None:
        """Raise TooManyConnections when one more connection of this user would exceed a limit."""
        if self._max_connections is not None and len(self._by_id) >= self._max_connections:
            raise TooManyConnections("the server has reached its limit of connections: come back later")
        if self._max_per_user is not None and self._per_user[user_id] >= self._max_per_user:
            raise TooManyConnections("this user has too many connections: close some")

    def add(self, connection: Connection) -> None:
        """Add a connection."""
        self._by_id[connection.id] = connection
        self._per_user[connection.identity.user_id] += 1

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it was not removed before."""
        if self._by_id.pop(connection.id, None) is None:
            return
        user_id = connection.identity.user_id
        self._per_user[user_id] -= 1
        if not self._per_user[user_id]:
            del self._per_user[user_id]
