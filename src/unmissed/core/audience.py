"""Who a client is, whom a message is for, and the one function that decides who sees what."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end, as authentication found it."""

    user_id: str
    scopes: frozenset[str] = field(default_factory=frozenset)
    expires_at: float | None = None
    """Unix time in seconds after which the connection is closed with 4401; None means never."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a message is for: everyone when ``users`` is None, else only these users."""

    users: frozenset[str] | None = None

    @classmethod
    def of(cls, users: Iterable[str] | None) -> "Audience":
        """Return the audience of these user ids; None is everyone."""
        return EVERYONE if users is None else cls(frozenset(users))


EVERYONE = Audience()


def visible(audience: Audience, user_id: str | None) -> bool:
    """Tell whether this user sees a message of this audience. ``None`` is a reader who is nobody in particular.

    Live delivery, recovery and every other way out ask this function and no other.
    """
    return audience.users is None or user_id in audience.users
