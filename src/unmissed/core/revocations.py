"""Logouts of users, and single tokens that are refused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidToken

MAX_REVOKED = 100_000
"""How many users, and how many single tokens, are remembered. Beyond that, the oldest ones are forgotten."""

MAX_AHEAD_SECONDS = 3_600.0
"""How far the clock that issues tokens may be ahead. A logout refuses new tokens for no longer than this."""

UNDATED_SECONDS = 3_600.0
"""A logout refuses a token that does not state when it was issued if it expires within this time after the logout.

A longer time would refuse users who have logged in again; a shorter one would accept more tokens from before.
"""

MAX_AHEAD = 10_000
"""How many users are remembered whose tokens were ahead of the wall clock."""


class Token(NamedTuple):
    """What identifies a token of a user. Times are Unix seconds, or None if the token does not state them."""

    user_id: str
    issued_at: float | None
    expires_at: float | None

    @classmethod
    def of(cls, identity: Identity) -> "Token":
        """Return the token that an identity comes from."""
        return cls(identity.user_id, identity.issued_at, identity.expires_at)

    @property
    def is_recognizable(self) -> bool:
        """Whether this token can be distinguished from later ones."""
        return self.issued_at is not None or self.expires_at is not None


@dataclass(frozen=True, slots=True)
class LogOut:
    """A logout of a user: tokens issued up to then, or up to ``latest``, are refused. Times are Unix seconds.

    ``id`` is the same on all nodes, and ``at`` is the time on the clock of this one. ``latest`` is the time of issue of
    the newest token that was known then, on the clock of its issuer.
    """

    id: str
    at: float
    latest: float


class Revocations:
    """The tokens that are refused although they have not expired. ``wall_clock`` returns Unix seconds."""

    def __init__(self, *, wall_clock: Callable[[], float], max_revoked: int = MAX_REVOKED) -> None:
        self._wall_clock = wall_clock
        self._max_revoked = max_revoked
        # Combined with XOR: the order of entries does not matter, and the same operation adds and removes one.
        self.fingerprint = 0
        """A number of 64 bits that is equal on nodes that refuse the same tokens."""
        self._users: dict[str, LogOut] = {}
        self._tokens: dict[tuple[str, float | None, float | None], None] = {}
        self._ahead: dict[str, float] = {}
        """For each user, the latest time of issue of accepted tokens that were ahead of the wall clock."""

    def log_out(self, user_id: str, *, logout_id: str, age: float = 0.0, latest: float = 0.0) -> bool:
        """Refuse the tokens of a user that were issued until ``age`` seconds ago, or until ``latest`` (Unix seconds).

        Return whether more tokens are refused now. Nodes send the same logout several times.
        """
        now, known = self._wall_clock(), self._users.get(user_id)
        if known is not None and known.id == logout_id and known.latest >= latest:
            return False
        new = LogOut(logout_id, now - max(0.0, age), min(latest, now + MAX_AHEAD_SECONDS))
        if known is not None:
            # After the clock was set back, a known logout would count as later than this one.
            known = replace(known, at=min(known.at, now))
            later = known if known.id == logout_id or known.at > new.at else new
            new = LogOut(later.id, later.at, max(known.latest, new.latest))
            self._forget_user(user_id)  # Added again below, as the newest: the oldest entries are forgotten first.
        self._users[user_id] = new
        # Without ``at``, which is a time on the clock of this node alone.
        self.fingerprint ^= _fingerprint(user_id, new.id, new.latest)
        if len(self._users) > self._max_revoked:
            self._forget_user(next(iter(self._users)))
        return new != known

    def refuse(self, tokens: Iterable[Token]) -> None:
        """Refuse single tokens, except one that cannot be recognized: that would lock out its user for ever."""
        for token in tokens:
            if token.is_recognizable and token not in self._tokens:
                self._tokens[token] = None
                self.fingerprint ^= _fingerprint(*token)
        while len(self._tokens) > self._max_revoked:
            self._tokens.pop(oldest := next(iter(self._tokens)))
            self.fingerprint ^= _fingerprint(*oldest)

    def latest_ahead(self, user_id: str, tokens: Iterable[Token]) -> float:
        """Return the newest ``issued_at`` ahead of the wall clock, of these tokens and those accepted before, or 0.

        A time too far ahead for any clock is ignored: such a token can only be refused singly.
        """
        now = self._wall_clock()
        times = [self._ahead.get(user_id, 0.0), *(token.issued_at or 0.0 for token in tokens)]
        return max((at for at in times if now < at <= now + MAX_AHEAD_SECONDS), default=0.0)

    @property
    def users(self) -> list[tuple[str, str, float, float]]:
        """The logouts: for each user, its id, its age in seconds, and its ``latest``."""
        now = self._wall_clock()
        return [(user_id, each.id, now - each.at, each.latest) for user_id, each in self._users.items()]

    @property
    def tokens(self) -> list[Token]:
        """The single tokens that are refused."""
        return [Token(*token) for token in self._tokens]

    def refuses(self, token: Identity | Token) -> bool:
        """Return whether a token, or that of an identity, is refused."""
        if self._tokens and (token.user_id, token.issued_at, token.expires_at) in self._tokens:
            return True
        logout = self._users.get(token.user_id)
        if logout is None:
            return False
        if logout.at > (now := self._wall_clock()):
            # The clock was set back since then. Otherwise, the user could not log in until it shows that time again.
            logout = self._users[token.user_id] = replace(logout, at=now)
        if token.issued_at is None:
            return token.expires_at is not None and token.expires_at <= logout.at + UNDATED_SECONDS
        return token.issued_at <= max(logout.at, logout.latest)

    def check(self, identity: Identity) -> None:
        """Raise InvalidToken if the token of this identity is refused."""
        if self.refuses(identity):
            raise InvalidToken("the user was logged out: log in again, which issues a new token")
        if identity.issued_at is not None and identity.issued_at > self._wall_clock():
            # A clock that issues tokens may be ahead: a logout must also refuse those that it has dated after now.
            # ``pop`` moves the user to the end: the first entry is always the one that was accepted longest ago.
            self._ahead[identity.user_id] = max(identity.issued_at, self._ahead.pop(identity.user_id, 0.0))
            if len(self._ahead) > MAX_AHEAD:
                del self._ahead[next(iter(self._ahead))]

    def _forget_user(self, user_id: str) -> None:
        logout = self._users.pop(user_id)
        self.fingerprint ^= _fingerprint(user_id, logout.id, logout.latest)


def _fingerprint(*entry: object) -> int:
    return int.from_bytes(blake2b(repr(entry).encode("utf-8", "surrogatepass"), digest_size=8).digest())
