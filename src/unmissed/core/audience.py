"""Users and topics, the audience of a message, and the one function that decides who sees what."""

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from unmissed.core import fact
from unmissed.core.encoding import encode_text
from unmissed.core.errors import ConfigurationError, InvalidTopic, ScopeRequired, TopicRefused, one_string

MAX_TOPICS = 1_000
"""The most topics that one message addresses, and that one connection follows."""

MAX_TOPICS_BYTES = 65_536
"""The most bytes of the names of all topics that one connection follows."""

MAX_TOPIC_BYTES = 200

_TOPIC = rf"[A-Za-z0-9._:/@+=-]{{1,{MAX_TOPIC_BYTES}}}"
TOPIC_PATTERN = f"^{_TOPIC}$"
TOPICS_PATTERN = f"^({_TOPIC}(,{_TOPIC})*)?$"
"""Regular expressions of a name and of comma-separated names, for OpenAPI and AsyncAPI."""

_NAME = re.compile(_TOPIC, re.ASCII)
_PREFIX = "*"


def checked_topic(name: object) -> str:
    """Return the name of a topic. Raises InvalidTopic, whose text describes valid names."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidTopic(
            f"a topic is 1 to {MAX_TOPIC_BYTES} ASCII letters, digits and characters of . _ : / @ + = -, "
            'such as "orders.42"'
        )
    return name


def checked_grant(grant: object) -> str:
    """Return what a token grants: the name of a topic, or a prefix with a ``*`` at its end. Raises InvalidTopic."""
    if isinstance(grant, str) and grant.endswith(_PREFIX):
        prefix = grant.removesuffix(_PREFIX)
        return checked_topic(prefix) + _PREFIX if prefix else _PREFIX
    return checked_topic(grant)


def is_granted(topic: str, grants: frozenset[str]) -> bool:
    """Return whether one of the grants is this topic or a prefix of it."""
    return topic in grants or any(grant.endswith(_PREFIX) and topic.startswith(grant[:-1]) for grant in grants)


def check_topics(topics: Collection[str]) -> None:
    """Raise InvalidTopic if these are too many for one connection."""
    if len(topics) > MAX_TOPICS:
        raise InvalidTopic(
            f"a connection follows at most {MAX_TOPICS} topics, and this one {len(topics)}: unfollow some, "
            "or open another connection"
        )
    if (size := sum(map(len, topics))) > MAX_TOPICS_BYTES:
        raise InvalidTopic(
            f"the topics of a connection have names of at most {MAX_TOPICS_BYTES} bytes together, and these {size}: "
            "unfollow some, open another connection, or shorten the names"
        )


def named_topics(asked: Iterable[str] | None, grants: frozenset[str]) -> frozenset[str]:
    """Return the topics that a client asked for, or, if it asked for none, all that are granted by their name.

    Raises InvalidTopic for a name that no topic can have, for too many topics, and for one string in place of a list.
    """
    if isinstance(asked, str):
        raise InvalidTopic(one_string("topics", asked))
    if asked is None:
        topics = frozenset(grant for grant in grants if not grant.endswith(_PREFIX)) if grants else grants
    else:
        topics = frozenset(map(checked_topic, asked))
    if topics:
        check_topics(topics)
    # The same object for each connection of a user takes no memory.
    return grants if topics == grants else topics


def granted_topics(asked: Iterable[str] | None, grants: frozenset[str]) -> frozenset[str]:
    """Return ``named_topics``. Also raises TopicRefused for a topic that is not granted."""
    topics = named_topics(asked, grants)
    # Topics that the client did not choose are granted by name.
    if asked is not None:
        for topic in topics:
            if not is_granted(topic, grants):
                raise TopicRefused(topic)
    return topics


MAX_USERS = 1_000
"""The most users that one message addresses."""

AUDIENCE_OVERHEAD = 352
"""Bytes that an audience takes besides its keys: tracemalloc counts up to 311 on CPython 3.11."""

KEY_OVERHEAD = 236
"""Bytes that a key takes besides its text: 49 for the str, up to 107 in a set, and up to 80 in the window's index."""


PUBLISH_SCOPE, ADMIN_SCOPE, METRICS_SCOPE = "messages:publish", "admin", "metrics:read"
"""What a token must have in its scope to publish, to be an operator, and to read metrics."""

