"""Who is connected, asked of all nodes."""

import asyncio
from typing import Any

import pytest

from support import connect
from unmissed import ConnectionManager, Identity
from unmissed.cluster.presence import Presence, presence_answers
from unmissed.core.errors import LogUnavailable
from unmissed.delivery.registry import Registry


class Others:
    """The other nodes: they answer when they may. It records what they were asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None
        self._answers = [*answers]

    async def ask(self, kind: str, content: Any) -> dict[str, Any]:
        self.asked.append((kind, content))
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return {f"node{number}": answer for number, answer in enumerate(self._answers)}


def alone() -> Registry:
    return Registry(max_connections=None, max_per_user=None)


async def test_those_who_ask_the_same_at_the_same_time_share_one_question() -> None:
    others = Others({"users": {"bob": 2}, "total_users": 1, "total_connections": 2})
    presence = Presence(alone(), ask=others.ask)
    asking = [asyncio.create_task(presence.followers(topic, limit=10)) for topic in ("news",) * 50 + ("sport",)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    others.may_answer.set()

    found = await asyncio.gather(*asking[1:])

    assert [{"bob": 2}] * 50 == [followers.users for followers in found]
    assert ["news", "sport"] == [content["topic"] for _, content in others.asked]
    await presence.followers("news", limit=10)
    assert 3 == len(others.asked)


async def test_the_other_nodes_are_asked_for_as_many_as_are_wanted() -> None:
    others = Others({"users": {"b": 1, "c": 1}, "total_users": 5_000, "total_connections": 7_000})
    others.may_answer.set()

    followers = await Presence(alone(), ask=others.ask).followers("news", limit=2)

    assert [("followers", {"topic": "news", "limit": 2})] == others.asked
    assert ({"b": 1, "c": 1}, 5_000, 7_000) == (followers.users, followers.total_users, followers.total_connections)


async def test_nodes_that_cannot_be_reached_are_an_error_for_all_who_asked() -> None:
    others = Others()
    others.error = LogUnavailable("down")
    presence = Presence(alone(), ask=others.ask)
    asking = [asyncio.create_task(presence.followers("news", limit=10)) for _ in range(2)]
    await asyncio.sleep(0)
    others.may_answer.set()

    results = await asyncio.gather(*asking, return_exceptions=True)

    assert [LogUnavailable] * 2 == [type(result) for result in results]


@pytest.mark.parametrize(("limit", "users"), [(1, {"a": 1}), (2, {"a": 1, "b": 2}), (10, {"a": 1, "b": 2, "c": 1})])
async def test_a_node_answers_with_no_more_users_than_are_wanted(
    manager: ConnectionManager, limit: int, users: dict[str, int]
) -> None:
    registry = alone()
    for name in "cbab":
        registry.add(connect(manager, Identity(name, topics=frozenset({"news"})))[1])

    answer = presence_answers(registry)["followers"]({"topic": "news", "limit": limit})

    assert {"users": users, "total_users": 3, "total_connections": 4} == answer
