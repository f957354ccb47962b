"""Users and tokens that were logged out."""

from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidToken

MAX_REVOKED = 100_000
"""How many users, and how many single tokens, are remembered. Beyond that, the oldest ones are forgotten."""


class Revocations:
    """Which tokens are not accepted any more, although they have not expired."""

    def __init__(self) -> None:
        self._users: dict[str, float] = {}
        self._tokens: dict[tuple[str, float | None], None] = {}

    def revoke_user(self, user_id: str, *, now: float) -> None:
        """Refuse the tokens of a user that were issued up to ``now`` (Unix seconds), and those that do not say when."""
        self._users[user_id] = max(now, self._users.pop(user_id, now))
        if len(self._users) > MAX_REVOKED:
            del self._users[next(iter(self._users))]

    def revoke_token(self, user_id: str, issued_at: float | None) -> None:
        """Refuse the token of a user that was issued at this time (Unix seconds), or those that do not say when."""
        self._tokens[user_id, issued_at] = None
        if len(self._tokens) > MAX_REVOKED:
            del self._tokens[next(iter(self._tokens))]

    @property
    def users(self) -> list[tuple[str, float]]:
        """The users that were logged out, and when."""
        return [*self._users.items()]

    @property
    def tokens(self) -> list[tuple[str, float | None]]:
        """The single tokens that were revoked: their users, and when they were issued."""
        return [*self._tokens]

    def refuses(self, identity: Identity) -> bool:
        """Return whether the token of this identity was revoked."""
        revoked_at, issued_at = self._users.get(identity.user_id), identity.issued_at
        of_user = revoked_at is not None and (issued_at is None or issued_at <= revoked_at)
        return of_user or (identity.user_id, issued_at) in self._tokens

    def check(self, identity: Identity) -> None:
        """Raise InvalidToken if the token of this identity was revoked."""
        if self.refuses(identity):
            raise InvalidToken("the user was logged out: log in again, which issues a new token")
