"""Who may follow which topics."""

from collections.abc import Awaitable

import pytest

from unmissed import Access, Identity
from unmissed.core.errors import InvalidTopic, TopicRefused
from unmissed.delivery.access import Authorize

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
