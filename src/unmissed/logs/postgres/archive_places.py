"""Where messages go when they leave the tail of a log in PostgreSQL, which the first lines of their drafts decide."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from unmissed.core.audience import Audience
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.messages import Value
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_head

logger = logging.getLogger("unmissed")

EVERYONE_LOST, OTHERS_LOST, ANY_LOST = "", "*", "?"
"""The rows of what is lost that are no keys of an audience, which are in quotes there."""

_DIGEST_BYTES = 16
_MOST_REMEMBERED = 5_000
_MOST_REMEMBERED_BYTES = 250


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where messages with the same first line go. Without a ``bucket``, they are lost for ``who``.

    ``kind`` is "v" for a whole value, "a" for a piece, "d" for the end of a value, and "m" for a message without a key.
    ``identity`` stands for the audience and the key of a value.
    """

    kind: str = "m"
    identity: bytes | None = None
    pattern: str = ""
    bucket: str | None = None
    max_messages: int = 0
    """How many messages that are no whole values the bucket keeps."""
    who: tuple[str, ...] = ()
    has_ruled: bool = False
    """Whether a rule is about one of the keys in ``who``."""

    @property
    def replaces(self) -> bool:
        """Whether such a message replaces earlier ones with the same identity."""
        return self.kind in ("v", "d")

    @property
    def is_plain(self) -> bool:
        """Whether no rule and no key is about such a message."""
        return self.kind == "m" and not self.pattern


class ArchivePlaces:
    """The places by the first line of a draft, and the losses that follow from them."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._known: dict[bytes, ArchivePlace] = {}

    def of(self, head: bytes | None, *, number: int) -> ArchivePlace:
        """Return where a message with this number and this first line goes. Without one, it is damaged."""
        if head is None:
            return _damaged(number, "it has no lines")
        place = self._known.get(head)
        if place is None:
            try:
                place = self._decided(*decode_head(head))
            except ValueError as error:
                return _damaged(number, error)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            if len(head) <= _MOST_REMEMBERED_BYTES:
                self._known[head] = place
        return place

    def losses(
        self, newest: Iterable[tuple[int, ArchivePlace]], *, most_others: int, most_ruled: int
    ) -> dict[str, int]:
        """Return for whom messages are lost through which number, given the newest of each place, in descending order.

        Of keys without a rule, only about ``most_others`` are returned, and one number for the others. Of those that
        rules are about, it is ``most_ruled``, and the number for the others then counts for every client.
        """
        lost: dict[str, int] = {}
        replaced: dict[bytes, int] = {}
        for number, place in newest:
            if place.identity is not None and place.replaces:
                replaced.setdefault(place.identity, number)
            # Before what is lost of the value, since numbers descend.
            if place.bucket is not None or (place.identity is not None and number < replaced.get(place.identity, 0)):
                continue
            room, instead = (most_ruled, ANY_LOST) if place.has_ruled else (most_others, OTHERS_LOST)
            fits = len(lost) + len(place.who) <= room or place.who[:1] in ((EVERYONE_LOST,), (ANY_LOST,))
            for who in place.who if fits else (instead,):
                lost.setdefault(who, number)
        return lost

    def forgotten(self, marks: Mapping[str, int], *, most: int) -> tuple[dict[str, int], dict[str, int]]:
        """Return marks to forget, and those to count instead, so that ``most`` keys of either kind are left."""
        gone: dict[str, int] = {}
        instead: dict[str, int] = {}
        for is_ruled, name in ((False, OTHERS_LOST), (True, ANY_LOST)):
            known = {who: number for who, number in marks.items() if len(who) > 1 and is_ruled is self._is_ruled(who)}
            lowest = sorted(known, key=known.__getitem__, reverse=True)[most:]
            through = max([marks.get(name, 0), *(known[who] for who in lowest[:1])])
            if lowest:
                instead[name] = through
            gone |= {who: number for who, number in known.items() if number <= through}
        return gone, instead

    def in_window(self, place: ArchivePlace) -> ArchivePlace:
        """Return where messages of a place without a rule go while windows still retain them."""
        if place.bucket is not None or place.who == (ANY_LOST,):
            return place
        return ArchivePlace(place.kind, place.identity, bucket="", max_messages=self._retention.max_messages)

    def _is_ruled(self, who: str) -> bool:
        return self._retention.rule_of(decode_json(who)) is not None

    def _decided(self, audience: Audience, value: Value | None) -> ArchivePlace:
        rule = self._retention.rule_of(audience.first)
        identity = None if value is None else _identity(audience, value)
        kind = "m" if value is None else "a" if value.append else "d" if value.deleted else "v"
        if rule is not None:
            bucket = encode_json(audience.first).decode()
            return ArchivePlace(kind, identity, rule.key_pattern, bucket, rule.max_messages)
        if kind == "v":
            return ArchivePlace(kind, identity, bucket="")
        keys = audience.keys
        who = (EVERYONE_LOST,) if keys is None else tuple(encode_json(key).decode() for key in keys)
        has_ruled = any(self._retention.rule_of(key) is not None for key in keys or ())
        return ArchivePlace(kind, identity, who=who, has_ruled=has_ruled)


def rules_text(retention: Retention) -> str:
    """Return the patterns of the rules: they decide which keys have a rule."""
    return " ".join(sorted(rule.key_pattern for rule in retention.rules))


def _identity(audience: Audience, value: Value) -> bytes:
    keys = None if audience.keys is None else sorted(audience.keys)
    return blake2b(encode_json([keys, value.key]), digest_size=_DIGEST_BYTES).digest()


def _damaged(number: int, reason: object) -> ArchivePlace:
    logger.warning("message %d is damaged, and counts as lost for every client: %s", number, reason)
    return ArchivePlace(who=(ANY_LOST,))
