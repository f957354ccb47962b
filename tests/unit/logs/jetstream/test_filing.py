"""Where the server keeps a message beyond the tail."""

from typing import Any

import pytest

from unmissed.core.messages import Draft
from unmissed.core.retention import Rule
from unmissed.logs.jetstream.filing import Filing, digest, rule_part, source

ROOMS, ROOM_ONE, USERS = Rule("rooms.*", 100, 3_600.0), Rule("rooms.1", 20, 60.0), Rule("@*", 50, 3_600.0)
FILING = Filing([ROOMS, ROOM_ONE, USERS])


def filed(filing: Filing = FILING, **fields: Any) -> list[str]:
    return filing.parts(Draft.of({"type": "chat", **fields}, max_bytes=1_000)).split(".")


def test_without_rules_only_values_are_filed() -> None:
    plain, value = filed(Filing([]), topics=["rooms.2"]), filed(Filing([]), topics=["rooms.2"], key="cart")

    assert ["-"] * 5 == plain
    assert ["-", "-", "v", value[3], "-"] == value


@pytest.mark.parametrize(
    ("fields", "rule", "first"),
    [
        ({"topics": ["rooms.2"]}, ROOMS, "#rooms.2"),
        ({"topics": ["rooms.1"]}, ROOM_ONE, "#rooms.1"),
        ({"users": ["alice"]}, USERS, "@alice"),
        ({"topics": ["rooms.2", "lobby"]}, ROOMS, "#rooms.2"),
    ],
)
def test_the_first_topic_decides_about_the_rule_and_the_bucket(fields: dict[str, Any], rule: Rule, first: str) -> None:
    assert [rule_part(rule), digest(first), "-", "-"] == filed(**fields)[:4]


def test_a_value_is_in_no_bucket_and_its_pieces_and_its_tombstone_are() -> None:
    text: dict[str, Any] = {"topics": ["rooms.2"], "key": "text"}
    value, piece, tombstone = filed(**text), filed(**text, append=True), filed(**text, deleted=True)

    assert ["-", "-", "v"] == value[:3]
    assert [rule_part(ROOMS), digest("#rooms.2"), "p"] == piece[:3]
    assert [rule_part(ROOMS), digest("#rooms.2"), "v"] == tombstone[:3]
    assert 1 == len({value[3], piece[3], tombstone[3]})


def test_a_value_is_identified_by_its_key_and_its_whole_audience() -> None:
    audiences: list[dict[str, Any]] = [
        {},
        {"topics": ["a"]},
        {"topics": ["b"]},
        {"users": ["a"]},
        {"topics": ["a"], "users": ["a"]},
    ]

    identities = [filed(key=key, **audience)[3] for audience in audiences for key in ("cart", "name")]

    assert 10 == len({*identities})
    assert filed(key="cart", topics=["a", "b"])[3] == filed(key="cart", topics=["b", "a"])[3]


@pytest.mark.parametrize(
    ("fields", "mark"),
    [
        ({}, "b"),
        ({"key": "banner"}, "-"),
        ({"topics": ["lobby"]}, "o"),
        ({"topics": ["rooms.2"]}, "-"),
        ({"topics": ["rooms.2", "lobby"]}, "o"),
        ({"topics": ["lobby", "rooms.2"]}, "x"),
        ({"topics": ["rooms.2", "rooms.3"]}, "x"),
        ({"topics": ["lobby"], "users": ["alice"]}, "x"),
        ({"users": ["alice", "bob"]}, "x"),
        ({"topics": ["lobby", "rooms.2"], "key": "cart"}, "-"),
        ({"topics": ["lobby", "rooms.2"], "key": "cart", "append": True}, "x"),
    ],
)
def test_what_may_be_lost_for_keys_that_do_not_decide_is_marked(fields: dict[str, Any], mark: str) -> None:
    assert mark == filed(**fields)[4]


def test_rules_are_the_same_in_any_order_and_after_they_were_read() -> None:
    assert FILING.name == Filing([USERS, ROOM_ONE, ROOMS]).name == Filing.of(FILING.text).name
    assert FILING.name != Filing([USERS, ROOM_ONE, Rule("rooms.*", 101, 3_600.0)]).name
    assert (ROOMS, USERS) == Filing.of(Filing([USERS, ROOMS]).text).rules[::-1]


def test_a_source_takes_the_messages_with_some_parts_and_names_the_others() -> None:
    assert {
        "src": "shop.*.*.*.*.r.*.*.*.*",
        "dest": "{{wildcard(1)}}.{{wildcard(5)}}",
    } == source("shop", "{epoch}.{bucket}", rule="r")
