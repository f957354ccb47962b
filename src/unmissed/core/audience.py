"""Users, the audience of a message, and the one function that decides who sees what."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from unmissed.core.encoding import encode_text
from unmissed.core.errors import ConfigurationError, InvalidTopic, ScopeRequired, one_string
from unmissed.core.topics import checked_grant, is_granted

MAX_USERS = 1_000
"""The most users that one message addresses."""

AUDIENCE_OVERHEAD = 352
"""Bytes that an audience takes besides its keys: tracemalloc counts up to 311 on CPython 3.11."""

KEY_OVERHEAD = 236
"""Bytes that a key takes besides its text: 49 for the str, up to 107 in a set, and up to 80 in the window's index."""


PUBLISH_SCOPE, ADMIN_SCOPE = "messages:publish", "admin"
"""What a token must have in its scope to publish, and to see and end the connections of all users."""

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
        """Raise ScopeRequired, which says what needs this scope, unless the token has it."""
        if scope not in self.scopes:
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


@dataclass(frozen=True, slots=True)
class Audience:
    """The recipients of a message: everyone when ``keys`` is None, else all who have one of these keys."""

    keys: frozenset[str] | None = None
    size: int = field(init=False, compare=False, repr=False)
    """Bytes of the names as UTF-8; 0 for everyone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 0 if self.keys is None else len(encode_text("".join(self.keys))))

    @property
    def size_in_log(self) -> int:
        """Upper bound of the bytes that the keys take in memory; 0 for everyone."""
        return 0 if self.keys is None else AUDIENCE_OVERHEAD + len(self.keys) * KEY_OVERHEAD + self.size

    @classmethod
    def of(cls, *, users: Iterable[str] | None = None, topics: Iterable[str] | None = None) -> "Audience":
        """Return the audience of these users and the followers of these topics; without both, everyone.

        Raises ValueError for ids that are not Unicode.
        """
        if users is None and topics is None:
            return EVERYONE
        return cls(frozenset([*map(user_key, users or ()), *map(topic_key, topics or ())]))


def user_key(user_id: str) -> str:
    """Return the key that the connections and requests of a user have."""
    return f"@{user_id}"


def topic_key(topic: str) -> str:
    """Return the key that the followers of a topic have: the same object wherever it is used, which saves memory."""
    return sys.intern(f"#{topic}")


def keys_of(user_id: str, topics: Iterable[str] = ()) -> frozenset[str]:
    """Return the keys of a user who follows these topics. Raises InvalidTopic for one string in place of a list."""
    if isinstance(topics, str):
        raise InvalidTopic(one_string("topics", topics))
    return frozenset([user_key(user_id), *map(topic_key, topics)])


EVERYONE = Audience()


def visible(audience: Audience, keys: frozenset[str]) -> bool:
    """Return whether a client with these keys sees a message of this audience. Without keys, it sees broadcasts only.

    Live delivery, recovery and every other transport use this function and no other.
    """
    return audience.keys is None or not audience.keys.isdisjoint(keys)
