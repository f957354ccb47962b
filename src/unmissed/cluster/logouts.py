"""Logouts: closing connections on all nodes, and refusing the tokens that they have used."""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from unmissed.cluster.nodes import Nodes
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import LogUnavailable, UnknownConnection
from unmissed.core.revocations import Revocations, Token
from unmissed.delivery.connection import Connection
from unmissed.delivery.registry import Registry

_LOGGED_OUT = "logged out: log in again"
_RECONNECT = "disconnected by an operator: reconnect"
_NOTE_ENTRIES = 1_000
"""Revocations in one note."""


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What one node has done to log a user out."""

    closed: int
    """How many connections it has closed."""
    latest: float
    """The time of issue of the newest token that is ahead of its clock, or 0."""
    tokens: list[Token]
    """Tokens that the time of the logout does not refuse. They are refused one by one."""


class Logouts:
    """Closes connections to any node, and makes every node refuse their tokens. ``here`` is the part of this node."""

    def __init__(self, here: "LogoutsHere", *, nodes: Nodes) -> None:
        self._here = here
        self._nodes = nodes

    async def log_out(self, user_id: str) -> int:
        """Close the connections of a user, refuse the tokens issued up to now, and return how many were closed."""
        logout_id = secrets.token_urlsafe(9)
        # Here first: if the other nodes cannot be reached, at least this node refuses the tokens.
        results = [self._here.log_out(user_id, logout_id)]
        with _saying_who_refuses():
            answers = await self._nodes.ask("log_out", [user_id, logout_id])
            results += [LoggedOut(**answer) for answer in answers.values()]
            # A node may know a token that is ahead of its clock, or without a time. Then all nodes need a second note.
            latest = max(each.latest for each in results)
            tokens = [token for each in results for token in each.tokens]
            if latest or tokens:
                await self._refuse(users=[(user_id, logout_id, 0.0, latest)], tokens=tokens)
        return sum(each.closed for each in results)

    async def log_out_connection(self, connection_id: str) -> None:
        """Close a connection, and refuse the tokens that it has used. Raises UnknownConnection."""
        tokens = self._here.log_out_connection(connection_id)
        if tokens is None:
            tokens = await self._ask_node_of(connection_id, "log_out_connection")
        if tokens is None:
            raise UnknownConnection(connection_id)
        with _saying_who_refuses():
            await self._refuse(tokens=tokens)

    async def reconnect(self, connection_id: str) -> None:
        """Close a connection whose client then reconnects and resumes. Raises UnknownConnection."""
        if not self._here.reconnect(connection_id) and not await self._ask_node_of(connection_id, "reconnect"):
            raise UnknownConnection(connection_id)

    async def _ask_node_of(self, connection_id: str, kind: str) -> Any:
        """Return what the node of a connection answers, or None if there is none. Raises LogUnavailable."""
        node = connection_id.partition(".")[0]
        # A channel has no addresses: every node gets the question, and only the node of the connection has an answer.
        answers = await self._nodes.ask(kind, connection_id)
        if node in self._nodes.others and node not in answers:
            raise LogUnavailable(f"the node {node}, which has the connection, does not answer")
        return answers.get(node)

    async def _refuse(self, **content: Any) -> None:
        """Refuse users and tokens on every node."""
        self._here.refuse(**content)
        await self._nodes.ask("refused", content)


class LogoutsHere:
    """The logouts of one node: closes its connections, and records the refused tokens in ``revocations``."""

    def __init__(self, connections: Registry, revocations: Revocations) -> None:
        self._connections = connections
        self._revocations = revocations

    @property
    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The functions that handle the notes of other nodes, by kind. What they return is JSON."""
        return {
            "log_out": lambda content: asdict(self.log_out(*content)),
            "log_out_connection": self.log_out_connection,
            "reconnect": self.reconnect,
            "refused": lambda content: self.refuse(**content),
        }

    def notes(self) -> list[tuple[str, Any]]:
        """Return notes of all refused users and tokens, for a starting node."""
        return [
            ("refused", {kind: entries[start : start + _NOTE_ENTRIES]})
            for kind, entries in (("users", self._revocations.users), ("tokens", self._revocations.tokens))
            for start in range(0, len(entries), _NOTE_ENTRIES)
        ]

    def log_out(self, user_id: str, logout_id: str) -> LoggedOut:
        """Close the connections of a user. Does nothing for a logout that this node knows already."""
        connections = self._connections.of_user(user_id)
        tokens = [token for connection in connections for token in _tokens_of(connection)]
        latest = self._revocations.latest_ahead(user_id, tokens)
        if not self._revocations.log_out(user_id, logout_id=logout_id, latest=latest):
            return LoggedOut(0, 0.0, [])
        # After the logout: those of them that its time does not refuse are refused one by one.
        left = [token for token in tokens if token.is_recognizable and not self._revocations.refuses(token)]
        self._revocations.refuse(left)
        for connection in connections:
            _close(connection)
        return LoggedOut(len(connections), latest, left)

    def log_out_connection(self, connection_id: str) -> list[Token] | None:
        """Close a connection, and return the tokens that it has used; or None if this node does not have it."""
        connection = self._find(connection_id)
        if connection is None:
            return None
        tokens = _tokens_of(connection)
        self.refuse(tokens=tokens)
        _close(connection)
        return tokens

    def reconnect(self, connection_id: str) -> bool:
        """Close a connection, and return whether this node had it."""
        connection = self._find(connection_id)
        if connection is None:
            return False
        connection.close(CloseCode.SERVICE_RESTART, _RECONNECT, discard=True)
        return True

    def refuse(self, *, users: Iterable[tuple[str, str, float, float]] = (), tokens: Iterable[Token] = ()) -> None:
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

    def _find(self, connection_id: str) -> Connection | None:
        try:
            return self._connections[connection_id]
        except UnknownConnection:
            return None


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
