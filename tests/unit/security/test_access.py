"""Who may follow which topics."""

import asyncio
import time
from collections.abc import Awaitable

import pytest

from unmissed import Access, Identity
from unmissed.core.errors import InvalidTopic, TopicRefused
from unmissed.security.access import Authorize

ALICE = Identity("alice", topics=frozenset({"news", "sport", "rooms.*"}))


async def only_news(identity: Identity, topic: str) -> bool:
    return identity.user_id == "alice" and topic == "news"


def only_news_at_once(identity: Identity, topic: str) -> bool:
    return identity.user_id == "alice" and topic == "news"


def only_news_later(identity: Identity, topic: str) -> Awaitable[bool]:
    return only_news(identity, topic)


async def test_without_a_function_the_identity_decides() -> None:
    access = Access()

    assert {"news", "rooms.1"} == await access.granted(ALICE, ["news", "rooms.1"])
    assert {"news", "sport"} == await access.granted(ALICE, None)
    assert {"rooms.1"} == await access.kept(ALICE, ["rooms.1", "weather"])
    with pytest.raises(TopicRefused, match="the topic weather is not granted"):
        await access.granted(ALICE, ["weather"])


@pytest.mark.parametrize("authorize", [only_news, only_news_at_once, only_news_later])
async def test_a_function_decides_in_place_of_the_identity(authorize: Authorize) -> None:
    access = Access(authorize=authorize)

    assert {"news"} == await access.granted(ALICE, ["news"])
    assert {"news"} == await access.granted(ALICE, None)
    assert {"news"} == await access.kept(ALICE, ["news", "sport"])
    assert set() == await access.granted(Identity("bob", topics=ALICE.topics), None)
    with pytest.raises(TopicRefused, match="the topic sport is not granted"):
        await access.granted(ALICE, ["news", "sport"])
    with pytest.raises(InvalidTopic):
        await access.granted(ALICE, ["a b"])


async def test_no_topic_is_authorized_after_the_first_refusal() -> None:
    asked = list[str]()

    def only_rooms(identity: Identity, topic: str) -> bool:  # noqa: ARG001  # the contract
        asked.append(topic)
        return topic.startswith("rooms.")

    with pytest.raises(TopicRefused, match="the topic secret is not granted"):
        await Access(authorize=only_rooms).granted(ALICE, ["rooms.1", "secret", *(f"rooms.{n}" for n in range(2, 999))])

    assert ["rooms.1", "secret"] == asked


@pytest.mark.parametrize("by_name", [True, False])
async def test_others_run_while_a_function_that_is_not_async_decides_about_many_topics(*, by_name: bool) -> None:
    topics = [f"rooms.{number}" for number in range(20)]
    decided = list[str]()

    def slowly(identity: Identity, topic: str) -> bool:  # noqa: ARG001  # the contract
        time.sleep(0.006)  # More than a slice of the event loop.
        decided.append(topic)
        return True

    others = asyncio.create_task(_count_turns(decided, len(topics)))
    identity = Identity("alice", topics=frozenset(topics))
    await Access(authorize=slowly).granted(identity, None if by_name else topics)

    assert len(topics) - 1 <= len(await others)


async def _count_turns(decided: list[str], last: int) -> list[int]:
    """Return how many topics were decided in each turn of this task."""
    seen = list[int]()
    while not seen or seen[-1] < last:
        seen.append(len(decided))
        await asyncio.sleep(0)
    return seen
