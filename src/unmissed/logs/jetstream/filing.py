"""Where the server keeps a message beyond the tail: it finds that in the last parts of the subject."""

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from unmissed.core.audience import Audience
from unmissed.core.messages import Draft, Value
from unmissed.core.retention import Retention, Rule

_DIGEST_CHARACTERS = 22
_NOT_FILED = "-.-.-.-.-"

PARTS = ("epoch", "publish", "offset", "filing", "rule", "bucket", "kind", "identity", "mark")
"""The parts of a subject after the name of the stream. ``-`` stands for nothing."""

VALUE, PIECE = "v", "p"
"""Kinds of messages with a key: a value or its tombstone, and a piece that is added to a value."""

BROADCAST, MIXED, OTHER = "b", "x", "o"
"""Marks of messages that are not values: to everyone; for a key with a rule although another key decides; and for a key
without a rule.
"""


class Filing:
    """Files messages by the rules of the stream: all nodes file alike, also while some have other rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.pattern))
        self._retention = Retention(rules=self.rules)
        self.name = digest(self.text) if self.rules else "-"
        """Names the rules in subjects: the server refuses what is filed by others."""

    @classmethod
    def of(cls, text: str) -> "Filing":
        """Read what ``text`` returns."""
        return cls(map(Rule.parse, json.loads(text)))

    @property
    def text(self) -> str:
        """The rules as text, for the metadata of a stream."""
        return json.dumps([str(rule) for rule in self.rules])

    def parts(self, draft: Draft) -> str:
        """Return the last parts of the subject of a message."""
        value, audience = draft.value, draft.audience
        if value is None and not self.rules:
            return _NOT_FILED
        is_kept = value is not None and not value.append and not value.deleted
        rule = self._retention.rule_of(audience.first)
        bucket = f"{rule_part(rule)}.{digest(audience.first or '')}" if rule is not None and not is_kept else "-.-"
        kind = "-.-" if value is None else f"{PIECE if value.append else VALUE}.{_identity(audience, value)}"
        return f"{bucket}.{kind}.{'-' if is_kept else self._mark(audience)}"

    def other_ruled(self, audience: Audience) -> list[str]:
        """Return the keys that have a rule, although another key decides about the message."""
        keys = audience.keys or ()
        return [key for key in keys if key != audience.first and self._retention.rule_of(key) is not None]

    def has_unruled(self, audience: Audience) -> bool:
        """Return whether a message is for a key that no rule is about."""
        return any(self._retention.rule_of(key) is None for key in audience.keys or ())

    def _mark(self, audience: Audience) -> str:
        if not self.rules:
            return "-"
        if audience.keys is None:
            return BROADCAST
        if self.other_ruled(audience):
            return MIXED
        return OTHER if self.has_unruled(audience) else "-"


def rule_part(rule: Rule) -> str:
    """Return the part of subjects, and of the name of a stream, that stands for a rule."""
    return digest(rule.key_pattern)[:12]


def digest(text: str) -> str:
    """Return letters and digits that stand for a text."""
    return sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def source(name: str, dest: str, **only: str) -> dict[str, Any]:
    """Return a transform of subjects: the messages whose parts have these texts go to ``dest``.

    ``dest`` may have the names of other parts in braces.
    """
    src = ".".join((name, *(only.get(part, "*") for part in PARTS)))
    free = [part for part in PARTS if part not in only]
    wildcards = {part: f"{{{{wildcard({index})}}}}" for index, part in enumerate(free, start=1)}
    return {"src": src, "dest": dest.format(**wildcards)}


def _identity(audience: Audience, value: Value) -> str:
    """Return what identifies a value: its audience and its key."""
    keys = None if audience.keys is None else sorted(audience.keys)
    return digest(json.dumps([keys, value.key]))
