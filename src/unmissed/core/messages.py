"""Drafts and messages: a message is checked and encoded once, then stamped with its number and time."""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypedDict

from unmissed.core import fact
from unmissed.core.audience import EVERYONE, MAX_TOPICS, MAX_USERS, Audience, checked_topic
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.errors import InvalidMessage, InvalidTopic, MessageTooLarge, one_string
from unmissed.core.server_frames import RESERVED_TYPES

STAMP_BYTES = 80
"""Size of ``,"sequence_number":9007199254740991,"timestamp":"2026-01-31T12:00:00.000Z"``, rounded up."""

MESSAGE_OVERHEAD = 272
"""Bytes that a retained message takes besides its payload: tracemalloc counts up to 264 on CPython 3.11."""

VALUE_OVERHEAD = 400
"""Bytes that a message with a key takes in addition, for the index of values."""

_RETENTION_KEYS = frozenset({"key", "append", "deleted", "ephemeral"})

STAMPED_KEYS = ("sequence_number", "timestamp")
"""Keys that the server assigns; publishers may not use them."""

MAX_KEY_BYTES = 200
"""The longest ``key`` of a value in bytes of UTF-8."""


_MOST_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Value:
    """What a message says about the value of a key, which is one for each audience.

    The message is the value and replaces the earlier one; or, with ``append``, it adds a piece to it; or, with
    ``deleted``, there is no value from then on.
    """

    key: str
    append: bool = False
    deleted: bool = False

    @property
    def is_full(self) -> bool:
        """Whether the message is the whole value, which is retained until it is replaced, deleted or too old."""
        return not self.append and not self.deleted


@fact
class Message:
    """A stamped message. ``payload`` is the JSON that every client receives, live or recovered.

    A log holds many of them, so they hold nothing twice: ``type``, ``data``, ``topics`` and ``users`` are decoded anew
    each time.
    """

    sequence_number: int
    timestamp: str
    """RFC 3339, UTC, with milliseconds."""
    payload: bytes
    audience: Audience
    appended_at: float = field(compare=False)
    """Time of the append in seconds, on the log's monotonic clock."""
    value: Value | None = None
    """What it says about the value of a key; None for a message without ``key``."""

    def __repr__(self) -> str:
        # Also of a payload that cannot be decoded: what a failed test shows must not fail.
        shown = self.payload[:_MOST_SHOWN].decode(errors="replace")
        rest = "..." if len(self.payload) > _MOST_SHOWN else ""
        users = f", users={reprlib.repr(self.users)}" if self.users else ""
        return f"Message({shown}{rest}{users})"

    @property
    def type(self) -> str:
        """What the publisher gave as ``type``, such as ``order.shipped``."""
        message_type: str = self.as_dict()["type"]
        return message_type

    @property
    def data(self) -> Any:
        """What the publisher gave as ``data``, as JSON values; None also if it gave none."""
        return self.as_dict().get("data")

    @property
    def topics(self) -> list[str]:
        """The topics that the message was published to, in the publisher's order; empty if to none."""
        topics: list[str] = self.as_dict().get("topics", [])
        return topics

    @property
    def users(self) -> list[str]:
        """The users that the message was published to, in alphabetical order; empty if to none.

        Clients never see them. Without users and topics, a message is for everyone.
        """
        return self.audience.users

    @property
    def key(self) -> str | None:
        """The key whose value this message is, changes or deletes; None if it has none."""
        return None if self.value is None else self.value.key

    @property
    def size_in_log(self) -> int:
        """Bytes that the message takes in the log."""
        size = len(self.payload) + self.audience.size_in_log + MESSAGE_OVERHEAD
        return size if self.value is None else size + VALUE_OVERHEAD

    def as_dict(self) -> dict[str, Any]:
        """Return the message as clients see it: with ``topics``, and without ``users``."""
        message: dict[str, Any] = decode_json(self.payload)
        return message


