"""Tokens for the clients and publishers of a run: one for each user, or the only one that there is."""

import base64
import json
import random
from collections.abc import Callable
from typing import Any, Protocol

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.security.tokens import issue_token, issue_token_under
from unmissed.settings import Settings
from unmissed.verify.events import Reader
from unmissed.verify.publishers import Publics

_USERS = tuple(f"verify-{number}" for number in range(5))
_TOPICS = tuple(f"verify.topic-{number}" for number in range(4))
_MOST_TOPICS = 2
_SECONDS = 86_400.0

Issue = Callable[[str, frozenset[str]], str]
"""Returns a token for a user with topics, and with the right to publish."""


class Credentials(Protocol):
    """Who the clients of a run are."""

    publics: Publics

    def reader(self, name: str, chance: random.Random) -> Reader:
        """Return the user and the topics of a client."""
        ...

    def token(self, reader: Reader) -> str:
        """Return the token of a client. It may publish."""
        ...


class ManyUsers:
    """Clients of several users, who follow various topics."""

    publics = Publics(_USERS, _TOPICS)

    def __init__(self, issue: Issue) -> None:
        self._issue = issue

    @classmethod
    def of_secret(cls, secret: str) -> "ManyUsers":
        """Return users whose tokens are signed with this key."""

        def issue(user: str, topics: frozenset[str]) -> str:
            return issue_token(secret, user_id=user, topics=topics, scope=PUBLISH_SCOPE, expires_in=_SECONDS)

        return cls(issue)

    @classmethod
    def of_settings(cls) -> "ManyUsers":
        """Return users whose tokens a server with our settings accepts. Raises ConfigurationError."""
        settings = Settings.load()

        def issue(user: str, topics: frozenset[str]) -> str:
            return issue_token_under(settings, user_id=user, topics=topics, scope=PUBLISH_SCOPE, expires_in=_SECONDS)

        return cls(issue)

    def reader(self, name: str, chance: random.Random) -> Reader:
        """Return a random user who follows random topics."""
        topics = chance.sample(_TOPICS, k=chance.randrange(_MOST_TOPICS + 1))
        return Reader(name, chance.choice(_USERS), frozenset(topics))

    def token(self, reader: Reader) -> str:
        """Return a new token."""
        return self._issue(reader.user, reader.topics)


class OneUser:
    """All clients are the user of one token, and follow the topics that it grants by name."""

    def __init__(self, token: str) -> None:
        claims = _claims(token)
        self._token = token
        self._user = str(claims.get("sub", ""))
        self._topics = frozenset(topic for topic in claims.get("topics", []) if not topic.endswith("*"))
        self.publics = Publics((self._user,) if self._user else (), (*_TOPICS, *sorted(self._topics)))

    def reader(self, name: str, chance: random.Random) -> Reader:  # noqa: ARG002  # nothing is left to chance
        """Return the one user."""
        return Reader(name, self._user, self._topics)

    def token(self, reader: Reader) -> str:  # noqa: ARG002  # there is one user
        """Return the one token."""
        return self._token


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, or nothing for another kind of token. The server verifies it, not we."""
    try:
        segment = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
