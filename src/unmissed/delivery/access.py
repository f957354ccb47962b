"""Who may follow which topics, and how a client renews its token."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from inspect import isawaitable

from unmissed.core.audience import Identity
from unmissed.core.errors import TopicRefused
from unmissed.core.topics import granted_topics, named_topics

Authorize = Callable[[Identity, str], bool | Awaitable[bool]]
"""A function of the application, async or not: whether this identity may follow this topic."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the clients of one endpoint renew their tokens, and which topics they may follow."""

    verify: Callable[[str], Identity] | None = None
    """Verifies a renewed token, or raises InvalidToken. None means that clients cannot renew their tokens."""
    authorize: Authorize | None = None
    """Decides who may follow a topic. None means that the topics of the identity decide."""

    async def granted(self, identity: Identity, asked: Iterable[str] | None) -> frozenset[str]:
        """Return the topics that a client asked for, or, if it asked for none, those that it follows by default.

        Raises InvalidTopic, and TopicRefused for a topic that it may not follow.
        """
        if self.authorize is None:
            return granted_topics(asked, identity.topics)
        topics = named_topics(asked, identity.topics)
        allowed = await self.kept(identity, topics)
        if asked is not None and (refused := topics - allowed):
            raise TopicRefused(min(refused), reason="the application does not allow it")
        return allowed

    async def kept(self, identity: Identity, topics: Iterable[str]) -> frozenset[str]:
        """Return which of these topics this identity may follow."""
        return frozenset([topic for topic in topics if await self._allows(identity, topic)])

    async def _allows(self, identity: Identity, topic: str) -> bool:
        if self.authorize is None:
            return identity.grants(topic)
        decision = self.authorize(identity, topic)
        return bool(await decision if isawaitable(decision) else decision)