_LATEST_TIME = 2**53


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user. ``scopes`` and ``topics`` may also be given as lists, tuples or sets.

    Raises ConfigurationError for a field of another type: a number as ``user_id`` would never receive anything, and
    ``"admin" in "read:administrators"`` is true.
    """

    user_id: str
    scopes: frozenset[str] = field(default_factory=frozenset[str])
    expires_at: float | None = None
    """Unix time in seconds after which the connection is closed with 4401; None means never."""
    topics: frozenset[str] = field(default_factory=frozenset[str])
    """The topics that this user may follow: names, and prefixes with a ``*`` at their end."""
    issued_at: float | None = None
    """Unix time in seconds at which the token was issued; None if that is unknown."""

    def __post_init__(self) -> None:
        if not isinstance(self.user_id, str) or not self.user_id:
            raise ConfigurationError(
                f"user_id is a non-empty string, not {self.user_id!r}: write Identity(str(user.id)), for example"
            )
        try:
            encode_text(self.user_id)
        except ValueError as error:
            raise ConfigurationError(f"user_id is not text: {error}") from None
        # The fields of a frozen dataclass. Most identities have frozensets already.
        if self.scopes or type(self.scopes) is not frozenset:
            object.__setattr__(self, "scopes", _scopes(self.scopes))
        if self.topics or type(self.topics) is not frozenset:
            object.__setattr__(self, "topics", _grants(self.topics))
        _check_time(self.expires_at, field="expires_at")
        _check_time(self.issued_at, field="issued_at")

    def grants(self, topic: str) -> bool:
        """Return whether ``topics`` has this topic, by its name or a prefix."""
        return is_granted(topic, self.topics)

    def require(self, scope: str, *, what: str) -> None:
        """Raise ScopeRequired unless the token has this scope. The text names ``what`` needs it.

        The scope ``admin`` includes ``metrics:read``.
        """
        if scope not in self.scopes and not (scope == METRICS_SCOPE and ADMIN_SCOPE in self.scopes):
            raise ScopeRequired(what, scope=scope)


def _scopes(scopes: object) -> frozenset[str]:
    names = _names(scopes, field="scopes")
    for scope in names:
        if not isinstance(scope, str) or [scope] != scope.split():
            raise ConfigurationError(f"scopes must contain names without spaces, not {scope!r}: write text.split()")
    return names


def _grants(topics: object) -> frozenset[str]:
    try:
        return frozenset(map(checked_grant, _names(topics, field="topics")))
    except InvalidTopic as error:
        raise ConfigurationError(f"topics are invalid: {error}") from None


def _names(names: object, *, field: str) -> frozenset[str]:
    if isinstance(names, str):
        raise ConfigurationError(one_string(field, names))
    if not isinstance(names, list | tuple | set | frozenset):
        raise ConfigurationError(f"{field} must be a set or a list of names, not {names!r}: write {field}=frozenset()")
    try:
        return frozenset(names)
    except TypeError:
        raise ConfigurationError(f"{field} must contain names, which are strings") from None


def _check_time(seconds: object, *, field: str) -> None:
    if seconds is None:
        return
    # Comparisons are exact for integers of any size, and false for NaN.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) < _LATEST_TIME:
        raise ConfigurationError(
            f"{field} is Unix time in seconds, or None, not {seconds!r}: write when.timestamp() for a datetime"
        )


@fact
class Audience:
    """The recipients of a message: everyone when ``keys`` is None, else all who have one of these keys."""

    keys: frozenset[str] | None = None
    first: str | None = field(default=None, compare=False)
    """The key that decides about the retention of a message: that of its first topic, or of its only recipient.

    None for everyone, and for several users.
    """
    size: int = field(init=False, compare=False, repr=False)
    """Bytes of the names as UTF-8; 0 for everyone."""
    size_in_log: int = field(init=False, compare=False, repr=False)
    """Upper bound of the bytes that the keys take in memory; 0 for everyone."""

    def __post_init__(self) -> None:
        size = size_in_log = 0
        if self.keys is not None:
            size = len(encode_text("".join(self.keys)))
            size_in_log = AUDIENCE_OVERHEAD + len(self.keys) * KEY_OVERHEAD + size
        # Frozen for type checkers.
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "size_in_log", size_in_log)

    @property
    def topics(self) -> list[str]:
        """The topics in alphabetical order."""
        return sorted(topic for key in self.keys or () if (topic := topic_of(key)) is not None)

    @property
    def users(self) -> list[str]:
        """The ids of the users in alphabetical order."""
        return sorted(key[1:] for key in self.keys or () if topic_of(key) is None)

    @classmethod
    def of(cls, *, users: Iterable[str] | None = None, topics: Iterable[str] | None = None) -> "Audience":
        """Return the audience of these users and the followers of these topics; without both, everyone.

        Raises ValueError for ids that are not Unicode.
        """
        if users is None and topics is None:
            return EVERYONE
        keys = [] if topics is None else [topic_key(topic) for topic in topics]
        if users is not None:
            keys += [user_key(user) for user in users]
        return cls.with_keys(keys)

    @classmethod
    def with_keys(cls, keys: Sequence[str]) -> "Audience":
        """Return the audience with these keys, in the order in which they were given, topics before users."""
        first = keys[0] if keys and (len(keys) == 1 or keys[0].startswith("#")) else None
        return cls(frozenset(keys), first)

    @property
    def keys_in_order(self) -> list[str]:
        """The keys in the order that ``with_keys`` takes: the first one, then the others, topics before users."""
        return sorted(self.keys or (), key=lambda key: (key != self.first, key))


def user_key(user_id: str) -> str:
    """Return the key that the connections and requests of a user have."""
    return f"@{user_id}"


def topic_key(topic: str) -> str:
    """Return the key that the followers of a topic have: the same object wherever it is used, which saves memory."""
    return sys.intern(f"#{topic}")


def topic_of(key: str) -> str | None:
    """Return the topic that a key is of, or None for the key of a user."""
    return key[1:] if key.startswith("#") else None


def keys_of(user_id: str, topics: Iterable[str] = ()) -> frozenset[str]:
    """Return the keys of a user who follows these topics. Raises InvalidTopic for one string in place of a list."""
    if isinstance(topics, str):
        raise InvalidTopic(one_string("topics", topics))
    return frozenset([user_key(user_id), *map(topic_key, topics)])


EVERYONE = Audience()


def visible(audience: Audience, keys: frozenset[str]) -> bool:
    """Return whether a client with these keys sees a message of this audience. Without keys, it sees broadcasts only.

    This is the definition of visibility: the indexes by keys, of messages and of connections, must agree with it.
    """
    return audience.keys is None or not audience.keys.isdisjoint(keys)