@fact
class Draft:
    """A message from a publisher, validated and encoded. It has no number yet.

    ``head`` and ``tail`` are the JSON around the stamp, such as ``{"type":"chat"`` and ``,"data":1}``. Stamping cannot
    fail and encodes nothing twice.
    """

    head: bytes
    tail: bytes
    audience: Audience
    trace: bytes = b""
    """The JSON of a ``traceparent`` that the server adds, after a comma. It differs when the publish is repeated."""
    value: Value | None = None
    ephemeral: bool = False
    """Whether the message is delivered now or never: it gets no number, and no log stores it."""

    @classmethod
    def of(cls, fields: Mapping[str, Any], *, max_bytes: int, traceparent: str | None = None) -> "Draft":
        """Check and encode ``{"type": str, "data"?: any, "users"?: [str], "topics"?: [str], "key"?: str, ...}``.

        ``append`` and ``deleted`` say what the message does to the value of its key, and ``ephemeral`` that it is not
        stored. Other keys are kept unchanged. Clients see the topics, and not the users. ``traceparent`` is added
        unless the publisher has given one. Raises InvalidMessage, or MessageTooLarge over ``max_bytes`` of JSON and
        audience.
        """
        rest = _checked(fields)
        message_type = rest.pop("type")
        users, topics = _checked_users(rest.pop("users", None)), _checked_topics(rest.pop("topics", None))
        value, ephemeral = (None, False) if _RETENTION_KEYS.isdisjoint(rest) else _checked_retention(rest)
        if value is not None:
            rest = {**_shown(value), **rest}
        if topics is not None:
            rest = {"topics": topics, **rest}
        if "data" in rest:
            rest = {"data": rest.pop("data"), **rest}
        try:
            type_json, rest_json = encode_json(message_type), encode_json(rest)
            audience = EVERYONE if users is None and topics is None else Audience.of(users=users, topics=topics)
        except ValueError as error:
            raise InvalidMessage(f"the message cannot be sent as JSON: {error}") from None
        # The type comes first, and the stamp right after it: there, a client finds the number of a message that it
        # cannot decode.
        trace = b"" if traceparent is None or "traceparent" in rest else b',"traceparent":' + encode_json(traceparent)
        tail = b"," + rest_json[1:] if rest else b"}"
        draft = cls(b'{"type":' + type_json, tail, audience, trace, value, ephemeral)
        if draft.size > max_bytes:
            raise MessageTooLarge("the message with its audience" if audience.size else "the message", limit=max_bytes)
        return draft

    @property
    def size(self) -> int:
        """Bytes of the JSON, without the stamp, and of the names that it is addressed to."""
        return len(self.head) + len(self.tail) + self.audience.size

    @property
    def size_in_log(self) -> int:
        """Upper bound of the bytes that the message takes in the log."""
        return (
            len(self.head)
            + len(self.trace)
            + len(self.tail)
            + STAMP_BYTES
            + MESSAGE_OVERHEAD
            + self.audience.size_in_log
            + (0 if self.value is None else VALUE_OVERHEAD)
        )

    def stamp(self, sequence_number: int, *, timestamp: str, now: float) -> Message:
        """Return the message with this number, appended at ``now`` (monotonic seconds)."""
        payload = b'%b,"sequence_number":%d,"timestamp":"%b"%b%b' % (
            self.head,
            sequence_number,
            timestamp.encode(),
            self.trace,
            self.tail,
        )
        return Message(sequence_number, timestamp, payload, self.audience, now, self.value)

    def unnumbered(self, *, timestamp: str) -> bytes:
        """Return the JSON of an ephemeral message, which has no number."""
        return b'%b,"timestamp":"%b"%b%b' % (self.head, timestamp.encode(), self.trace, self.tail)


class Recipients(TypedDict, total=False):
    """Whom a message is for: without both, for everyone."""

    users: Iterable[str] | None
    topics: Iterable[str] | None
    """The first topic decides how long the message is retained."""


class TransactionOptions(Recipients, total=False):
    """How a message is published in a transaction. What is left out may be in the message itself."""

    key: str | None
    """The message is the value of this key, and replaces the earlier one with the same recipients."""
    append: bool
    """The message adds a piece to the value instead."""
    deleted: bool
    """The value ends with this message instead."""


class PublishOptions(TransactionOptions, total=False):
    """How a message is published. What is left out may be in the message itself, except the idempotency key."""

    idempotency_key: str | None
    """Repeating it with the same message publishes nothing, and returns the first message."""


def published(message: Mapping[str, Any], options: TransactionOptions) -> Mapping[str, Any]:
    """Return the message with its recipients and key.

    Raises InvalidMessage for one string in place of a list, and TypeError for an unknown option.
    """
    for name, value in options.items():
        if name not in PublishOptions.__annotations__:
            known = ", ".join(sorted(PublishOptions.__annotations__))
            raise TypeError(f"{name!r} is no option of publishing: choose from ephemeral, {known}")
        if name == "idempotency_key" or value is None or value is False:
            continue
        message = {**message, name: _listed(name, value) if name in Recipients.__annotations__ else value}
    return message


