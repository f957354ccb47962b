"""Presence: who is connected, here and on the other nodes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any

from unmissed.delivery.registry import Registry


@dataclass(frozen=True, slots=True)
class Followers:
    """The first users in alphabetical order that follow a topic, with their connections, and how many there are."""

    users: Mapping[str, int]
    total_users: int
    total_connections: int


class Presence:
    """Who is connected to any node of the cluster.

    ``connections`` are those of this node. ``ask`` sends a kind of question and its content to the other nodes, and
    returns their answers by node.

    All methods raise LogUnavailable if the nodes cannot reach each other, and leave out nodes that do not answer.
    """

    def __init__(self, connections: Registry, *, ask: Callable[[str, Any], Awaitable[Mapping[str, Any]]]) -> None:
        self._connections = connections
        self._ask = ask
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


def presence_answers(connections: Registry) -> dict[str, Callable[[Any], Any]]:
    """Return the functions that answer the questions of other nodes, as JSON, by kind."""
    return {
        "users": connections.users,
        "followers": lambda wanted: asdict(followers_here(connections, wanted)),
    }


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
