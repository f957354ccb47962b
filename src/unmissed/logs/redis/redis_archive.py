"""What Redis keeps beyond the stream, for rules and keys: how a message is passed to the script, and how it is read."""

import asyncio
import logging
import math
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

from redis.asyncio import Redis

from unmissed.core.encoding import encode_json
from unmissed.core.messages import Draft, Value
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_ms
from unmissed.logs.engine import Archive
from unmissed.logs.feed import Record

logger = logging.getLogger("unmissed")

_DIGEST_BYTES = 15
_BROADCASTS = b"broadcast", b"earlier", b"segment"
_OTHERS = b"other", b"other_earlier", b"other_segment"
"""What is known of the last message to everyone, and to a key that no rule is about."""

_LISTS, _VALUES = 16, 200
"""How many are read in one request."""

_BREATH = 200
"""Messages that are decoded in one step."""

Argument = str | bytes | int

_WITHOUT_RULE = "*"

_Item = TypeVar("_Item")


def arguments_of(draft: Draft, retention: Retention) -> list[Argument]:
    """Return what the script needs to archive a message, as script.lua describes it."""
    audience, value = draft.audience, draft.value
    if value is None and not retention.rules:
        return ["*" if audience.keys is None else ""]
    rule = retention.rule_of(audience.first)
    others = _other_keys(draft, retention)
    if value is None and rule is None and not any(key != _WITHOUT_RULE for key in others):
        return ["*" if audience.keys is None else ""]
    first = audience.keys_in_order[0] if audience.keys else ""
    limits = ("", 0, retention.max_age) if rule is None else (rule.key_pattern, rule.max_messages, rule.max_age)
    pattern, count, age = limits
    digest = "" if value is None else _digest(audience.keys, value.key)
    return [_kind(value), first, pattern, count, round(age * 1000), digest, len(others), *others]


def rules_text(retention: Retention) -> str:
    """Return the patterns of the rules: if others are added, earlier messages were kept by other rules."""
    return " ".join(sorted(rule.key_pattern for rule in retention.rules))


def _other_keys(draft: Draft, retention: Retention) -> list[str]:
    """Return the keys that have a rule, although another key decides, and a ``*`` if messages for others may be lost.

    What the archive loses of a value without a rule counts for its first key.
    """
    audience, value = draft.audience, draft.value
    keys = audience.keys_in_order
    ruled = [key for key in keys if retention.rule_of(key) is not None]
    kept = keys[:1] if value is not None and value.is_full else []
    others = [_WITHOUT_RULE] if any(key not in ruled and key not in kept for key in keys) else []
    return [*(key for key in ruled if key != audience.first), *others]


def _kind(value: Value | None) -> str:
    if value is None:
        return "m"
    if value.append:
        return "a"
    return "d" if value.deleted else "v"


def _digest(keys: frozenset[str] | None, key: str) -> str:
    """Return what identifies a value: its audience and its key."""
    identity = encode_json([None if keys is None else sorted(keys), key])
    return urlsafe_b64encode(blake2b(identity, digest_size=_DIGEST_BYTES).digest()).decode()


@dataclass(slots=True)
class _Found:
    """What is read so far. ``before`` is the lowest number of the tail: what is above it comes from there."""

    before: int
    records: dict[int, Record] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    partial: set[int] = field(default_factory=set)
    """Values of which a piece is lost."""
    unknown: int = 0

    def add(self, entry: bytes, *, is_value: bool = False) -> int:
        """Add a message, and return its number. One that cannot be read may be lost for every client."""
        number, log_ms, unix_ms, text = entry.split(b" ", 3)
        if int(number) < self.before:
            try:
                if is_value:
                    size, _, text = text.partition(b" ")
                    text = text[int(size) :]
                record = Record(int(number), decode_ms(unix_ms), decode_ms(log_ms), decode_draft(text))
                self.records[record.number] = record
            except ValueError:
                self.unknown = max(self.unknown, int(number))
                logger.warning("message %d in the archive cannot be read: skipped", int(number))
        return int(number)

    def lose(self, key: str, number: int) -> None:
        """Messages for this key may be lost through a number. What the tail has is not."""
        self.lost[key] = max(self.lost.get(key, 0), min(number, self.before - 1))


