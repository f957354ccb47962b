"""Who is connected, to this node and to the others, and logging people out everywhere."""

import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from unmissed.cluster.nodes import Nodes
from unmissed.cluster.presence import Presence, answer_to_node
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import LogUnavailable, UnknownConnection
from unmissed.core.revocations import Revocations, Token
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
                "followers": lambda question: answer_to_node(connections, question),
                "connections": lambda content: [asdict(info) for info in self._listed(**content)],
                "log_out": lambda content: asdict(self._log_out(*content)),
                "log_out_connection": self._log_out_connection,
                "reconnect": self._reconnect,
                "refused": lambda content: self._refuse(**content),
            },
            facts=self._refused,
            knows=lambda: revocations.fingerprint,
            clock=clock,
        )
        self.presence = Presence(connections, ask=self.nodes.ask)

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
        logout_id = secrets.token_urlsafe(9)
        results = [self._log_out(user_id, logout_id)]
        with _saying_who_refuses():
            answers = await self.nodes.ask("log_out", [user_id, logout_id])
            results += [_LoggedOut(**answer) for answer in answers.values()]
            latest = max(each.latest for each in results)
            tokens = [token for each in results for token in each.tokens]
            if latest or tokens:
                await self._refuse_everywhere(users=[(user_id, logout_id, 0.0, latest)], tokens=tokens)
        return sum(each.closed for each in results)

    async def log_out_connection(self, connection_id: str) -> None:
        """Close a connection, and refuse the tokens that it has used. Raises UnknownConnection."""
        tokens = self._log_out_connection(connection_id)
        if tokens is None:
            tokens = await self._ask_node_of(connection_id, "log_out_connection")
        if tokens is None:
            raise UnknownConnection(connection_id)
        with _saying_who_refuses():
            await self._refuse_everywhere(tokens=tokens)

    async def reconnect(self, connection_id: str) -> None:
        """Close a connection whose client then reconnects and resumes. Raises UnknownConnection."""
        if not self._reconnect(connection_id) and not await self._ask_node_of(connection_id, "reconnect"):
            raise UnknownConnection(connection_id)

    async def _ask_node_of(self, connection_id: str, kind: str) -> Any:
        """Return what the node of a connection answers, or None if there is none. Raises LogUnavailable."""
        node = connection_id.partition(".")[0]
        answers = await self.nodes.ask(kind, connection_id)
        if node in self.nodes.others and node not in answers:
            raise LogUnavailable(f"the node {node}, which has the connection, does not answer")
        return answers.get(node)

    async def _refuse_everywhere(self, **content: Any) -> None:
        self._refuse(**content)
        await self.nodes.ask("refused", content)

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

    def _log_out(self, user_id: str, logout_id: str) -> "_LoggedOut":
        """Close the connections of a user to this node. A logout that this node knows closes nothing again."""
        connections = self._connections.of_user(user_id)
        tokens = [token for connection in connections for token in _tokens_of(connection)]
        latest = self._revocations.latest_ahead(user_id, tokens)
        if not self._revocations.log_out(user_id, logout_id=logout_id, latest=latest):
            return _LoggedOut(0, 0.0, [])
        left = [token for token in tokens if token.is_recognizable and not self._revocations.refuses(token)]
        self._revocations.refuse(left)
        for connection in connections:
            _close(connection)
        return _LoggedOut(len(connections), latest, left)

    def _log_out_connection(self, connection_id: str) -> list[Token] | None:
        """Close a connection to this node, and return the tokens that it has used; or None if it is unknown."""
        try:
            connection = self._connections[connection_id]
        except UnknownConnection:
            return None
        tokens = _tokens_of(connection)
        self._refuse(tokens=tokens)
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

    def _refuse(
        self,
        *,
        users: Iterable[tuple[str, str, float, float]] = (),
        tokens: Iterable[Token] = (),
    ) -> None:
        """Refuse what another node refuses, and close all connections with a token that is refused now.

        The arguments are what ``Revocations`` returns as its ``users`` and ``tokens``, as JSON has made lists of them.
        """
        affected = set[str]()
        for user_id, logout_id, age, latest in users:
            if self._revocations.log_out(user_id, logout_id=logout_id, age=age, latest=latest):
                affected.add(user_id)
        for each in tokens:
            token = Token(*each)
            self._revocations.refuse([token])
            affected.add(token.user_id)
        for connection in [each for user_id in affected for each in self._connections.of_user(user_id)]:
            if self._revocations.refuses(connection.identity):
                _close(connection)

    def _refused(self) -> list[tuple[str, Any]]:
        """Return notes of everything that is refused."""
        return [
            ("refused", {kind: entries[start : start + _NOTE_ENTRIES]})
            for kind, entries in (("users", self._revocations.users), ("tokens", self._revocations.tokens))
            for start in range(0, len(entries), _NOTE_ENTRIES)
        ]


@dataclass(frozen=True, slots=True)
class _LoggedOut:
    """What one node has done to log a user out."""

    closed: int
    """How many connections it has closed."""
    latest: float
    """The time of issue of the newest token that is ahead of its clock, or 0."""
    tokens: list[Token]
    """Tokens that no time refuses, and that are therefore refused one by one."""


def _tokens_of(connection: Connection) -> list[Token]:
    """Return the tokens that a connection has used."""
    return [Token.of(identity) for identity in (*connection.earlier, connection.identity)]


def _close(connection: Connection) -> None:
    connection.close(CloseCode.UNAUTHORIZED, _LOGGED_OUT, discard=True)


@contextlib.contextmanager
def _saying_who_refuses() -> Iterator[None]:
    """Say in a LogUnavailable that the other nodes may not refuse the tokens."""
    try:
        yield
    except LogUnavailable as error:
        raise LogUnavailable(f"only this node is certain to refuse the tokens: {error.reason}") from error
