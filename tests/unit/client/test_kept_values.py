"""The values that a stream keeps: by topic, key and audience, and cut at the number of the last state."""

from typing import Any

import pytest

from support import nth
from unmissed.client.kept_values import KeptValue, KeptValues, TopicState
from unmissed.client.received import ReceivedMessage

CARTS = ["users.42"]


def message(number: int, key: str = "cart", *, topics: list[str] | None = None, **change: bool) -> ReceivedMessage:
    extra = {"topics": CARTS if topics is None else topics}
    return ReceivedMessage("changed", nth(number), "", number, extra if extra["topics"] else {}, key=key, **change)


def loaded(*messages: ReceivedMessage, through: int = 0, topics: list[str] | None = None) -> KeptValues:
    values = KeptValues()
    values.collect(messages, request_id=None)
    values.finish(nth(through), topics=topics, request_id=None)
    return values


def shown(values: KeptValues, topic: str | None = "users.42") -> dict[str, list[Any]]:
    """Return the data of the messages of each value."""
    return {key: [each.data for each in value.messages] for key, value in TopicState(values, topic).items()}


def test_a_message_replaces_the_value_of_its_key_and_no_other() -> None:
    values = loaded(message(1), message(2, "name"), through=2)

    values.take(message(3))

    assert {"cart": [3], "name": [2]} == shown(values)


def test_pieces_follow_the_value_and_a_later_message_replaces_them() -> None:
    values = loaded(message(1), message(2, append=True), through=2)

    values.take(message(3, append=True))
    with_pieces = shown(values)
    values.take(message(4))

    assert ({"cart": [1, 2, 3]}, {"cart": [4]}) == (with_pieces, shown(values))


def test_pieces_need_no_value_before_them() -> None:
    values = loaded()

    values.take(message(1, append=True))
    values.take(message(2, append=True))

    assert {"cart": [1, 2]} == shown(values)


def test_a_deleted_value_is_gone_with_its_pieces_and_may_come_again() -> None:
    values = loaded(message(1), message(2, append=True), through=2)

    values.take(message(3, deleted=True))
    without = shown(values)
    values.take(message(4, append=True))

    assert ({}, {"cart": [4]}) == (without, shown(values))


def test_the_same_key_for_other_recipients_is_another_value() -> None:
    """What happens to it changes nothing for this one; a topic that both have shows the newest."""
    values = loaded(message(1), message(2, topics=["users.42", "shop"]), through=2)

    newest = shown(values)
    values.take(message(3, topics=["shop", "users.42"], deleted=True))

    assert ({"cart": [2]}, {"cart": [1]}) == (newest, shown(values))
    assert {} == shown(values, "shop")


def test_messages_without_topics_are_values_of_their_own() -> None:
    values = loaded(message(1, topics=[]), message(2), through=2)

    assert ({"cart": [1]}, {"cart": [2]}) == (shown(values, None), shown(values))


@pytest.mark.parametrize("change", [{}, {"append": True}, {"deleted": True}])
def test_a_message_that_the_state_contains_changes_nothing(change: dict[str, Any]) -> None:
    values = loaded(message(7), through=9)

    values.take(message(8, **change))

    assert {"cart": [7]} == shown(values)


def test_a_state_replaces_everything_once_its_last_part_has_arrived() -> None:
    values = loaded(message(1), message(2, "name"), through=2)

    values.collect([message(8)], request_id=None)
    before = shown(values)
    values.collect([message(9, "theme")], request_id=None)
    values.finish(nth(9), topics=None, request_id=None)

    assert ({"cart": [1], "name": [2]}, {"cart": [8], "theme": [9]}) == (before, shown(values))


def test_a_state_of_some_topics_leaves_the_others() -> None:
    values = loaded(message(1), message(2, topics=["shop"]), through=2)
    values.take(message(5))

    values.collect([message(3, topics=["shop", "users.42"])], request_id="1")
    values.finish(nth(4), topics=["shop"], request_id="1")
    values.take(message(4, topics=["shop"]))
    values.take(message(6, topics=["shop"], append=True))

    kept = shown(values)
    values.take(message(7, deleted=True))

    assert ({"cart": [5]}, {}) == (kept, shown(values))
    # The newest of two values of this key: that of both topics, and that of this one.
    assert {"cart": [6]} == shown(values, "shop")


def test_a_part_of_a_state_whose_connection_was_lost_is_forgotten() -> None:
    values = loaded()
    values.collect([message(1)], request_id=None)

    values.begin(clear=False)
    values.collect([message(2, "name")], request_id=None)
    values.finish(nth(2), topics=None, request_id=None)

    assert {"name": [2]} == shown(values)


def test_another_epoch_begins_without_values_and_may_have_lower_numbers() -> None:
    values = loaded(message(7), through=9)

    values.begin(clear=True)
    cleared = shown(values)
    values.take(message(3))

    assert ({}, {"cart": [3]}) == (cleared, shown(values))


def test_topics_that_are_no_longer_followed_have_no_values() -> None:
    values = loaded(message(1), message(2, topics=["shop"]), through=2)

    values.forget(["shop", "unknown"])

    assert ({"cart": [1]}, {}) == (shown(values), shown(values, "shop"))


def test_a_state_is_a_mapping_that_changes() -> None:
    values = loaded()
    state = TopicState(values, "users.42")
    assert "cart" not in state

    values.take(message(1))
    values.take(message(2, append=True))
    kept = state["cart"]
    values.take(message(3, deleted=True))

    assert KeptValue((message(1), message(2, append=True))) == kept
    assert ("changed", 1) == (kept.type, kept.data)
    assert ([], 0, None) == ([*state], len(state), state.get("cart"))
    assert "TopicState('users.42', {})" == repr(state)


def test_a_loop_over_a_state_may_wait_while_it_changes() -> None:
    values = loaded(message(1), message(2, "name"), through=2)

    keys: list[str] = []
    for key in TopicState(values, "users.42"):
        values.take(message(3 + len(keys), f"new {key}"))
        keys.append(key)

    assert ["cart", "name"] == keys
