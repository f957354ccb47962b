"""Who follows a topic now, on all nodes: a bounded list, and totals."""

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
    """The followers of topics. Those who ask the same at the same time share one question to the other nodes.

    ``ask`` sends a kind of question and its content to them, and returns their answers by node.
    """

    def __init__(self, connections: Registry, *, ask: Callable[[str, Any], Awaitable[Mapping[str, Any]]]) -> None:
        self._connections = connections
        self._ask_others = ask
        self._asked: dict[tuple[str, int], asyncio.Task[Followers]] = {}

    async def of(self, topic: str, *, limit: int) -> Followers:
        """Return the followers of a topic on all nodes, at most ``limit`` of them by name.

        Raises LogUnavailable if the nodes cannot reach each other.
        """
        key = topic, limit
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.create_task(self._ask(topic, limit))
            asked.add_done_callback(lambda _: self._answered(key))
        return await asyncio.shield(asked)

    def _answered(self, key: tuple[str, int]) -> None:
        asked = self._asked.pop(key)
        if not asked.cancelled():
            asked.exception()  # Those who asked may all be gone.

    async def _ask(self, topic: str, limit: int) -> Followers:
        answers = await self._ask_others("followers", {"topic": topic, "limit": limit})
        here = followers_on(self._connections, topic=topic, limit=limit)
        return _together([here, *(Followers(**answer) for answer in answers.values())], limit)


def followers_on(connections: Registry, *, topic: str, limit: int) -> Followers:
    """Return the followers of a topic on one node."""
    counts = connections.users(topic)
    first = nsmallest(limit, counts)
    return Followers({user_id: counts[user_id] for user_id in first}, len(counts), sum(counts.values()))


def answer_to_node(connections: Registry, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node answers to another one, as JSON."""
    return asdict(followers_on(connections, topic=question["topic"], limit=question["limit"]))


def _together(nodes: list[Followers], limit: int) -> Followers:
    """Return the followers on all nodes.

    A user who is among the first of all is among the first of each node that the user is connected to, so nobody is
    missed. Only if a node has left out users, one on several nodes may count more than once in the total.
    """
    counts = Counter[str]()
    for node in nodes:
        counts.update(node.users)
    left_out = sum(node.total_users - len(node.users) for node in nodes)
    users = {user_id: counts[user_id] for user_id in nsmallest(limit, counts)}
    return Followers(users, len(counts) + left_out, sum(node.total_connections for node in nodes))
