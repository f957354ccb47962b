"""Retention: how many messages the log keeps, and for how long, by the topic or the user that each is published to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from unmissed.core.audience import checked_grant
from unmissed.core.errors import ConfigurationError, InvalidTopic
from unmissed.core.receipts import MAX_KEYS

MIN_RULE_MESSAGES = 10
"""The fewest messages that a rule keeps for each topic. To keep only the newest one is what keys are for."""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LIMITS = re.compile(r"([0-9]+)/([0-9]+(?:\.[0-9]+)?)([smhd]?)", re.ASCII)
_FORM = 'write pattern=count/age, such as "rooms.*=100/7d", with an age in s, m, h or d'


@dataclass(frozen=True, slots=True)
class Rule:
    """Keeps the newest ``max_messages`` of *each* topic that ``pattern`` matches, for ``max_age`` seconds.

    A pattern is a topic, or a prefix with a ``*`` at its end. One that begins with ``@`` is for messages to exactly one
    user and to no topic: ``@*``, or ``@alice``. Raises ConfigurationError for invalid values.
    """

    pattern: str
    max_messages: int
    max_age: float

    def __post_init__(self) -> None:
        if self.pattern == "@":
            raise ConfigurationError("the pattern '@' names no user: write @* for messages to one user, whoever it is")
        if not self.pattern.startswith("@"):
            try:
                checked_grant(self.pattern)
            except InvalidTopic as error:
                raise ConfigurationError(f"the pattern {self.pattern!r} matches no topic: {error}") from None
        if self.max_messages < MIN_RULE_MESSAGES:
            raise ConfigurationError(
                f"the rule of {self.pattern!r} keeps at least {MIN_RULE_MESSAGES} messages, not {self.max_messages}: "
                "publish with a key if only the newest message matters"
            )
        if not 0 < self.max_age < float("inf"):
            raise ConfigurationError(f"the rule of {self.pattern!r} needs an age above 0 s: {_FORM}")

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Return the rule that a text such as ``rooms.*=100/7d`` describes. Raises ConfigurationError.

        Ages have the unit s, m, h or d; without one, they are seconds.
        """
        # From the end: names of topics may have an equals sign.
        pattern, _, limits = text.strip().rpartition("=")
        found = _LIMITS.fullmatch(limits.replace(" ", ""))
        if not pattern or not found:
            raise ConfigurationError(f"{text.strip()!r} is no rule of retention: {_FORM}")
        count, age, unit = found.groups()
        return cls(pattern.strip(), int(count), float(age) * _UNITS[unit or "s"])

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        for unit in ("d", "h", "m"):
            if self.max_age % _UNITS[unit] == 0:
                return f"{self.pattern}={self.max_messages}/{self.max_age // _UNITS[unit]:.0f}{unit}"
        return f"{self.pattern}={self.max_messages}/{self.max_age:g}s"

    @property
    def key_pattern(self) -> str:
        """The pattern for keys of audiences, which begin with ``#`` for topics and ``@`` for users."""
        return self.pattern if self.pattern.startswith("@") else f"#{self.pattern}"

    @property
    def precision(self) -> tuple[int, bool]:
        """Orders the rules that match the same topic: the longest prefix is the highest, and a whole name above it."""
        return len(self.pattern.removesuffix("*")), not self.pattern.endswith("*")

    def matches(self, key: str) -> bool:
        """Return whether the rule applies to messages whose audience has this key as its first."""
        pattern = self.key_pattern
        return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: the newest ``max_messages``, each younger than ``max_age`` seconds; other amounts by ``rules``.

    The first topic of a message decides which rule applies, and of several the one with the longest pattern. The limits
    above are for messages without a rule, and ``max_bytes`` for all messages together. Idempotency keys are known for
    ``max_age`` seconds, at most ``max_keys`` of them; ``has_room`` defines the share of each publisher.
    """

    max_messages: int = 500
    max_age: float = 900.0
    max_bytes: int = 33_554_432
    max_keys: int = MAX_KEYS
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        patterns = [rule.pattern for rule in self.rules]
        if twice := {pattern for pattern in patterns if patterns.count(pattern) > 1}:
            raise ConfigurationError(f"{min(twice)!r} has two rules of retention: keep one")

    def rule_of(self, first: str | None) -> Rule | None:
        """Return the rule for messages whose audience has this first key, or None for the limits of all others."""
        if first is None or not self.rules:
            return None
        matching = (rule for rule in self.rules if rule.matches(first))
        return max(matching, key=lambda rule: rule.precision, default=None)


def rules_from(values: str | Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that a text with commas, or texts of one rule each, describe. Raises ConfigurationError."""
    texts = values.split(",") if isinstance(values, str) else values
    return tuple(Rule.parse(text) for text in texts if text.strip())
