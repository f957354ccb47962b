"""Users, the audience of a message, and the one function that decides who sees what."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from unmissed.core.encoding import encode_text

MAX_USERS = 1_000
"""The most users that one message addresses."""

AUDIENCE_OVERHEAD = 352
"""Bytes that an audience of users takes besides its users: tracemalloc counts up to 311 on CPython 3.11."""

USER_OVERHEAD = 156
"""Bytes that a user id takes besides its text: 49 for the str, and up to 107 in a set that has just grown."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated user."""

    user_id: str
    scopes: frozenset[str] = field(default_factory=frozenset[str])
    expires_at: float | None = None
    """Unix time in seconds after which the connection is closed with 4401; None means never."""


@dataclass(frozen=True, slots=True)
class Audience:
    """The recipients of a message: everyone when ``users`` is None, else only these users."""

    users: frozenset[str] | None = None
    size: int = field(init=False, compare=False, repr=False)
    """Bytes that the users take in memory; 0 for everyone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 0 if self.users is None else _size(self.users))

    @classmethod
    def of(cls, users: Iterable[str] | None) -> "Audience":
        """Return the audience of these user ids; None is everyone. Raises ValueError for ids that are not Unicode."""
        return EVERYONE if users is None else cls(frozenset(users))


def _size(users: frozenset[str]) -> int:
    return AUDIENCE_OVERHEAD + len(users) * USER_OVERHEAD + len(encode_text("".join(users)))


EVERYONE = Audience()


def visible(audience: Audience, user_id: str | None) -> bool:
    """Return whether this user sees a message of this audience. ``None`` sees only what everyone sees.

    Live delivery, recovery and every other transport use this function and no other.
    """
    return audience.users is None or user_id in audience.users
