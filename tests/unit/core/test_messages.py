"""Drafts and messages: what may be published, and what every client gets."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.errors import InvalidMessage, MessageTooLarge
from unmissed.core.messages import VALUE_OVERHEAD, Draft, Message, PublishOptions, Value, published, rfc3339
from unmissed.core.server_frames import RESERVED_TYPES

NOON = "2026-01-31T12:00:00.000Z"
LIMIT = 65_536

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)
other_keys = st.text().filter(
    lambda key: key not in {"type", "data", "users", "topics", "sequence_number", "timestamp"}
)


def stamped(fields: dict[str, Any], *, number: int = 1) -> Message:
    return Draft.of(fields, max_bytes=LIMIT).stamp(number, timestamp=NOON, now=0.0)


def refusal_of(fields: Any) -> str:
    with pytest.raises(InvalidMessage) as refused:
        Draft.of(fields, max_bytes=LIMIT)
    return str(refused.value)


def test_a_stamped_message_has_type_number_timestamp_and_data_in_this_order() -> None:
    message = stamped({"data": {"text": "hello"}, "type": "chat"}, number=7)

    expected = b'{"type":"chat","sequence_number":7,"timestamp":"2026-01-31T12:00:00.000Z","data":{"text":"hello"}}'
    assert expected == message.payload


def test_a_stamp_is_kept_as_facts_too() -> None:
    message = Draft.of({"type": "chat"}, max_bytes=LIMIT).stamp(7, timestamp=NOON, now=3.5)

    assert 7 == message.sequence_number
    assert message.timestamp == NOON
    assert 3.5 == message.appended_at


def test_data_that_is_left_out_is_not_added() -> None:
    expected = b'{"type":"chat","sequence_number":7,"timestamp":"2026-01-31T12:00:00.000Z"}'

    assert expected == stamped({"type": "chat"}, number=7).payload
    assert expected == stamped({"type": "chat", "users": ["alice"]}, number=7).payload


def test_data_that_is_null_is_kept() -> None:
    expected = {"type": "chat", "sequence_number": 1, "timestamp": NOON, "data": None}

    assert expected == stamped({"type": "chat", "data": None}).as_dict()


def test_other_keys_need_no_data() -> None:
    assert ["type", "sequence_number", "timestamp", "room"] == list(stamped({"room": 1, "type": "chat"}).as_dict())


def test_other_keys_are_kept_behind_the_data() -> None:
    message = stamped({"room": "kitchen", "type": "chat", "data": 2, "self": 1})

    assert ["type", "sequence_number", "timestamp", "data", "room", "self"] == list(message.as_dict())


@given(data=json_values, others=st.dictionaries(other_keys, json_values, max_size=3))
def test_whatever_json_is_published_comes_back(data: object, others: dict[str, object]) -> None:
    message = stamped({"type": "chat", "data": data, **others}, number=42)

    expected = {"type": "chat", "sequence_number": 42, "timestamp": NOON, "data": data, **others}
    assert expected == json.loads(message.payload)
    assert expected == message.as_dict()


def test_a_message_without_users_is_for_everyone() -> None:
    assert EVERYONE is stamped({"type": "chat"}).audience
    assert EVERYONE is stamped({"type": "chat", "users": None}).audience


@pytest.mark.parametrize("users", [["alice", "bob"], ("alice", "bob"), {"alice", "bob"}, frozenset({"alice", "bob"})])
def test_users_become_the_audience_and_are_told_to_nobody(users: object) -> None:
    message = stamped({"type": "chat", "users": users})

    assert Audience.of(users=["alice", "bob"]) == message.audience
    assert "users" not in message.as_dict()


def test_the_fields_of_the_publisher_are_left_alone() -> None:
    fields: dict[str, Any] = {"type": "chat", "data": 1, "users": ["alice"]}

    Draft.of(fields, max_bytes=LIMIT)

    assert {"type": "chat", "data": 1, "users": ["alice"]} == fields


@pytest.mark.parametrize("fields", [None, "chat", b"chat", 1, [], [("type", "chat")]])
def test_a_message_that_is_not_an_object_is_refused(fields: object) -> None:
    assert 'a message is an object such as {"type": "chat", "data": {"text": "hello"}}' == refusal_of(fields)


def test_keys_that_are_not_strings_are_refused() -> None:
    assert "the keys of a message must be strings" == refusal_of({"type": "chat", 1: "one"})


@pytest.mark.parametrize("fields", [{}, {"type": ""}, {"type": None}, {"type": 1}, {"type": ["chat"]}])
def test_a_message_without_a_type_is_refused(fields: dict[str, object]) -> None:
    assert refusal_of(fields).startswith("type must be a non-empty string")


@pytest.mark.parametrize("message_type", sorted(RESERVED_TYPES))
def test_the_types_of_the_protocol_are_refused(message_type: str) -> None:
    expected = f"the type {message_type!r} is reserved for the protocol: choose another name"

    assert expected == refusal_of({"type": message_type})


@pytest.mark.parametrize("key", ["sequence_number", "timestamp"])
def test_a_stamp_by_the_publisher_is_refused(key: str) -> None:
    assert f"{key} is assigned by the server: leave it out, or keep your own inside data" == refusal_of(
        {"type": "chat", key: None}
    )


def test_topics_become_the_audience_and_are_told_in_their_order() -> None:
    message = stamped({"data": 1, "topics": ["sport", "news", "sport"], "users": ["alice"], "type": "chat"}, number=7)

    assert Audience.of(users=["alice"], topics=["news", "sport"]) == message.audience
    assert message.payload.startswith(b'{"type":"chat","sequence_number":7,')
    assert message.payload.endswith(b',"data":1,"topics":["sport","news"]}')


@pytest.mark.parametrize("topics", [[], (), set(), "news", {"news": 1}, 1, True])
def test_topics_that_are_no_list_of_something_are_refused(topics: object) -> None:
    """An empty list must never come to mean everyone."""
    assert refusal_of({"type": "chat", "topics": topics}).startswith("topics must be a list of at least one topic")


@pytest.mark.parametrize("topic", ["", "a b", "a*", "*", 1, None])
def test_a_topic_with_a_name_that_none_can_have_is_refused(topic: object) -> None:
    assert refusal_of({"type": "chat", "topics": ["news", topic]}).startswith("a topic is 1 to 200 ASCII letters")


def test_a_message_addresses_at_most_1000_topics() -> None:
    topics = [str(number) for number in range(1_001)]

    assert Draft.of({"type": "chat", "topics": topics[1:]}, max_bytes=10**6)
    with pytest.raises(InvalidMessage, match="at most 1000 topics, and this one 1001"):
        Draft.of({"type": "chat", "topics": topics}, max_bytes=10**6)


@pytest.mark.parametrize("users", [[], (), set(), "alice", {"alice": 1}, 1, True])
def test_users_that_are_no_list_of_somebody_are_refused(users: object) -> None:
    """A string would be split into letters, and an empty list would reach nobody."""
    assert refusal_of({"type": "chat", "users": users}).startswith("users must be a list of at least one user id")


@pytest.mark.parametrize("user", ["", None, 1, b"alice", ["alice"]])
def test_each_user_is_a_non_empty_string(user: object) -> None:
    assert "users must contain user ids, which are non-empty strings" == refusal_of(
        {"type": "chat", "users": ["alice", user]}
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "chat", "data": math.nan},
        {"type": "chat", "data": math.inf},
        {"type": "chat", "data": {"deep": [-math.inf]}},
        {"type": "chat", "data": "\ud800"},
        {"type": "chat", "data": {"\udfff": 1}},
        {"type": "\ud800"},
        {"type": "chat", "\ud800": 1},
        {"type": "chat", "users": ["\ud800"]},
        {"type": "chat", "data": object()},
        {"type": "chat", "data": 10**5000},
    ],
)
def test_what_json_cannot_say_is_refused(fields: dict[str, object]) -> None:
    assert refusal_of(fields).startswith("the message cannot be sent as JSON: ")


def nested(levels: int) -> Any:
    """Return a value of that many levels."""
    value: Any = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"deeper": value}
    return value


def test_a_message_has_at_most_100_levels() -> None:
    assert nested(99) == stamped({"type": "chat", "data": nested(99)}).as_dict()["data"]
    assert refusal_of({"type": "chat", "data": nested(100)}).startswith(
        "the message cannot be sent as JSON: it is nested deeper than 100 levels: flatten it, or"
    )


def test_the_limit_counts_the_json_without_the_stamp() -> None:
    fields = {"type": "chat", "data": "é"}

    at_the_limit = Draft.of(fields, max_bytes=27)

    assert 27 == at_the_limit.size == len('{"type":"chat","data":"é"}'.encode())
    with pytest.raises(MessageTooLarge, match="the message is over the limit of 26 bytes"):
        Draft.of(fields, max_bytes=26)


def test_the_limit_counts_the_users() -> None:
    fields = {"type": "chat", "users": ["alice", "bob"]}
    size = Draft.of({"type": "chat"}, max_bytes=LIMIT).size + Audience.of(users=["alice", "bob"]).size

    at_the_limit = Draft.of(fields, max_bytes=size)

    assert size == at_the_limit.size
    with pytest.raises(MessageTooLarge, match="the message with its audience is over the limit"):
        Draft.of(fields, max_bytes=size - 1)


def test_a_message_addresses_at_most_1000_users() -> None:
    users = [str(number) for number in range(1_001)]

    assert 1_000 == len(Draft.of({"type": "chat", "users": users[1:]}, max_bytes=10**6).audience.keys or ())
    with pytest.raises(InvalidMessage, match="at most 1000 users, and this one 1001: publish it to everyone, or"):
        Draft.of({"type": "chat", "users": users}, max_bytes=10**6)


@pytest.mark.parametrize(
    ("unix_time", "expected"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_769_860_800.0, "2026-01-31T12:00:00.000Z"),
        (1_769_860_800.0625, "2026-01-31T12:00:00.062Z"),
    ],
)
def test_unix_time_is_written_in_utc_with_milliseconds(unix_time: float, expected: str) -> None:
    assert expected == rfc3339(unix_time)


@given(data=json_values, topics=st.lists(st.sampled_from(["a", "b.c", "users"]), unique=True))
def test_a_message_gives_back_what_was_published(data: Any, topics: list[str]) -> None:
    addressed = {"topics": topics} if topics else {}

    message = stamped({"type": "order.shipped", "data": data, "x": 1, **addressed})

    assert ("order.shipped", data, topics, []) == (message.type, message.data, message.topics, message.users)


def test_a_message_gives_back_its_users_whose_names_look_like_keys_of_topics() -> None:
    message = stamped({"type": "chat", "users": ["#bob", "@alice", "carol"], "topics": ["@alice"]})

    assert ["#bob", "@alice", "carol"] == message.users
    assert ["@alice"] == message.topics


def test_a_message_without_data_for_everyone_has_none() -> None:
    message = stamped({"type": "chat"})

    assert (None, [], []) == (message.data, message.topics, message.users)


def test_a_message_is_shown_as_clients_see_it_and_with_its_users() -> None:
    message = stamped({"type": "chat", "data": "hi", "users": ["bob", "alice"]}, number=7)

    assert repr(message) == (
        'Message({"type":"chat","sequence_number":7,"timestamp":"2026-01-31T12:00:00.000Z","data":"hi"},'
        " users=['alice', 'bob'])"
    )


@pytest.mark.parametrize("payload", [b"", b"\xff\xff", b"{" * 100_000])
def test_a_message_that_cannot_be_decoded_is_shown_in_short(payload: bytes) -> None:
    assert len(repr(Message(7, NOON, payload, Audience.of(users=map(str, range(1_000))), 0.0))) < 500


def test_messages_are_equal_whenever_they_were_appended() -> None:
    draft = Draft.of({"type": "chat"}, max_bytes=LIMIT)

    assert draft.stamp(7, timestamp=NOON, now=1.0) == draft.stamp(7, timestamp=NOON, now=2.0)


# How a message is retained


def test_a_value_is_shown_with_its_key_and_only_the_flags_that_are_true() -> None:
    fields = {"type": "cart", "topics": ["users.1"], "key": "cart", "deleted": False, "data": 1}

    assert {"topics": ["users.1"], "key": "cart", "data": 1}.items() <= stamped(fields).as_dict().items()
    assert "deleted" not in stamped(fields).as_dict()
    assert stamped({**fields, "deleted": True}).as_dict()["deleted"] is True
    assert Value("cart", append=True) == stamped({**fields, "append": True}).value
    assert ("cart", None) == (stamped(fields).key, stamped({"type": "a"}).key)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"key": ""}, "a key is a text of 1 to 200 bytes"),
        ({"key": "é" * 101}, "a key is a text of 1 to 200 bytes"),
        ({"key": 7}, "a key is a text"),
        ({"append": True}, "add one"),
        ({"deleted": True}, "add one"),
        ({"key": "k", "append": True, "deleted": True}, "leave one out"),
        ({"key": "k", "append": 1}, "append must be true or false"),
        ({"ephemeral": "yes"}, "ephemeral must be true or false"),
        ({"key": "k", "ephemeral": True}, "leave out key or ephemeral"),
    ],
)
def test_an_invalid_key_or_flag_is_refused_with_the_fix(fields: dict[str, Any], reason: str) -> None:
    assert reason in refusal_of({"type": "a", **fields})


def test_a_key_has_at_most_200_bytes_and_no_lone_surrogates() -> None:
    assert "é" * 100 == stamped({"type": "a", "key": "é" * 100}).key
    assert "surrogate" in refusal_of({"type": "a", "key": "\ud800"})


def test_an_ephemeral_message_has_no_number() -> None:
    draft = Draft.of({"type": "typing", "data": 1, "ephemeral": True}, max_bytes=LIMIT)

    assert draft.ephemeral
    assert b'{"type":"typing","timestamp":"2026-01-31T12:00:00.000Z","data":1}' == draft.unnumbered(timestamp=NOON)


def test_the_first_topic_of_a_set_is_the_same_each_time() -> None:
    topics = {f"t{number}" for number in range(20)}

    assert {"#t0"} == {stamped({"type": "a", "topics": names}).audience.first for names in (topics, frozenset(topics))}
    assert "#t7" == stamped({"type": "a", "topics": ["t7", "t0"]}).audience.first


def test_options_of_publishing_become_fields_of_the_message() -> None:
    options = PublishOptions(topics={"b", "a"}, users=None, key="k", append=False, deleted=True, idempotency_key="i")

    assert {"type": "a", "topics": ["a", "b"], "key": "k", "deleted": True} == published({"type": "a"}, options)


def test_an_unknown_option_of_publishing_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TypeError, match="choose from ephemeral, append, deleted, idempotency_key, key, topics, users"):
        published({"type": "a"}, {"topic": "a"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize("name", ["users", "topics"])
def test_one_string_in_place_of_a_list_of_recipients_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        published({"type": "a"}, {name: "alice"})  # type: ignore[misc]


def test_what_a_value_takes_in_the_index_counts() -> None:
    plain, keyed = stamped({"type": "a"}), stamped({"type": "a", "key": "k"})

    assert keyed.size_in_log - plain.size_in_log == VALUE_OVERHEAD + len(',"key":"k"')
    draft = Draft.of({"type": "a", "key": "k"}, max_bytes=LIMIT)
    assert VALUE_OVERHEAD < draft.size_in_log - draft.size
