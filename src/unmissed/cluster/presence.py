"""Presence: who is connected, here and on the other nodes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from unmissed.delivery.connection import Connection
from unmissed.delivery.registry import Registry


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


@dataclass(frozen=True, slots=True)
class Followers:
    """The first users in alphabetical order that follow a topic, with their connections, and how many there are."""

    users: Mapping[str, int]
    total_users: int
    total_connections: int


class Presence:
    """Who is connected to any node of the cluster.

    ``connections`` are those of this node. ``ask`` sends a kind of question and its content to the other nodes, and
    returns their answers by node. ``unix_time`` converts monotonic seconds to Unix seconds.

    All methods raise LogUnavailable if the nodes cannot reach each other, and leave out nodes that do not answer.
    """

    def __init__(
        self,
        connections: Registry,
        *,
        ask: Callable[[str, Any], Awaitable[Mapping[str, Any]]],
        unix_time: Callable[[float], float],
    ) -> None:
        self._connections = connections
        self._ask = ask
        self._unix_time = unix_time
        self._asked: dict[tuple[str, int], asyncio.Task[Followers]] = {}
        """The questions about followers that are not answered yet, by topic and limit."""

    async def users(self, topic: str | None = None) -> dict[str, int]:
        """Return how many connections each user has, or only those that follow a topic."""
        counts = Counter(self._connections.users(topic))
        for answer in (await self._ask("users", topic)).values():
            counts.update(answer)
        return dict(counts)

    async def followers(self, topic: str, *, limit: int) -> Followers:
        """Return the followers of a topic, at most ``limit`` of them by name.

        Callers that ask for the same at the same time share one question to the other nodes.
        """
        key = topic, limit
        # The question has its own task: one caller may be cancelled while others wait for the answer.
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(self._followers(topic, limit))
            asked.add_done_callback(lambda _: self._answered(key))
        return await asyncio.shield(asked)

    async def listed(self, *, after: str, limit: int, user_id: str | None) -> list[ConnectionInfo]:
        """Return the first ``limit`` connections, of one user if given, with ids above ``after``, ordered by id."""
        page = {"after": after, "limit": limit, "user_id": user_id}
        found = listed_here(self._connections, page, unix_time=self._unix_time)
        for answer in (await self._ask("connections", page)).values():
            found += [ConnectionInfo(**info) for info in answer]
        return nsmallest(limit, found, key=lambda info: info.connection_id)

    async def _followers(self, topic: str, limit: int) -> Followers:
        wanted = {"topic": topic, "limit": limit}
        answers = await self._ask("followers", wanted)
        here = followers_here(self._connections, wanted)
        return _together([here, *(Followers(**answer) for answer in answers.values())], limit)

    def _answered(self, key: tuple[str, int]) -> None:
        asked = self._asked.pop(key)
        if not asked.cancelled():
            asked.exception()  # Every caller may have been cancelled: then no other code retrieves it.


def followers_here(connections: Registry, wanted: Mapping[str, Any]) -> Followers:
    """Return the followers of ``wanted["topic"]`` on one node, at most ``wanted["limit"]`` of them by name."""
    counts = connections.users(wanted["topic"])
    first = nsmallest(wanted["limit"], counts)
    return Followers({user_id: counts[user_id] for user_id in first}, len(counts), sum(counts.values()))


def listed_here(
    connections: Registry, page: Mapping[str, Any], *, unix_time: Callable[[float], float]
) -> list[ConnectionInfo]:
    """Return a page of the connections to one node: ``after`` an id, up to ``limit``, of one ``user_id`` or of all."""
    found = connections.page(page["after"], limit=page["limit"], user_id=page["user_id"])
    return [_info(each, unix_time(each.opened_at)) for each in found]


def presence_answers(connections: Registry, *, unix_time: Callable[[float], float]) -> dict[str, Callable[[Any], Any]]:
    """Return the functions that answer the questions of other nodes, as JSON, by kind."""
    return {
        "users": connections.users,
        "followers": lambda wanted: asdict(followers_here(connections, wanted)),
        "connections": lambda page: [asdict(info) for info in listed_here(connections, page, unix_time=unix_time)],
    }


def _info(connection: Connection, connected_at: float) -> ConnectionInfo:
    return ConnectionInfo(
        connection_id=connection.id,
        user_id=connection.identity.user_id,
        connected_at=connected_at,
        position=connection.position,
        lag=connection.lag,
        topics=sorted(connection.topics),
        transport=connection.transport,
        client=connection.client,
    )


def _together(nodes: list[Followers], limit: int) -> Followers:
    """Return the followers on all nodes.

    Each of the first users overall is also among the first users of its nodes, so none is missed. Only if a node has
    left out users, a user on several nodes may count more than once in the total.
    """
    counts = Counter[str]()
    for node in nodes:
        counts.update(node.users)
    left_out = sum(node.total_users - len(node.users) for node in nodes)
    users = {user_id: counts[user_id] for user_id in nsmallest(limit, counts)}
    return Followers(users, len(counts) + left_out, sum(node.total_connections for node in nodes))
