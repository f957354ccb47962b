"""Who is connected, to this node and to the others, and logging people out everywhere."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from unmissed.application.nodes import Nodes
from unmissed.core.errors import UnknownConnection
from unmissed.core.revocations import Revocations
from unmissed.core.wire import CloseCode
from unmissed.delivery.connection import Connection
from unmissed.delivery.registry import Registry
from unmissed.logs.base import Channel

_LOGGED_OUT = "logged out: log in again"
_RECONNECT = "disconnected by an operator: reconnect"
_NOTE_ENTRIES = 1_000
"""Revocations in one note."""


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A connection to this node or another one. ``connected_at`` is in Unix seconds."""

    connection_id: str
    user_id: str
    connected_at: float
    position: int
    lag: int
    topics: list[str]
    transport: str
    client: str | None


class People:
    """The people behind the connections of all nodes that share a log.

    ``connections`` are those of this node. ``key`` authenticates the notes between the nodes. ``clock`` returns
    monotonic seconds, and ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        connections: Registry,
        revocations: Revocations,
        *,
        node_id: str,
        channel: Channel | None,
        key: bytes,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._revocations = revocations
        self._clock = clock
        self._wall_clock = wall_clock
        self.nodes = Nodes(
            channel,
            node_id=node_id,
            key=key,
            handlers={
                "users": connections.users,
                "connections": lambda content: [asdict(info) for info in self._listed(**content)],
                "log_out": lambda content: self._log_out(*content),
                "log_out_connection": self._log_out_connection,
                "reconnect": self._reconnect,
                "revoked": self._revoke,
            },
            facts=self._revoked,
            knows=lambda: hash((tuple(revocations.users), tuple(revocations.tokens))),
            clock=clock,
        )

    async def users(self, topic: str | None = None) -> dict[str, int]:
        """Return how many connections each user has, or only those that follow a topic."""
        counts = Counter(self._connections.users(topic))
        for answer in (await self.nodes.ask("users", topic)).values():
            counts.update(answer)
        return dict(counts)

    async def listed(self, *, after: str, limit: int, user_id: str | None) -> list[ConnectionInfo]:
        """Return the first ``limit`` connections, of one user if given, with ids above ``after``, ordered by id."""
        wanted = {"after": after, "limit": limit, "user_id": user_id}
        found = self._listed(after=after, limit=limit, user_id=user_id)
        for answer in (await self.nodes.ask("connections", wanted)).values():
            found += [ConnectionInfo(**info) for info in answer]
        return nsmallest(limit, found, key=lambda info: info.connection_id)

    async def log_out(self, user_id: str) -> int:
        """Close the connections of a user, refuse the tokens issued up to now, and return how many were closed."""
        now = self._wall_clock()
        closed = self._log_out(user_id, now)
        elsewhere = await self.nodes.ask("log_out", [user_id, now])
        return closed + sum(map(int, elsewhere.values()))

    async def log_out_connection(self, connection_id: str) -> None:
        """Close a connection and refuse the tokens that it has used. Raises UnknownConnection."""
        answers = [self._log_out_connection(connection_id)]
        if answers == [None]:
            answers = [*(await self.nodes.ask("log_out_connection", connection_id)).values()]
        tokens = next((answer for answer in answers if answer is not None), None)
        if tokens is None:
            raise UnknownConnection(connection_id)
        self._revoke({"tokens": tokens})
        await self.nodes.ask("revoked", {"tokens": tokens})

    async def reconnect(self, connection_id: str) -> None:
        """Close a connection whose client then reconnects and resumes. Raises UnknownConnection."""
        if not self._reconnect(connection_id) and not any((await self.nodes.ask("reconnect", connection_id)).values()):
            raise UnknownConnection(connection_id)

    def _listed(self, *, after: str, limit: int, user_id: str | None) -> list[ConnectionInfo]:
        return [self._info(each) for each in self._connections.page(after, limit=limit, user_id=user_id)]

    def _info(self, connection: Connection) -> ConnectionInfo:
        return ConnectionInfo(
            connection_id=connection.id,
            user_id=connection.identity.user_id,
            connected_at=self._wall_clock() - (self._clock() - connection.opened_at),
            position=connection.position,
            lag=connection.lag,
            topics=sorted(connection.topics),
            transport=connection.transport,
            client=connection.client,
        )

    def _log_out(self, user_id: str, now: float) -> int:
        self._revocations.revoke_user(user_id, now=now)
        connections = self._connections.of_user(user_id)
        for connection in connections:
            _close(connection)
        return len(connections)

    def _log_out_connection(self, connection_id: str) -> list[tuple[str, float | None]] | None:
        """Close a connection to this node, and return its tokens, each as user and time of issue; or None."""
        try:
            connection = self._connections[connection_id]
        except UnknownConnection:
            return None
        tokens = [(each.user_id, each.issued_at) for each in (*connection.earlier, connection.identity)]
        self._revoke({"tokens": tokens})
        _close(connection)
        return tokens

    def _reconnect(self, connection_id: str) -> bool:
        """Close a connection to this node, and return whether there is one."""
        try:
            connection = self._connections[connection_id]
        except UnknownConnection:
            return False
        connection.close(CloseCode.SERVICE_RESTART, _RECONNECT, discard=True)
        return True

    def _revoke(self, content: dict[str, Any]) -> None:
        """Refuse tokens that another node refuses, and close the connections of users that used them."""
        for user_id, at in content.get("users", ()):
            self._revocations.revoke_user(user_id, now=at)
            for connection in self._connections.of_user(user_id):
                if self._revocations.refuses(connection.identity):
                    _close(connection)
        for user_id, issued_at in content.get("tokens", ()):
            self._revocations.revoke_token(user_id, issued_at)

    def _revoked(self) -> list[tuple[str, Any]]:
        """Return notes of everything that is refused."""
        return [
            ("revoked", {kind: entries[start : start + _NOTE_ENTRIES]})
            for kind, entries in (("users", self._revocations.users), ("tokens", self._revocations.tokens))
            for start in range(0, len(entries), _NOTE_ENTRIES)
        ]


def _close(connection: Connection) -> None:
    connection.close(CloseCode.UNAUTHORIZED, _LOGGED_OUT, discard=True)