def _listed(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        raise InvalidMessage(one_string(name, value))
    return sorted(value) if isinstance(value, set | frozenset) else list(value)


def rfc3339(unix_time: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, such as ``2026-01-31T12:00:00.000Z``."""
    seconds, milliseconds = divmod(round(unix_time * 1_000_000) // 1_000, 1_000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=16)
def _second(unix_time: int) -> str:
    return datetime.fromtimestamp(unix_time, UTC).isoformat()[:19]


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise InvalidMessage('a message is an object such as {"type": "chat", "data": {"text": "hello"}}')
    if not all(isinstance(key, str) for key in fields):
        raise InvalidMessage("the keys of a message must be strings")
    message_type = fields.get("type")
    if not isinstance(message_type, str) or not message_type:
        raise InvalidMessage('type must be a non-empty string such as "chat"')
    if message_type in RESERVED_TYPES:
        raise InvalidMessage(f"the type {message_type!r} is reserved for the protocol: choose another name")
    for key in STAMPED_KEYS:
        if key in fields:
            raise InvalidMessage(f"{key} is assigned by the server: leave it out, or keep your own inside data")
    return dict(fields)


def _checked_users(users: object) -> list[str] | None:
    if users is None:
        return None
    if not isinstance(users, list | tuple | set | frozenset) or not users:
        raise InvalidMessage("users must be a list of at least one user id: leave it out to publish to everyone")
    if len(users) > MAX_USERS:
        raise InvalidMessage(
            f"a message addresses at most {MAX_USERS} users, and this one {len(users)}: "
            "publish it to everyone, or publish several messages"
        )
    if not all(isinstance(user, str) and user for user in users):
        raise InvalidMessage("users must contain user ids, which are non-empty strings")
    return list(users)


def _checked_topics(topics: object) -> list[str] | None:
    """Return the topics in their order, each once."""
    if topics is None:
        return None
    if not isinstance(topics, list | tuple | set | frozenset) or not topics:
        raise InvalidMessage("topics must be a list of at least one topic: leave it out to publish to everyone")
    if len(topics) > MAX_TOPICS:
        raise InvalidMessage(
            f"a message addresses at most {MAX_TOPICS} topics, and this one {len(topics)}: publish several messages"
        )
    try:
        names = list(dict.fromkeys(map(checked_topic, topics)))
    except InvalidTopic as error:
        raise InvalidMessage(str(error)) from None
    # The first topic decides about the retention of the message, and a set has no first.
    return sorted(names) if isinstance(topics, set | frozenset) else names


def _checked_retention(rest: dict[str, Any]) -> tuple[Value | None, bool]:
    """Take the fields out of a message that say how it is retained: its value, and whether it is ephemeral."""
    ephemeral, value = _flag(rest, "ephemeral"), _checked_value(rest)
    if ephemeral and value is not None:
        raise InvalidMessage("an ephemeral message is not stored, so it has no key: leave out key or ephemeral")
    return value, ephemeral


def _checked_value(rest: dict[str, Any]) -> Value | None:
    """Take ``key``, ``append`` and ``deleted`` out of the fields of a message."""
    key, append, deleted = rest.pop("key", None), _flag(rest, "append"), _flag(rest, "deleted")
    if key is None:
        if append or deleted:
            raise InvalidMessage('append and deleted are about the value of a key: add one, such as "key": "cart"')
        return None
    if not isinstance(key, str) or not 0 < len(key.encode(errors="replace")) <= MAX_KEY_BYTES:
        raise InvalidMessage(f'a key is a text of 1 to {MAX_KEY_BYTES} bytes, such as "cart": put others into data')
    if append and deleted:
        raise InvalidMessage("a message with deleted removes the value, and append adds to it: leave one out")
    return Value(key, append, deleted)


def _flag(rest: dict[str, Any], name: str) -> bool:
    given = rest.pop(name, False)
    if not isinstance(given, bool):
        raise InvalidMessage(f"{name} must be true or false: keep your own {name} inside data")
    return given


def _shown(value: Value) -> dict[str, Any]:
    """Return the fields that clients see of a value; flags only if they are true."""
    return {"key": value.key} | {name: True for name in ("append", "deleted") if getattr(value, name)}
