"""Users, the audience of a message, and the one function that decides who sees what."""

from collections.abc import Iterable
from dataclasses import dataclass, field


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

    @classmethod
    def of(cls, users: Iterable[str] | None) -> "Audience":
        """Return the audience of these user ids; None is everyone."""
        return EVERYONE if users is None else cls(frozenset(users))


EVERYONE = Audience()


def visible(audience: Audience, user_id: str | None) -> bool:
    """Return whether this user sees a message of this audience. ``None`` sees only what everyone sees.

    Live delivery, recovery and every other transport use this function and no other.
    """
    return audience.users is None or user_id in audience.users
