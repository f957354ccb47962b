"""Names of topics, and which ones may be followed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.audience import MAX_TOPICS, checked_grant, checked_topic, granted_topics
from unmissed.core.errors import InvalidTopic, TopicRefused

GRANTS = frozenset({"news", "orders.alice", "rooms.*"})


@pytest.mark.parametrize("name", ["a", "orders.42", "Team:red/blue_1", "a@b+c=d-e", "x" * 200])
def test_a_topic_may_have_this_name(name: str) -> None:
    assert name == checked_topic(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a,b", "a*", "*", "#a", "é", "a\n", "\na", "x" * 201, "a\0", 1, None, ["a"], True]
)
def test_a_topic_may_not_have_this_name(name: object) -> None:
    with pytest.raises(InvalidTopic, match="a topic is 1 to 200 ASCII letters"):
        checked_topic(name)


@pytest.mark.parametrize("grant", ["news", "orders.*", "*"])
def test_a_grant_is_a_name_or_a_prefix(grant: str) -> None:
    assert grant == checked_grant(grant)


@pytest.mark.parametrize("grant", ["a*b", "**", "* ", "a b*", "", 1, None])
def test_nothing_else_is_a_grant(grant: object) -> None:
    with pytest.raises(InvalidTopic):
        checked_grant(grant)


def test_without_a_wish_every_topic_that_is_granted_by_name_is_followed() -> None:
    assert {"news", "orders.alice"} == granted_topics(None, GRANTS)


@pytest.mark.parametrize("asked", [[], ["news"], ["rooms.1", "rooms."], ["news", "orders.alice", "news"]])
def test_what_is_asked_for_is_followed_if_it_is_granted(asked: list[str]) -> None:
    assert set(asked) == granted_topics(asked, GRANTS)


@pytest.mark.parametrize("topic", ["sport", "New", "newss", "room", "orders.bob", "orders.alice2", "orders."])
def test_what_is_not_granted_is_refused_by_its_name(topic: str) -> None:
    with pytest.raises(TopicRefused, match=f"the topic {topic} is not granted"):
        granted_topics(["news", topic], GRANTS)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_names_of_all_topics_have_a_bound_in_bytes(*, by_name: bool) -> None:
    topics = frozenset(f"rooms.{number:03}.{'x' * 118}" for number in range(512))
    one_more = topics | {"rooms.more"}

    assert topics == granted_topics(None if by_name else topics, topics)
    with pytest.raises(InvalidTopic, match="at most 65536 bytes together, and these 65546: unfollow some"):
        granted_topics(None if by_name else one_more, one_more)


def test_a_star_grants_every_topic() -> None:
    assert {"anything"} == granted_topics(["anything"], frozenset("*"))


def test_a_pattern_is_not_a_wish() -> None:
    with pytest.raises(InvalidTopic):
        granted_topics(["rooms.*"], GRANTS)


def test_one_string_is_not_a_wish_for_its_letters() -> None:
    with pytest.raises(InvalidTopic, match=r"write topics=\['news'\]"):
        granted_topics("news", frozenset({"*"}))


def test_a_connection_follows_at_most_1000_topics() -> None:
    asked = [f"rooms.{number}" for number in range(MAX_TOPICS + 1)]

    assert MAX_TOPICS == len(granted_topics(asked[1:], GRANTS))
    with pytest.raises(InvalidTopic, match="at most 1000 topics, and this one 1001"):
        granted_topics(asked, GRANTS)


@given(topic=st.from_regex(r"[a-c.]{1,5}", fullmatch=True), grants=st.frozensets(st.sampled_from(["a*", "b", "c.*"])))
def test_a_prefix_grants_what_starts_with_it_and_nothing_else(topic: str, grants: frozenset[str]) -> None:
    expected = any(
        topic.startswith(grant.removesuffix("*")) if grant.endswith("*") else topic == grant for grant in grants
    )
    try:
        assert {topic} == granted_topics([topic], grants)
        granted = True
    except TopicRefused:
        granted = False

    assert expected is granted
