"""Doubles for tests of presence: connections without sockets, and nodes whose notes may be lost."""

import json
from collections.abc import Callable, Iterable
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

from unmissed import Connection, Identity
from unmissed.core.reader import ClientReader, TopicChange
from unmissed.delivery.registry import Registry

_ordinal = count()


class Client(Connection):
    """What a registry looks at of a connection."""

    def __init__(self, user_id: str, topics: Iterable[str]) -> None:
        self.id = f"connection {next(_ordinal)}"
        self.identity = Identity(user_id)
        self.reader = cast("ClientReader", SimpleNamespace(topics=frozenset(topics)))


def add(registry: Registry, user_id: str, *topics: str) -> Connection:
    """Connect a client, as the fan-out does."""
    client = Client(user_id, topics)
    registry.add(client)
    registry.report(client, TopicChange(added=client.topics))
    return client


def remove(registry: Registry, connection: Connection) -> None:
    """End a connection, as the fan-out does."""
    registry.remove(connection)
    registry.report(connection, TopicChange(removed=connection.topics))


class Notes:
    """Carries notes between the nodes that are in it. ``lost`` returns whether a note is lost."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeDouble] = {}
        self.lost: Callable[[], bool] = lambda: False
        self.sent = 0

    def carry(self, kind: str, content: Any) -> None:
        self.sent += 1
        for node in [*self.nodes.values()]:
            if not self.lost():
                node.listeners[kind](json.loads(json.dumps(content)))


class NodeDouble:
    """The other nodes as one node sees them."""

    def __init__(self, node_id: str, notes: Notes, *, is_alone: bool = False) -> None:
        self.id = node_id
        self.is_alone = is_alone
        self.others = frozenset[str]()
        self.problem: str | None = None
        self.any_overdue = False
        self.listeners: dict[str, Callable[[Any], None]] = {}
        self._notes = notes

    def listen(self, kind: str, listener: Callable[[Any], None]) -> None:
        self.listeners[kind] = listener

    async def announce(self, kind: str, content: Any) -> None:
        if self.id in self._notes.nodes:
            self._notes.carry(kind, content)
