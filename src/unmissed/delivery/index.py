"""Connections by the keys of their users and topics, so that a message to a few people costs the work of a few."""

from collections.abc import Collection, Iterable

from unmissed.delivery.connection import Connection


class Index:
    """The connections that have a key. Most keys have one connection, which takes no set."""

    def __init__(self) -> None:
        self._found: dict[str, Connection | set[Connection]] = {}

    def add(self, keys: Iterable[str], connection: Connection) -> None:
        """Add a connection under these keys."""
        for key in keys:
            found = self._found.setdefault(key, connection)
            if isinstance(found, set):
                found.add(connection)
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

    def any_of(self, keys: Iterable[str]) -> set[Connection]:
        """Return the connections that have at least one of these keys."""
        return {connection for key in keys for connection in self.get(key)}
