"""Rules of retention: their patterns, their text, and which of them applies to a message."""

import pytest

from unmissed.core.audience import Audience
from unmissed.core.errors import ConfigurationError
from unmissed.core.retention import Retention, Rule, rules_from

DAY = 86_400.0


def first_of(*, topics: list[str] | None = None, users: list[str] | None = None) -> str | None:
    return Audience.of(topics=topics, users=users).first


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rooms.*=100/7d", Rule("rooms.*", 100, 7 * DAY)),
        (" @* = 200 / 36h ", Rule("@*", 200, 1.5 * DAY)),
        ("runs.1=2000/90m", Rule("runs.1", 2_000, 5_400.0)),
        ("a=b=10/1.5s", Rule("a=b", 10, 1.5)),
        ("*=10/30", Rule("*", 10, 30.0)),
    ],
)
def test_a_rule_is_read_from_its_text(text: str, rule: Rule) -> None:
    assert rule == Rule.parse(text)


@pytest.mark.parametrize("text", ["rooms.*=100/7d", "@*=200/36h", "runs.1=2000/90m", "a=b=10/1.5s", "*=10/30s"])
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    assert text == str(Rule.parse(text))


@pytest.mark.parametrize(
    "text",
    ["", "rooms.*", "rooms.*=", "rooms.*=100", "rooms.*=/7d", "=100/7d", "rooms.*=100/7w", "rooms.*=100/0s",
     "rooms.*=-1/7d", "rooms.*=9/7d", "room s=100/7d", "rooms.*.x=100/7d", "@=100/7d", "rooms.*=1e3/7d"],
)  # fmt: skip
def test_an_invalid_rule_is_refused_with_the_form_of_a_valid_one(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Rule.parse(text)


def test_the_longest_matching_pattern_decides() -> None:
    retention = Retention(rules=rules_from("*=10/1d,rooms.*=20/1d,rooms.1=30/1d,@*=40/1d"))

    found = [retention.rule_of(first_of(topics=[topic])) for topic in ("x", "rooms.2", "rooms.1", "rooms.10")]

    assert ["*", "rooms.*", "rooms.1", "rooms.*"] == [rule and rule.pattern for rule in found]


def test_the_first_topic_decides_and_comes_before_users() -> None:
    assert "#b" == first_of(topics=["b", "a"]) == first_of(topics=["b"], users=["alice"])


def test_a_rule_for_users_is_for_messages_to_one_of_them() -> None:
    retention = Retention(rules=rules_from("@*=40/1d"))

    assert retention.rules[0] == retention.rule_of(first_of(users=["alice"]))
    assert retention.rule_of(first_of(users=["alice", "bob"])) is None
    assert retention.rule_of(first_of(topics=["rooms.1"], users=["alice"])) is None
    assert retention.rule_of(first_of()) is None


def test_a_topic_is_no_user() -> None:
    """The name of a topic may begin with ``@``; its rule is that of all topics."""
    retention = Retention(rules=rules_from("@*=40/1d,*=10/1d"))

    assert "*" == getattr(retention.rule_of(first_of(topics=["@alice"])), "pattern", None)


def test_two_rules_for_one_pattern_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two rules"):
        Retention(rules=rules_from("a.*=10/1d,a.*=20/1d"))