class ArchiveReader:
    """Reads the archive of one epoch in ``redis``. ``prefix`` begins its keys."""

    def __init__(self, redis: Redis, *, prefix: str, epoch: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._mark = f"e{epoch}".encode()
        self._epoch = epoch

    async def read(self, retention: Retention, *, before: int) -> Archive:
        """Return what is retained below a number. Nodes may publish at the same time."""
        found = _Found(before)
        fields: Any = await self._redis.hkeys(f"{self._prefix}:shelves")
        shelves: list[bytes] = [name[1:] for name in fields if name[:1] == b"s"]
        for shelf in shelves:
            await self._read_shelf(shelf, found)
        # After the messages: what was removed in between is reported as lost.
        async for key, number in self._scored(f"{self._prefix}:lost"):
            found.lose(key.decode(), number)
        life = await self._life()
        if life[b"epoch"].decode() != self._epoch or not await self._is_whole(shelves):
            return Archive(unknown=before - 1)
        if life.get(b"rules", b"").decode() != rules_text(retention):
            found.unknown = before - 1
        first = int(life[b"first"])  # A part that was lost and found again may have messages of an earlier epoch.
        return Archive(
            [found.records[number] for number in sorted(found.records) if number >= first],
            found.lost,
            everyone=min(before - 1, max(_last_below(before, life, _BROADCASTS), int(life.get(b"gone", 0)))),
            others=min(before - 1, _last_below(before, life, _OTHERS)),
            unknown=min(before - 1, max(found.unknown, int(life.get(b"unknown", 0)))),
            partial=frozenset(found.partial),
        )

    async def _read_shelf(self, shelf: bytes, found: _Found) -> None:
        buckets: list[tuple[bytes, int]] = []
        values: list[tuple[bytes, int]] = []
        async for member, number in self._scored(b"%b:shelf:%b" % (self._prefix.encode(), shelf)):
            if member[:1] == b"b":
                buckets.append((member[1:], number))
            elif member[:1] == b"v":
                values.append((member[1:], number))
        for some in _parts(buckets, _LISTS):
            await self._read_buckets(some, found)
        for some in _parts(values, _VALUES):
            await self._read_values([digest for digest, _ in some], found)

    async def _read_buckets(self, buckets: Sequence[tuple[bytes, int]], found: _Found) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, _ in buckets:
            pipeline.lrange(b"%b:bucket:%b" % (self._prefix.encode(), key), 0, -1)
        for (key, newest), entries in zip(buckets, await pipeline.execute(), strict=True):
            last = 0
            for some in _parts(entries, _BREATH):
                last = max(map(found.add, some))
                await asyncio.sleep(0)
            # The list has expired, or was removed, at least in part.
            if last < newest:
                found.lose(key.decode(), newest)

    async def _read_values(self, digests: Sequence[bytes], found: _Found) -> None:
        entries: Any = await self._redis.hmget(f"{self._prefix}:values", digests)
        pieces: Any = await self._redis.hmget(f"{self._prefix}:pieces", digests)
        for entry, piece in zip(entries, pieces, strict=True):
            if entry is None:
                continue  # It was replaced or removed since.
            number = found.add(entry, is_value=True)
            first_piece = int(piece.split()[0]) if piece else found.before
            # Buckets are read first.
            if number < first_piece < found.before and first_piece not in found.records:
                found.partial.add(number)
        await asyncio.sleep(0)

    async def _scored(self, name: str | bytes) -> AsyncIterator[tuple[bytes, int]]:
        """Yield the members of a sorted set with their numbers."""
        async for member, score in self._redis.zscan_iter(name, count=_VALUES):
            if score != math.inf:  # Not a mark.
                yield member, int(score)

    async def _life(self) -> dict[bytes, bytes]:
        life: Any = await self._redis.hgetall(f"{self._prefix}:life")
        return {b"epoch": b"", **life}

    async def _is_whole(self, shelves: Iterable[bytes]) -> bool:
        """Return whether all parts have the mark of this epoch."""
        pipeline = self._redis.pipeline(transaction=False)
        prefix = self._prefix.encode()
        for name in (b"values", b"pieces", b"shelves"):
            pipeline.hexists(b"%b:%b" % (prefix, name), self._mark)
        for name in (b"lost", *(b"shelf:%b" % shelf for shelf in shelves)):
            pipeline.zscore(b"%b:%b" % (prefix, name), self._mark)
        marks: list[Any] = await pipeline.execute()
        return all(marks)


def _last_below(before: int, life: dict[bytes, bytes], names: Iterable[bytes]) -> int:
    """Return the number of the last of these messages below the tail, or a higher one if that is not known."""
    newest, earlier, segment = (int(life.get(name, 0)) for name in names)
    if newest < before:
        return newest
    return earlier if segment >= before > earlier else before - 1


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
